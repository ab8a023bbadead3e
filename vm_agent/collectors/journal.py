"""Recent errors in the watched units' journal: one ``journalctl`` for all, from where the last one ended."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from vm_agent import commands
from vm_agent.collectors.base import Parts
from vm_agent.error_window import ErrorWindow
from vm_health.errors import TransientError

_LOG = logging.getLogger(__name__)
TIMEOUT_SECONDS = 5.0
MAX_ENTRIES = 500  # the rest comes with the next look
_MAX_BYTES = 2_000_000
_UNIT_FIELDS = ("_SYSTEMD_UNIT", "UNIT", "OBJECT_SYSTEMD_UNIT", "COREDUMP_UNIT")
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_COLORS": "0"}
RunJournalctl = Callable[[Sequence[str]], commands.Output]


class JournalCollector:
    """Counts entries of priority ``err`` and worse within the window.

    The cursor lives in memory: after a restart of the agent the window is read once more, and the count is
    right again. ``required`` tells whether a journal that may not be read is a failure or no matter.
    """

    name = "journal"

    def __init__(
        self,
        units: tuple[str, ...],
        *,
        window_seconds: float,
        interval_seconds: float,
        required: bool,
        run: RunJournalctl | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.interval_seconds = interval_seconds
        self._windows = {unit: ErrorWindow(unit, window_seconds) for unit in units}
        self._window_seconds = window_seconds
        self._required = required
        self._run = run or journalctl
        self._monotonic = monotonic
        self._since = 0.0
        self._cursor = ""
        self._is_off = False

    def collect(self, now: datetime) -> Parts:
        """Read what is new.

        Raises:
            TransientError: the journal cannot be read, and it is required or could be read before.
        """
        if self._is_off:
            return {}
        self._since = self._since or now.timestamp() - self._window_seconds
        start = f"--after-cursor={self._cursor}" if self._cursor else f"--since=@{self._since:.0f}"
        try:
            self._take_in(self._run([*arguments(tuple(self._windows)), start]), now)
        except TransientError as error:
            was_read = bool(self._cursor)
            self._cursor = ""  # it may be what is wrong: begin with the window
            self._since = 0.0
            for window in self._windows.values():
                window.clear()
            if self._required or was_read:
                raise
            self._is_off = True
            _LOG.info("journals of units are not read", extra={"reason": str(error)[:200]})
            return {}
        at_seconds = self._monotonic()
        return {"logs": tuple(window.sample(at_seconds) for window in self._windows.values())}

    def _take_in(self, output: commands.Output, now: datetime) -> None:
        entries, said = parse(output.text)
        if output.exit_code != 0 and not output.was_cut:
            raise TransientError(f"journalctl: {said or f'exit code {output.exit_code}'}")
        if not entries and "not seeing messages" in said:
            raise TransientError("journalctl: only this user's own messages may be read, not the units'")
        at_seconds, wall = self._monotonic(), now.timestamp()
        for entry in entries:
            self._cursor = str(entry.get("__CURSOR", self._cursor))
            unit = next((entry[field] for field in _UNIT_FIELDS if entry.get(field) in self._windows), None)
            if unit is not None:
                age = max(0.0, wall - _seconds(entry.get("__REALTIME_TIMESTAMP")))
                self._windows[unit].add(at_seconds - age, _message(entry.get("MESSAGE")))


def arguments(units: Sequence[str]) -> list[str]:
    """Return what to ask ``journalctl`` for."""
    fields = ",".join(("MESSAGE", *_UNIT_FIELDS))
    wanted = [f"--unit={unit}" for unit in units]
    return [
        "--no-pager",
        "--output=json",
        f"--output-fields={fields}",
        "--priority=err",
        *wanted,
        f"-n{MAX_ENTRIES}",
    ]


def journalctl(given: Sequence[str]) -> commands.Output:
    """Run it."""
    return commands.run(
        ["journalctl", *given], _ENVIRONMENT, timeout_seconds=TIMEOUT_SECONDS, max_bytes=_MAX_BYTES
    )


def parse(text: bytes) -> tuple[list[dict[str, Any]], str]:
    """Return the entries, and what else was said; a line that was cut off is left out."""
    entries, said = [], []
    for line in text.splitlines():
        if not line.startswith(b"{"):
            said.append(line.decode(errors="replace").strip())
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries, " ".join(part for part in said if part)[:200]


def _message(value: object) -> str:
    """A message that is no UTF-8 comes as a list of bytes; one that is too long as null."""
    if isinstance(value, list):
        return bytes(byte for byte in value if isinstance(byte, int) and 0 <= byte < 256).decode(
            errors="replace"
        )
    return str(value) if value is not None else "(a very long message)"


def _seconds(value: object) -> float:
    return int(value) / 1e6 if isinstance(value, str) and value.isascii() and value.isdigit() else 0.0
