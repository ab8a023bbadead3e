"""The numbers in a report under the names that telemetry and ``/metrics`` use. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vm_health.model import HealthReport


@dataclass(frozen=True, slots=True)
class Measure:
    """One number; ``kind`` says what ``subject`` is ("" where there is only one)."""

    name: str
    value: float
    kind: str = ""
    subject: str = ""


def measures(report: HealthReport) -> Iterator[Measure]:
    """Return every number of ``report``."""
    sample = report.sample
    for disk in sample.disks:
        yield Measure("health.disk_usage", disk.used_percent, "mount", disk.mount)
    if sample.memory is not None:
        yield Measure("health.memory_usage", sample.memory.used_percent)
    for beat in sample.heartbeats:
        if beat.age_seconds is not None:
            yield Measure("health.heartbeat_age", beat.age_seconds, "path", beat.path)
    for unit in sample.units:
        yield Measure("health.crash_count", float(unit.recent_restarts), "unit", unit.name)
        yield Measure("health.service_active", float(unit.is_up), "unit", unit.name)


def summary(report: HealthReport) -> dict[str, float]:
    """Return one number a question: the worst disk, the oldest heartbeat, how many units are down."""
    sample = report.sample
    found = {
        "units_total": float(len(sample.units)),
        "units_down": float(sum(not unit.is_up for unit in sample.units)),
        "findings": float(len(report.findings)),
        "status_code": float(report.status.exit_code),
        "recent_restarts": float(sum(unit.recent_restarts for unit in sample.units)),
    }
    if sample.disks:
        found["disk_usage_percent"] = max(disk.used_percent for disk in sample.disks)
    if sample.memory is not None:
        found["memory_usage_percent"] = sample.memory.used_percent
    ages = [beat.age_seconds for beat in sample.heartbeats if beat.age_seconds is not None]
    if ages:
        found["heartbeat_age_seconds"] = max(ages)
    return found
