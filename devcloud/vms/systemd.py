"""A simulated VM with a real systemd: PID 1 of its own namespaces, an own address, the agent as its unit.

Owns the box's life and looks into it; how a box is made stands in ``guard.py`` and ``namespaces.py``. Linux
and root only: ask ``supported()`` first.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from devcloud.vms import linux, namespaces
from devcloud.vms.base import VmSpec
from devcloud.vms.bridge import VmNetwork
from devcloud.vms.helpers import REPOSITORY, python_module
from devcloud.vms.installation import Installation
from devcloud.vms.machine import Machine, Streams, VmError
from devcloud.vms.namespaces import Box
from devcloud.vms.units import UnitFile

_START_TIMEOUT_SECONDS = 30.0
_STOP_TIMEOUT_SECONDS = 20.0
_MOST_LINKS = 40
_OTHERS_READ = 0o005


def supported() -> str | None:
    """Why this machine can't run such a VM; ``None`` where it can."""
    if not linux.IS_LINUX:
        return f"a systemd VM needs Linux, this is {sys.platform}"
    readable = REPOSITORY.stat().st_mode & _OTHERS_READ == _OTHERS_READ
    needs = {
        f"root, this is user {os.geteuid()}": os.geteuid() == 0,
        f"systemd at one of {', '.join(namespaces.INIT_PATHS)}": namespaces.find_init() is not None,
        "the command 'ip' (iproute2)": shutil.which("ip") is not None,
        "overlayfs in /proc/filesystems": "\toverlay"
        in Path("/proc/filesystems").read_text(encoding="ascii"),
        f"{REPOSITORY} readable by others, since the agent has an own user (chmod o+rx)": readable,
    }
    missing = [need for need, met in needs.items() if not met]
    if not missing and (reason := _why_no_namespaces()):
        missing.append(f"namespaces of its own: {reason}")
    return f"a systemd VM needs {'; '.join(missing)}" if missing else None


def _why_no_namespaces() -> str:
    probe = python_module("devcloud.vms.namespaces")
    tried = subprocess.run(probe, capture_output=True, text=True, check=False, timeout=20)
    return tried.stderr.strip().splitlines()[-1] if tried.returncode else ""


class SystemdVm(Machine):
    """A box on ``network``; its guard process ends it when this process ends, however that is."""

    def __init__(
        self,
        spec: VmSpec,
        directory: Path,
        units: Sequence[UnitFile],
        agent_environment: Mapping[str, str] | None,
        network: VmNetwork,
    ) -> None:
        super().__init__(spec, directory, units)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._network = network
        self._installation = Installation(self.units, agent_environment)
        self._guard: asyncio.subprocess.Process | None = None
        self._init = 0
        self._groups: list[str] = []

    @property
    def init_pid(self) -> int:
        """The host's pid of the box's PID 1; its tree is ``/proc/PID/root``."""
        if self._init == 0:
            raise VmError(f"VM {self.spec.name} is {self.power_state}, it must be running")
        return self._init

    def inside(self, path: str) -> str:
        """Processes in the box see its own tree."""
        return path

    def outside(self, path: str) -> Path:
        """Where the host finds the box's file ``path``; links in the box lead to places in the box."""
        root = Path(f"/proc/{self.init_pid}/root")
        rest, done = [part for part in path.split("/") if part], list[str]()
        for _ in range(_MOST_LINKS + len(rest) * _MOST_LINKS):
            if not rest:
                return root.joinpath(*done)
            part = rest.pop(0)
            if part == "..":
                done = done[:-1]
                continue
            here = root.joinpath(*done, part)
            if part == "." or not here.is_symlink():
                done += [] if part == "." else [part]
                continue
            target = os.readlink(here)
            done = [] if target.startswith("/") else done
            rest = [word for word in target.split("/") if word] + rest
        raise VmError(f"VM {self.spec.name}: too many links in {path}")

    async def main_pid(self, unit: str) -> int:
        """The unit's main process as the host numbers it; 0 for none."""
        number = int((await self.unit_properties(unit))["MainPID"])
        return next((pid for pid in linux.descendants(self.init_pid) if _inner_pid(pid) == number), 0)

    async def execute(
        self, command: Sequence[str], environment: Mapping[str, str], timeout_seconds: float, streams: Streams
    ) -> tuple[int, bool]:
        """Run the command in all the box's namespaces; its process group is killed when its time is up."""
        with streams.stdout.open("wb") as stdout, streams.stderr.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *python_module("devcloud.vms.enter", str(self.init_pid), ":".join(self._groups), *command),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={"PATH": namespaces.SEARCH_PATH, "LANG": "C.UTF-8", "HOME": "/root", **environment},
                start_new_session=True,
            )
        try:
            return await asyncio.wait_for(process.wait(), timeout_seconds), False
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            return -1, True

    def _lives(self) -> bool:
        return self._guard is not None and self._guard.returncode is None

    async def _boot(self) -> None:
        box = Box(
            name=self.spec.name,
            directory=str(self.directory),
            address=self.spec.address,
            prefix_length=self._network.subnet.prefixlen,
            bridge=self._network.bridge,
            interface=self._network.interface(self.spec.address),
            binds=self._installation.binds(),
            files=self._installation.files(),
        )
        self._guard = await asyncio.create_subprocess_exec(
            *python_module("devcloud.vms.guard"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._guard.stdin is not None
        self._guard.stdin.write(json.dumps(dataclasses.asdict(box)).encode() + b"\n")
        await self._guard.stdin.drain()
        try:
            answer = await asyncio.wait_for(self._guard_says("pid"), _START_TIMEOUT_SECONDS)
            self._init, self._groups = answer["pid"], answer["groups"]
            await asyncio.wait_for(self._guard_says("ready"), _START_TIMEOUT_SECONDS)
        except TimeoutError as error:
            raise VmError(f"VM {self.spec.name}: systemd was not ready in time") from error

    async def _guard_says(self, key: str) -> dict[str, Any]:
        assert self._guard is not None
        assert self._guard.stdout is not None
        answer: dict[str, Any] = json.loads(await self._guard.stdout.readline() or "{}")
        if key not in answer:
            reason = answer.get("error", "the box ended")
            raise VmError(f"VM {self.spec.name}: {reason}; its console says: {self._console() or 'nothing'}")
        return answer

    def _console(self) -> str:
        return (self.directory / "console.log").read_text(errors="replace")[-2000:]

    async def _halt(self) -> None:
        guard, self._guard, self._init = self._guard, None, 0
        if guard is not None:
            assert guard.stdin is not None
            guard.stdin.close()
            await asyncio.wait_for(guard.wait(), _STOP_TIMEOUT_SECONDS)


def _inner_pid(pid: int) -> int:
    """The pid that the host's process ``pid`` has in its own pid namespace; -1 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return -1
    return next(int(line.split()[-1]) for line in lines if line.startswith("NSpid:"))
