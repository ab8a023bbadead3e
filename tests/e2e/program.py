"""``python -m devcloud`` as its user runs it, and everything on this machine that belongs to such a run."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from devcloud.stack import ROOT
from devcloud.vms import cgroups, linux

_NET = Path("/sys/class/net")


@dataclass(frozen=True, slots=True)
class Belongings:
    """What a run has on this machine while it runs."""

    pids: frozenset[int]
    directory: Path
    bridges: frozenset[str]

    def left(self) -> list[str]:
        """What of it is still there."""
        found = [f"process {pid}: {_command(pid)}" for pid in self.pids if _lives(pid)]
        found += [
            f"process {entry.name}: {_command(int(entry.name))}"
            for entry in Path("/proc").glob("[0-9]*")
            if str(self.directory) in _command(int(entry.name)) + _read(entry / "environ")
        ]
        found += [line for line in _read(Path("/proc/mounts")).splitlines() if str(self.directory) in line]
        for bridge in self.bridges:
            found += [f"link {link.name}" for link in _NET.glob(f"{bridge}*")]
            for hierarchy in cgroups.hierarchies():
                found += [f"group {group}" for group in hierarchy.parent.glob(f"{bridge}p*")]
        return found


@dataclass(slots=True)
class Program:
    """A running ``python -m devcloud`` in a process group of its own, as a terminal gives it one."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def running(cls, *arguments: str) -> AsyncIterator[Program]:
        """Start it, and kill it at the end if it still runs; ``lines`` keeps what it writes, errors too."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "devcloud", *arguments),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield cls(process)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def says(self, text: str, timeout_seconds: float = 60) -> str:
        """Read on until a line holds ``text``; returns the line."""
        assert self.process.stdout is not None
        async with asyncio.timeout(timeout_seconds):
            async for line in self.process.stdout:
                self.lines.append(line.decode().rstrip())
                if text in self.lines[-1]:
                    return self.lines[-1]
        raise AssertionError(f"it ended without saying {text!r}; it said:\n" + "\n".join(self.lines))

    async def end(self, timeout_seconds: float) -> int:
        """Read to its end and return the exit code."""
        async with asyncio.timeout(timeout_seconds):
            output, _ = await self.process.communicate()
        self.lines += output.decode().splitlines()
        assert self.process.returncode is not None
        return self.process.returncode

    def press_ctrl_c(self) -> None:
        """What a terminal does: SIGINT to the whole foreground group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def belongings(self) -> Belongings:
        """Take stock, while everything runs."""
        pids = frozenset(linux.descendants(self.process.pid))
        parent = ROOT / ".devcloud"
        [directory] = parent.glob(f"run-{self.process.pid}-*")
        owners = {f"devcloud-bridge:{pid}" for pid in pids}
        bridges = {link.parent.name for link in _NET.glob("*/ifalias") if _read(link).strip() in owners}
        return Belongings(pids, directory, frozenset(bridges))


def _lives(pid: int) -> bool:
    state = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return bool(state) and state[0] != "Z"


def _command(pid: int) -> str:
    return _read(Path(f"/proc/{pid}/cmdline")).replace("\0", " ")


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # gone meanwhile, or nobody's business
        return ""
