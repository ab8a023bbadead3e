"""systemd units: their state and how often they were restarted lately."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from vm_agent.collectors.base import MAX_MESSAGE_CHARS, Parts
from vm_agent.restart_history import RestartHistory
from vm_agent.unit_source import Shows
from vm_health.model import CollectorFailure


class UnitsCollector:
    """All watched units by one question."""

    name = "units"
    interval_seconds = 0.0

    def __init__(self, units: tuple[str, ...], source: Shows, history: RestartHistory) -> None:
        self._units = units
        self._source = source
        self._history = history

    def collect(self, now: datetime) -> Parts:
        """Look once; ``now`` dates the restarts."""
        units = self._source.show(self._units)
        recent = self._history.observe(units, now)
        found: Parts = {"units": tuple(replace(unit, recent_restarts=recent[unit.name]) for unit in units)}
        if self._history.problem:
            found["failures"] = (CollectorFailure(self.name, self._history.problem[:MAX_MESSAGE_CHARS]),)
        return found
