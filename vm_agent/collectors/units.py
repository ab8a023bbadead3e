"""systemd units: their state and how often they were restarted lately."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from vm_agent import systemctl
from vm_agent.collectors.base import Parts

CRASH_WINDOW_SECONDS = 900.0
SHOW_TIMEOUT_SECONDS = 5.0


class RestartHistory:
    """Counts a unit's restarts within the last 15 minutes from its ever-growing ``NRestarts``.

    A count that fell began anew (a restart by hand sets it to 0), so all of it is new. The first sight
    of a unit only sets the mark: what happened before is not known to be recent.
    """

    def __init__(self, window_seconds: float = CRASH_WINDOW_SECONDS) -> None:
        self._window_seconds = window_seconds
        self._marks: dict[str, int] = {}
        self._gains: dict[str, deque[tuple[float, int]]] = {}

    def observe(self, unit: str, restarts: int, at_seconds: float) -> int:
        """Note the count as seen on the monotonic clock; return the restarts within the window."""
        mark = self._marks.get(unit, restarts)
        self._marks[unit] = restarts
        gains = self._gains.setdefault(unit, deque())
        gain = restarts - mark if restarts >= mark else restarts
        if gain:
            gains.append((at_seconds, gain))
        while gains and gains[0][0] <= at_seconds - self._window_seconds:
            gains.popleft()
        return sum(gained for _, gained in gains)


class UnitsCollector:
    """All watched units by one ``systemctl show``."""

    name = "units"

    def __init__(
        self,
        units: tuple[str, ...],
        timeout_seconds: float = SHOW_TIMEOUT_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._units = units
        self._timeout_seconds = timeout_seconds
        self._monotonic = monotonic
        self._history = RestartHistory()

    def collect(self, now: datetime) -> Parts:
        """Look once; ``now`` is not needed, for systemd has its own clock."""
        found = systemctl.show(self._units, self._timeout_seconds)
        at_seconds = self._monotonic()
        return {
            "units": tuple(
                replace(unit, recent_restarts=self._history.observe(unit.name, unit.restarts, at_seconds))
                for unit in found
            )
        }
