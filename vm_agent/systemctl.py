"""What systemd says of units, and the two things that may be asked of it, through ``systemctl``.

Names come from ``vm_health.names`` checks; they travel as arguments behind ``--``, never through a shell.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from vm_health.errors import TransientError
from vm_health.model import UnitSample

PROPERTIES = (
    "Id,LoadState,ActiveState,SubState,Type,Result,NRestarts,MainPID,"
    "ActiveEnterTimestamp,InactiveExitTimestamp,MemoryCurrent"
)
_MAX_COUNT = 2**31
_MAX_BYTES = 2**63


@dataclass(frozen=True, slots=True)
class CommandEnd:
    """How a systemctl call ended; ``exit_code`` is None where the time-out ended it."""

    exit_code: int | None
    stdout: str
    stderr: str

    @property
    def problem(self) -> str:
        """Why it failed in systemctl's own words, "" where it did not."""
        if self.exit_code == 0:
            return ""
        if self.exit_code is None:
            return "it did not end in time"
        lines = self.stderr.strip().splitlines()
        return lines[0].strip()[:300] if lines else f"exit code {self.exit_code}"


def show(units: Sequence[str], timeout_seconds: float) -> tuple[UnitSample, ...]:
    """Return the state of all ``units``, in their order, by one call.

    Raises:
        TransientError: systemctl is missing, failed, timed out or answered something else.
    """
    if not units:
        return ()
    end = call(["show", "--no-pager", f"--property={PROPERTIES}", "--", *units], timeout_seconds)
    if end.problem:
        raise TransientError(f"systemctl show: {end.problem}")
    return parse_show(end.stdout, units)


def call(arguments: Sequence[str], timeout_seconds: float) -> CommandEnd:
    """Run ``systemctl`` with ``arguments``; it is killed after ``timeout_seconds``.

    Raises:
        TransientError: it cannot be started.
    """
    # TZ=UTC gives times that can be read without a table of zones; it works on every systemd, unlike
    # --timestamp=unix, which older ones refuse together with the whole call.
    environment = {**os.environ, "TZ": "UTC", "LC_ALL": "C", "SYSTEMD_COLORS": "0"}
    try:
        end = subprocess.run(
            ["systemctl", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_seconds,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return CommandEnd(None, "", "")
    except OSError as error:
        raise TransientError(f"systemctl cannot be started: {error.strerror}") from error
    return CommandEnd(
        end.returncode, end.stdout.decode(errors="replace"), end.stderr.decode(errors="replace")
    )


def parse_show(text: str, units: Sequence[str]) -> tuple[UnitSample, ...]:
    """Read the blocks of ``systemctl show``: one a unit, in the order asked (``Id`` may be another alias).

    Raises:
        TransientError: there are not as many blocks as units.
    """
    blocks = [
        dict(line.partition("=")[::2] for line in block.splitlines() if "=" in line)
        for block in text.strip().split("\n\n")
    ]
    if len(blocks) != len(units) or not all(blocks):
        raise TransientError(f"systemctl show told of {len(blocks)} units, asked were {len(units)}")
    return tuple(_unit(name, block) for name, block in zip(units, blocks, strict=True))


def parse_moment(text: str) -> datetime | None:
    """Read ``Tue 2026-11-24 23:11:37 UTC`` or ``@1795561897``; None for never and for anything else."""
    try:
        if text.startswith("@"):
            seconds = float(text[1:])
            return datetime.fromtimestamp(seconds, UTC) if seconds > 0 else None
        _weekday, day, time, zone = text.split()
        return datetime.fromisoformat(f"{day} {time}").replace(tzinfo=UTC) if zone == "UTC" else None
    except (ValueError, OverflowError, OSError):
        return None


def _unit(name: str, block: Mapping[str, str]) -> UnitSample:
    return UnitSample(
        name=name,
        load_state=block.get("LoadState") or "unknown",
        active_state=block.get("ActiveState") or "unknown",
        sub_state=block.get("SubState") or "unknown",
        service_type=block.get("Type") or "simple",
        result=block.get("Result") or "success",
        restarts=_count(block.get("NRestarts", "")),
        main_pid=_count(block.get("MainPID", "")),
        active_since=parse_moment(block.get("ActiveEnterTimestamp", "")),
        memory_bytes=_size(block.get("MemoryCurrent", "")),
        started_at=parse_moment(block.get("InactiveExitTimestamp", "")),
    )


def _size(text: str) -> int:
    """Read a size; "[not set]" and 2^64-1 stand where systemd does not know it."""
    size = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
    return size if size < _MAX_BYTES else 0


def _count(text: str) -> int:
    return min(int(text[:12]), _MAX_COUNT) if text.isascii() and text.isdigit() else 0
