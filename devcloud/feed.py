"""The live feed: the function app's log records as short lines for people. Decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from devcloud.app_process import AppProcess, Record

_COLOURS = {"HEALTHY": "32", "WARNING": "33", "CRITICAL": "31", "UNKNOWN": "36"}


class Feed:
    """Prints what happens; a tick that only repeats the last one is told once."""

    def __init__(self, app: AppProcess, write: Callable[[str], None], colour: bool) -> None:
        self._app = app
        self._write = write
        self._colour = colour
        self._last_tick = ""

    async def run(self) -> None:
        """Follow the records until cancelled or the app ends."""
        position = 0
        while True:
            try:
                await self._app.wait_for(lambda _: True, timeout_seconds=3_600, start=position)
            except TimeoutError:
                return
            for record in self._app.records[position:]:
                for line in self.lines(record):
                    self._write(line)
                position += 1

    def lines(self, record: Record) -> list[str]:
        """Return what a record is worth: none, one or more lines."""
        clock, extra = record.time[11:19], record.extra
        match record.message:
            case "tick":
                return self._tick_lines(clock, extra)
            case "decision":
                where = f"{clock}  {extra['vm']:<8}"
                status = self._paint(str(extra["status"]))
                return [f"{where} {status} {event}" for event in extra["events"]]
            case "restart_sent" | "restart_refused":
                what = record.message.replace("_", " ")
                return [
                    f"{clock}  {extra['vm']:<8} {'':8} {what}: {extra['unit']} by {extra['lane']} Run Command"
                    f" ({extra['reason']})"
                ]
            case "alert":
                return [f"{clock}  {'':8} {'alert':<8} {extra['title']}"]
        if record.level in ("WARNING", "ERROR", "CRITICAL"):
            return [f"{clock}  {record.level.lower()}: {record.message} {_fields(record.extra)}".rstrip()]
        return []

    def _tick_lines(self, clock: str, extra: Any) -> list[str]:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(extra["statuses"].items()))
        told = f"{counts}|{extra['troubles']}"
        if told == self._last_tick:
            return []
        self._last_tick = told
        troubles = "".join(f"; {trouble}" for trouble in extra["troubles"])
        return [f"{clock}  tick: {extra['targets']} VMs, {counts or 'none opted in'}{troubles}"]

    def _paint(self, status: str) -> str:
        text = f"{status:<8}"
        code = _COLOURS.get(status)
        return f"\x1b[{code}m{text}\x1b[0m" if code and self._colour else text


def _fields(extra: Any) -> str:
    return " ".join(f"{name}={value}" for name, value in extra.items())[:200]


async def stop(task: asyncio.Task[None]) -> None:
    """End a running feed."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
