"""How often units were restarted within the last 15 minutes, kept across restarts of the agent and reboots.

Counted from ``NRestarts``, which grows with each automatic restart and begins anew at a restart by hand and
at a boot. The file is a help, never a need: without it, the count begins with what is known now.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime

from vm_agent.files import read_bounded, write_atomically
from vm_health.model import UnitSample
from vm_health.names import is_unit_name

_LOG = logging.getLogger(__name__)
CRASH_WINDOW_SECONDS = 900.0
MAX_GAINS = 100
_MAX_BYTES = 200_000
_MAX_COUNT = 2**31


class RestartHistory:
    """Marks and gains of units. ``path`` is where they are kept, "" for nowhere; ``boot_id`` is this boot's.

    Times are kept by the monotonic clock, which runs through all of a boot, and by the wall clock for the
    boots after it. A time in the future (the clock was set back) counts as now.
    """

    def __init__(
        self,
        path: str = "",
        boot_id: str = "",
        *,
        writes: bool = True,
        monotonic: Callable[[], float] = time.monotonic,
        window_seconds: float = CRASH_WINDOW_SECONDS,
    ) -> None:
        self._path = path
        self._boot_id = boot_id
        self._writes = writes
        self._monotonic = monotonic
        self._window_seconds = window_seconds
        self._marks: dict[str, int] = {}
        self._gains: dict[str, deque[tuple[float, float, int]]] = {}  # monotonic, wall, restarts
        self._kept = ""
        self._loaded = not path
        self.problem = ""

    def observe(self, units: tuple[UnitSample, ...], now: datetime) -> dict[str, int]:
        """Note the counts of ``units``; return each one's restarts within the window."""
        if not self._loaded:
            self._loaded = True
            self._load(now)
        at_seconds = self._monotonic()
        found = {unit.name: self._observe(unit.name, unit.restarts, at_seconds, now) for unit in units}
        self._marks = {name: mark for name, mark in self._marks.items() if name in found}
        self._gains = {name: gains for name, gains in self._gains.items() if name in found}
        if self._path and self._writes:
            self._keep()
        return found

    def _observe(self, unit: str, restarts: int, at_seconds: float, now: datetime) -> int:
        # The monotonic clock begins with the boot: shortly after it, all restarts of the boot are recent.
        # Later, those from before the first sight are not known to be.
        first_mark = 0 if at_seconds < self._window_seconds else restarts
        mark = self._marks.get(unit, first_mark)
        self._marks[unit] = restarts
        gains = self._gains.setdefault(unit, deque(maxlen=MAX_GAINS))
        gain = restarts - mark if restarts >= mark else restarts
        if gain:
            gains.append((at_seconds, now.timestamp(), gain))
        while gains and gains[0][0] <= at_seconds - self._window_seconds:
            gains.popleft()
        return sum(gained for _, _, gained in gains)

    def _load(self, now: datetime) -> None:
        try:
            content = json.loads(read_bounded(self._path, _MAX_BYTES))
            self._take_over(content, now)
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            self._marks, self._gains = {}, {}
            if self._writes:
                _LOG.warning(
                    "restart history begins anew", extra={"path": self._path, "reason": str(error)[:200]}
                )

    def _take_over(self, content: dict[str, object], now: datetime) -> None:
        same_boot = content["boot_id"] == self._boot_id
        at_seconds, wall = self._monotonic(), now.timestamp()
        units = content["units"]
        if not isinstance(units, dict):
            raise TypeError("units is no object")
        for name, kept in units.items():
            if not is_unit_name(name):
                continue
            # A new boot counts from 0: what systemd says now happened since.
            self._marks[name] = _count(kept["mark"]) if same_boot else 0
            gains: deque[tuple[float, float, int]] = deque(maxlen=MAX_GAINS)
            for begun, on_wall, count in kept["gains"][-MAX_GAINS:]:
                age = at_seconds - float(begun) if same_boot else wall - float(on_wall)
                gains.append((at_seconds - max(0.0, age), float(on_wall), _count(count)))
            self._gains[name] = gains

    def _keep(self) -> None:
        content = json.dumps(
            {
                "boot_id": self._boot_id,
                "units": {
                    name: {"mark": mark, "gains": list(self._gains[name])}
                    for name, mark in self._marks.items()
                },
            },
            separators=(",", ":"),
        )
        if content == self._kept:
            return
        try:
            os.makedirs(os.path.dirname(self._path), mode=0o750, exist_ok=True)
            write_atomically(self._path, content.encode())
            self._kept, self.problem = content, ""
        except (
            OSError
        ) as error:  # tried again with each sample, told once and as a finding as long as it lasts
            if not self.problem:
                _LOG.warning(
                    "restart history is not kept", extra={"path": self._path, "reason": error.strerror}
                )
            self.problem = f"restart history {self._path} cannot be kept: {error.strerror}"


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_COUNT:
        raise ValueError("a count is not a whole number")
    return value
