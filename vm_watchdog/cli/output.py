"""How commands speak: one JSON document or lines for people on stdout, messages on stderr, an exit code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

from vm_health.model import Status

EXIT_OK = 0
EXIT_WARNING = 1
EXIT_CRITICAL = 2
EXIT_UNKNOWN = 3
EXIT_USAGE = 64
EXIT_CONFIG = 78

_COLOURS = {
    "HEALTHY": "32",
    "WARNING": "33",
    "CRITICAL": "31",
    "UNKNOWN": "35",
    "ok": "32",
    "warn": "33",
    "fail": "31",
    "-": "31",
    "+": "32",
}


class Output:
    """Writes what a command found. ``as_json`` decides which of the two forms; colours are for terminals."""

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        as_json: bool = False,
        out: TextIO | None = None,
        err: TextIO | None = None,
    ) -> None:
        self.as_json = as_json
        self._out = sys.stdout if out is None else out
        self._err = sys.stderr if err is None else err
        # https://no-color.org: whatever it holds, if it holds anything
        self._colourful = self._out.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"

    def give(self, document: Any, lines: Iterable[str]) -> None:
        """Print ``document`` (JSON-ready) or, for people, ``lines``."""
        if self.as_json:
            self._out.write(json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n")
        else:
            self._out.writelines(line.rstrip() + "\n" for line in lines)
        self._out.flush()

    def message(self, text: str) -> None:
        """Say something beside the result, for people."""
        self._err.write(f"vm-watchdog: {text}\n")
        self._err.flush()

    def tint(self, word: str, width: int = 0) -> str:
        """Return ``word``, filled up to ``width`` and coloured where it means good or bad."""
        text = f"{word:<{width}}"
        code = _COLOURS.get(word)
        return f"\x1b[{code}m{text}\x1b[0m" if self._colourful and code else text

    def abandon(self) -> None:
        """Forget the reader who went away: `vm-watchdog status | head -1` is no error."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())


def moment(when: datetime | None) -> str:
    """Return a time for people, to the second and with its zone; a dash for none."""
    return "-" if when is None else f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def clock(when: datetime) -> str:
    """Return a time of day, for lists under a date."""
    return f"{when.astimezone(UTC):%H:%M:%S}"


def span(seconds: float) -> str:
    """Return a duration for people: the two largest of days, hours, minutes and seconds."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if count or (parts and len(parts) < 2):
            parts.append(f"{count} {unit}" if count else "")
    return " ".join(part for part in parts[:2] if part) or "0 s"


def plural(count: int, noun: str) -> str:
    """Return ``3 VMs``, ``1 VM``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines with aligned columns; the last column is as wide as it wants."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)] if rows else []
    return [
        "  ".join([*(f"{text:<{width}}" for text, width in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    ]


def exit_code_of(statuses: Iterable[Status]) -> int:
    """Return the exit code of the worst of ``statuses``: of a fleet at rest, 0."""
    found = set(statuses)
    if Status.CRITICAL in found:
        return EXIT_CRITICAL
    if Status.WARNING in found:
        return EXIT_WARNING
    return EXIT_UNKNOWN if Status.UNKNOWN in found else EXIT_OK
