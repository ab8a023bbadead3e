"""What the two kinds of simulated VM have in common: power, scripts' hand-over, and looks from outside.

``SimulatedVm`` in ``base.py`` is what the ARM stand-in needs; ``Machine`` adds what tests and the demo need.
Each kind says how it boots, halts and runs a command.
"""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devcloud.vms.base import ScriptResult, VmSpec
from devcloud.vms.units import ENVIRONMENT_NAME, UnitFile

KEPT_OUTPUT_BYTES = 65_536
AGENT_UNIT = "vm-agent.service"
_SCRIPTS = "/var/lib/waagent/run-command"


class VmError(Exception):
    """A simulated VM could not do what was asked; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Streams:
    """The host's files that take a command's output; files, so that its background children block nobody."""

    stdout: Path
    stderr: Path


class Machine(ABC):
    """A simulated VM. ``directory`` is its place on the host: disk, logs, scripts."""

    def __init__(self, spec: VmSpec, directory: Path, units: Sequence[UnitFile]) -> None:
        self.spec = spec
        self.directory = directory.absolute()
        self.units = list(units)
        self.azure_agent_healthy = True  # a test may say that Azure's own agent doesn't answer
        self._power_state = "deallocated"
        self._power = asyncio.Lock()

    @property
    def power_state(self) -> str:
        """The suffix of ARM's ``PowerState/...`` code; "stopped" too where the VM has ended by itself."""
        return "stopped" if self._power_state == "running" and not self._lives() else self._power_state

    @property
    def vm_agent_ready(self) -> bool:
        """Whether Azure's own VM agent answers."""
        return self.power_state == "running" and self.azure_agent_healthy

    async def start(self) -> None:
        """Boot, unless it runs; returns when its units have been started."""
        async with self._power:
            if self.power_state != "running":
                await self._halt()  # what a VM that ended by itself has left
                await self._start()

    async def stop(self) -> None:
        """Deallocate: every process in it is killed and nothing of it stays but its disk."""
        async with self._power:
            await self._stop()

    async def restart(self) -> None:
        """Power off and on."""
        async with self._power:
            await self._stop()
            await self._start()

    async def _start(self) -> None:
        self._power_state = "starting"
        try:
            await self._boot()
        except BaseException:
            await self._halt()
            self._power_state = "stopped"
            raise
        self._power_state = "running"

    async def _stop(self) -> None:
        if self._power_state == "deallocated":
            return
        self._power_state = "deallocating"
        await self._halt()
        self._power_state = "deallocated"

    async def run_script(
        self, script: str, environment: Mapping[str, str], timeout_seconds: float
    ) -> ScriptResult:
        """Run a shell script as root in the VM, ``environment`` added to its variables.

        Exit codes above 128 are signals, 137 also where the VM was stopped meanwhile.
        """
        for name, value in environment.items():
            if not ENVIRONMENT_NAME.fullmatch(name) or "\0" in value:
                raise ValueError(f"parameter {name!r}: must be letters, digits and _, its value without NUL")
        token = uuid.uuid4().hex
        inside = f"{_SCRIPTS}/{token}.sh"
        # As Azure's handler does: the file itself is run where it names its interpreter.
        command = [self.inside(inside)] if script.startswith("#!") else ["/bin/sh", self.inside(inside)]
        streams = Streams(*(self.directory / f"script-{token}.{name}" for name in ("stdout", "stderr")))
        try:
            self.write_file(inside, script, 0o700)
            code, timed_out = await self.execute(command, environment, timeout_seconds, streams)
            return ScriptResult(code, _tail(streams.stdout), _tail(streams.stderr), timed_out)
        finally:
            streams.stdout.unlink(missing_ok=True)
            streams.stderr.unlink(missing_ok=True)
            if self.power_state == "running":
                self.remove_file(inside)

    async def systemctl(self, *arguments: str) -> ScriptResult:
        """Run ``systemctl`` in the VM."""
        return await self.run_script('eval "exec systemctl $ARGUMENTS"', {"ARGUMENTS": _shell(arguments)}, 30)

    async def unit_properties(self, unit: str) -> dict[str, str]:
        """All that ``systemctl show`` says of a unit."""
        shown = await self.systemctl("show", "--no-pager", unit)
        pairs = (line.partition("=") for line in shown.stdout.splitlines())
        return {name: value for name, _, value in pairs}

    async def kill_unit(self, unit: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to a unit's main process, as an accident would; returns its pid on the host."""
        pid = await self.main_pid(unit)
        if pid == 0:
            raise VmError(f"VM {self.spec.name}: unit {unit} has no process to kill")
        os.kill(pid, number)
        return pid

    def write_file(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file in the VM; ``path`` is absolute there."""
        target = self.outside(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8", errors="surrogateescape")
        target.chmod(mode)

    def remove_file(self, path: str) -> None:
        """Remove a file in the VM; one that isn't there is fine."""
        self.outside(path).unlink(missing_ok=True)

    @abstractmethod
    def inside(self, path: str) -> str:
        """How processes in the VM name the file that is ``path`` from the VM's root."""

    @abstractmethod
    def outside(self, path: str) -> Path:
        """Where the host finds the VM's file ``path``."""

    @abstractmethod
    async def main_pid(self, unit: str) -> int:
        """The unit's main process as the host numbers it; 0 for none."""

    @abstractmethod
    async def execute(
        self, command: Sequence[str], environment: Mapping[str, str], timeout_seconds: float, streams: Streams
    ) -> tuple[int, bool]:
        """Run a command in the VM: its exit code (-1 when out of time) and whether its time was up."""

    @abstractmethod
    def _lives(self) -> bool: ...

    @abstractmethod
    async def _boot(self) -> None: ...

    @abstractmethod
    async def _halt(self) -> None: ...


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - KEPT_OUTPUT_BYTES))
            return stream.read().decode("utf-8", "replace")
    except FileNotFoundError:  # the VM went away before the command began
        return ""


def _shell(arguments: Sequence[str]) -> str:
    return " ".join("'" + argument.replace("'", "'\\''") + "'" for argument in arguments)
