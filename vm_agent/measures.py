"""The numbers in a report under the names that telemetry and ``/metrics`` use. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vm_health.model import Cause, HealthReport, SystemSample


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
        if disk.inodes_used_percent is not None:
            yield Measure("health.inode_usage", disk.inodes_used_percent, "mount", disk.mount)
    if sample.memory is not None:
        yield Measure("health.memory_usage", sample.memory.used_percent)
        yield Measure("health.swap_usage", sample.memory.swap_used_percent)
    if sample.system is not None:
        yield from _system(sample.system)
    for beat in sample.heartbeats:
        if beat.age_seconds is not None:
            yield Measure("health.heartbeat_age", beat.age_seconds, "path", beat.path)
    for unit in sample.units:
        yield Measure("health.crash_count", float(unit.recent_restarts), "unit", unit.name)
        yield Measure("health.service_active", float(unit.is_up), "unit", unit.name)
        if unit.memory_bytes:  # 0 where systemd does not account for it
            yield Measure("health.unit_memory", float(unit.memory_bytes), "unit", unit.name)
    for log in sample.logs:
        yield Measure("health.log_errors", float(log.errors), "source", log.source)
    for checkout in sample.checkouts:
        if not checkout.problem:
            yield Measure("health.git_behind", float(checkout.behind), "path", checkout.path)
            yield Measure("health.git_dirty", float(checkout.is_dirty), "path", checkout.path)
    yield Measure("health.deploy_lock", float(sample.deploy_lock is not None))


def _system(system: SystemSample) -> Iterator[Measure]:
    if system.cpu_percent is not None:
        yield Measure("health.cpu_usage", system.cpu_percent)
    yield Measure("health.load1", system.load1)
    yield Measure("health.load5", system.load5)
    yield Measure("health.load15", system.load15)
    yield Measure("health.cores", float(system.cores))
    yield Measure("health.uptime", system.uptime_seconds)
    for name, share in system.pressure.items():
        yield Measure("health.pressure", share, "resource", name)
    if system.clock_synchronized is not None:
        yield Measure("health.clock_synchronized", float(system.clock_synchronized))
    yield Measure("health.reboot_required", float(system.reboot_required))


def summary(report: HealthReport) -> dict[str, float]:
    """Return one number a question: the worst disk, the oldest heartbeat, how many units are down."""
    sample = report.sample
    found = {
        "units_total": float(len(sample.units)),
        # What is only starting is told as a finding too, and is neither down nor trouble.
        "units_down": float(sum(finding.code is Cause.SERVICE_DOWN for finding in report.findings)),
        "findings": float(sum(finding.status.severity > 0 for finding in report.findings)),
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
