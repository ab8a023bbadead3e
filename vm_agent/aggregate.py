"""Many samples, few metrics: each number's count, sum, least and most over an interval. Pure.

Disks and services change slowly; sending every sample would cost twenty times as much and say no more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from vm_agent.measures import measures
from vm_health.model import HealthReport

# The names that the original system sent, and that dashboards and alert rules ask for.
SENT = frozenset(
    {
        "health.disk_usage",
        "health.memory_usage",
        "health.heartbeat_age",
        "health.crash_count",
        "health.service_active",
    }
)


@dataclass(slots=True)
class Series:
    """One name for one subject: what its samples add up to."""

    name: str
    kind: str
    subject: str
    count: int = 0
    total: float = 0.0
    least: float = 0.0
    most: float = 0.0

    def add(self, value: float) -> None:
        """Count ``value`` in."""
        self.least = min(self.least, value) if self.count else value
        self.most = max(self.most, value) if self.count else value
        self.total += value
        self.count += 1


@dataclass(frozen=True, slots=True)
class Aggregates:
    """What one interval gave: whose it is, when its last sample was taken, and the numbers."""

    vm_id: str
    host: str
    agent_version: str
    at: datetime
    series: tuple[Series, ...]


class Aggregator:
    """Adds reports up and hands the sums to ``send`` once an interval of the monotonic clock."""

    def __init__(self, interval_seconds: float, send: Callable[[Aggregates], None]) -> None:
        self._interval_seconds = interval_seconds
        self._send = send
        self._series: dict[tuple[str, str], Series] = {}
        self._last: HealthReport | None = None
        self._due_at: float | None = None

    def add(self, report: HealthReport, at_seconds: float) -> None:
        """Count ``report`` in, taken at the monotonic time ``at_seconds``; send what is due before it."""
        if self._due_at is None:
            self._due_at = at_seconds + self._interval_seconds
        elif at_seconds >= self._due_at:
            self.flush()
            missed = (at_seconds - self._due_at) // self._interval_seconds
            self._due_at += (1 + missed) * self._interval_seconds
        for measure in measures(report):
            if measure.name in SENT:
                key = (measure.name, measure.subject)
                series = self._series.get(key)
                if series is None:
                    series = self._series[key] = Series(measure.name, measure.kind, measure.subject)
                series.add(measure.value)
        self._last = report

    def flush(self) -> None:
        """Send what has come together; nothing where there is nothing."""
        series, self._series = tuple(self._series.values()), {}
        last = self._last
        if series and last is not None:
            self._send(Aggregates(last.vm_id, last.host, last.agent_version, last.sample.taken_at, series))
