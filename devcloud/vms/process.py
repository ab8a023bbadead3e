"""A simulated VM of plain processes, on an address 127.0.0.x: for machines without root or without systemd.

Its file tree is a directory; a supervisor (``supervisor.py``) stands for systemd, and a ``systemctl`` on PATH
for the real one. It shares users, network and process table with the host: it isolates nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from devcloud.vms import systemctl
from devcloud.vms.base import VmSpec
from devcloud.vms.helpers import REPOSITORY, python_module
from devcloud.vms.machine import AGENT_UNIT, Machine, Streams, VmError
from devcloud.vms.units import UnitFile, expanded

_START_TIMEOUT_SECONDS = 20.0
_STOP_TIMEOUT_SECONDS = 10.0
# The VM's root is not the host's, so the agent must be told where its places are.
_AGENT_PLACES = {
    "VM_AGENT_ALLOW_LIST": "{root}/etc/vm-agent/allow-units",
    "VM_AGENT_STATE_DIR": "{root}/var/lib/vm-agent",
    "VM_AGENT_ROOT_STATE_DIR": "{root}/var/lib/vm-agent-remediate",
    "VM_AGENT_DEPLOY_LOCK_FILE": "{root}/run/vm-agent/deploy.lock",
    "VM_AGENT_JOURNAL": "off",  # it would be the host's
    "DBUS_SYSTEM_BUS_ADDRESS": "unix:path={root}/run/dbus/system_bus_socket",  # nobody there: systemctl it is
}
_MARK = "DEVCLOUD_VM_DIRECTORY"


class ProcessVm(Machine):
    """A directory, a supervisor and real processes."""

    def __init__(
        self,
        spec: VmSpec,
        directory: Path,
        units: Sequence[UnitFile],
        agent_environment: Mapping[str, str] | None,
    ) -> None:
        super().__init__(spec, directory, units)
        self._places = {"root": str(self.directory), "python": sys.executable, "code": str(REPOSITORY)}
        self._has_agent = agent_environment is not None
        self._agent_environment = {
            name: expanded(value, self._places)
            for name, value in {**_AGENT_PLACES, **(agent_environment or {})}.items()
        }
        self._supervisor: asyncio.subprocess.Process | None = None

    def inside(self, path: str) -> str:
        """Processes here see the host's own tree, so the VM's root is its directory."""
        return str(self.outside(path))

    def outside(self, path: str) -> Path:
        """Where the host finds the VM's file ``path``."""
        return self.directory / path.lstrip("/")

    async def main_pid(self, unit: str) -> int:
        """The unit's main process; 0 for none."""
        return int((await self.unit_properties(unit))["MainPID"])

    async def execute(
        self, command: Sequence[str], environment: Mapping[str, str], timeout_seconds: float, streams: Streams
    ) -> tuple[int, bool]:
        """Have the supervisor run the command, so that it ends with the VM."""
        request = {
            "command": list(command),
            # On this kind of VM, scripts see the agent's settings as they would in /etc/environment.
            "environment": {**self._agent_environment, **environment},
            "timeout_seconds": timeout_seconds,
            "stdout": str(streams.stdout),
            "stderr": str(streams.stderr),
            "directory": str(self.directory),
        }
        if self._supervisor is None:
            raise VmError(f"VM {self.spec.name} is {self.power_state}, it must be running")
        head = await self._ask("script\0" + json.dumps(request))
        if not head:
            return 128 + signal.SIGKILL, False
        code, length = (int(word) for word in head.split())
        return code, length > 0

    async def _ask(self, text: str) -> bytes:
        """The head line of the supervisor's answer; empty where it was stopped meanwhile."""
        link = Path(f"/proc/{os.getpid()}/fd")
        run = os.open(self.directory / "run", os.O_RDONLY | os.O_DIRECTORY)
        try:  # through the descriptor, since a socket's path may hold 107 bytes only
            path = f"{link}/{run}/{systemctl.SOCKET_NAME}"
            reader, writer = await asyncio.open_unix_connection(path)
        except OSError:
            return b""
        finally:
            os.close(run)
        try:
            request = text.encode("utf-8", "surrogateescape")
            writer.write(b"%d\n" % len(request) + request)
            return await reader.readline()
        except ConnectionError:
            return b""
        finally:
            writer.close()

    def _lives(self) -> bool:
        return self._supervisor is not None and self._supervisor.returncode is None

    async def _boot(self) -> None:
        self._install()
        with (self.directory / "var/log/supervisor.log").open("ab") as log:
            self._supervisor = await asyncio.create_subprocess_exec(
                *python_module("devcloud.vms.supervisor", str(self.directory)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._machine_environment(),
                start_new_session=True,
            )
        assert self._supervisor.stdout is not None
        line = await asyncio.wait_for(self._supervisor.stdout.readline(), _START_TIMEOUT_SECONDS)
        if line != b"ready\n":
            reason = (self.directory / "var/log/supervisor.log").read_text(errors="replace")[-2000:]
            raise VmError(f"VM {self.spec.name}: its supervisor did not start: {reason}")

    async def _halt(self) -> None:
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            assert supervisor.stdin is not None
            supervisor.stdin.close()
            try:
                await asyncio.wait_for(supervisor.wait(), _STOP_TIMEOUT_SECONDS)
            except TimeoutError:
                supervisor.kill()
                await supervisor.wait()
        kill_marked(str(self.directory))  # only where the supervisor itself was killed is anything left

    def _machine_environment(self) -> dict[str, str]:
        own = [self.inside("/usr/bin"), self.inside("/opt/vm-agent/bin")]
        return {
            "PATH": os.pathsep.join([*own, os.environ.get("PATH", os.defpath)]),
            "LANG": "C.UTF-8",
            "HOME": self.inside("/root"),
            _MARK: str(self.directory),
        }

    def _install(self) -> None:
        for name in (
            "etc",
            "run",
            "var/log",
            "var/lib/vm-agent",
            "root",
            "usr/bin",
            "opt/vm-agent/bin",
            "units",
        ):
            self.outside(name).mkdir(parents=True, exist_ok=True)
        client = [sys.executable, "-I", "-S", str(Path(systemctl.__file__).resolve()), self.inside("/run")]
        self.write_file("/usr/bin/systemctl", f'#!/bin/sh\nexec {shlex.join(client)} "$@"\n', 0o755)
        code, python = shlex.quote(str(REPOSITORY)), shlex.quote(sys.executable)
        agent = f'#!/bin/sh\nexport PYTHONPATH={code}\nexec {python} -P -m vm_agent "$@"\n'
        self.write_file("/opt/vm-agent/bin/vm-agent", agent, 0o755)
        self.write_file("/etc/vm-agent/allow-units", "".join(f"{unit.name}\n" for unit in self.units))
        for unit in [*self.units, *([self._agent_unit()] if self._has_agent else [])]:
            self.write_file(f"/units/{unit.name}", unit.text(self._places))

    def _agent_unit(self) -> UnitFile:
        return UnitFile(
            AGENT_UNIT,
            exec_start='"{root}/opt/vm-agent/bin/vm-agent" run',
            restart="always",
            restart_seconds=5,
            environment=self._agent_environment,
            description="VM health agent (azure-vm-watchdog)",
            start_limit_interval_seconds=0,
        )


def kill_marked(directory: str) -> None:
    """Kill every process whose environment says that it belongs to the VM in ``directory``."""
    mark = f"{_MARK}={directory}".encode()
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in entry.read_bytes().split(b"\0"):
                os.kill(int(entry.parent.name), signal.SIGKILL)
        except OSError:  # ended meanwhile, or another user's
            continue
