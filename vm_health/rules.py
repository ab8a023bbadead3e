"""Thresholds to findings: the same code on the VM and in the cloud."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vm_health.model import (
    Cause,
    DiskSample,
    Finding,
    GitSample,
    HeartbeatSample,
    LogSample,
    Sample,
    Status,
    UnitSample,
    worst,
)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Limits above which a value becomes a finding. Percentages are of the whole, ages in seconds."""

    disk_warning_percent: float = 80.0
    disk_critical_percent: float = 90.0
    memory_warning_percent: float = 90.0
    crash_loop_restarts: int = 5
    heartbeat_max_age_seconds: float = 300.0
    log_errors: int = 0


def threshold_faults(limits: Thresholds) -> list[str]:
    """List what is unusable in ``limits``, one sentence each."""
    faults = [
        f"{name} must lie in 0…100, is {value:g}"
        for name, value in (
            ("disk_warning_percent", limits.disk_warning_percent),
            ("disk_critical_percent", limits.disk_critical_percent),
            ("memory_warning_percent", limits.memory_warning_percent),
        )
        if not 0 <= value <= 100
    ]
    if limits.disk_warning_percent > limits.disk_critical_percent:
        faults.append(
            f"disk_warning_percent ({limits.disk_warning_percent:g}) must not be above"
            f" disk_critical_percent ({limits.disk_critical_percent:g})"
        )
    if limits.crash_loop_restarts < 1:
        faults.append(f"crash_loop_restarts must be 1 or more, is {limits.crash_loop_restarts}")
    if limits.log_errors < 0:
        faults.append(f"log_errors must be 0 or more, is {limits.log_errors}")
    if not limits.heartbeat_max_age_seconds > 0:  # also catches nan
        faults.append(f"heartbeat_max_age_seconds must be above 0, is {limits.heartbeat_max_age_seconds:g}")
    return faults


def evaluate(sample: Sample, limits: Thresholds) -> tuple[Finding, ...]:
    """Return every finding in ``sample``, the most severe first, in a stable order."""
    found = [
        *(finding for unit in sample.units for finding in _unit_findings(unit, limits)),
        *(finding for disk in sample.disks for finding in _disk_findings(disk, limits)),
        *_memory_findings(sample, limits),
        *(finding for beat in sample.heartbeats for finding in _heartbeat_findings(beat, limits)),
        *(finding for log in sample.logs for finding in _log_findings(log, limits)),
        *(finding for checkout in sample.checkouts for finding in _checkout_findings(checkout)),
        *_clock_findings(sample),
        *(
            Finding(Cause.COLLECTOR_FAILED, Status.WARNING, failure.collector, failure.message)
            for failure in sample.failures
        ),
    ]
    return tuple(sorted(found, key=lambda finding: -finding.status.severity))


def overall(findings: tuple[Finding, ...]) -> Status:
    """Return the status that ``findings`` add up to."""
    return worst(finding.status for finding in findings)


def _unit_findings(unit: UnitSample, limits: Thresholds) -> Iterator[Finding]:
    if not unit.is_up:
        state = f"{unit.active_state}/{unit.sub_state}"
        if unit.load_state != "loaded":
            state += f", {unit.load_state}"
        elif unit.result != "success":
            state += f", result {unit.result}"
        yield Finding(Cause.SERVICE_DOWN, Status.CRITICAL, unit.name, f"{unit.name} is down ({state})")
    if unit.recent_restarts > limits.crash_loop_restarts:
        yield Finding(
            Cause.CRASH_LOOP,
            Status.WARNING,
            unit.name,
            f"{unit.name} restarted {unit.recent_restarts} times within 15 minutes",
            float(unit.recent_restarts),
            float(limits.crash_loop_restarts),
        )


def _disk_findings(disk: DiskSample, limits: Thresholds) -> Iterator[Finding]:
    yield from _fill_findings(Cause.DISK_USAGE, "disk", disk.mount, disk.used_percent, limits)
    if disk.inodes_used_percent is not None:
        yield from _fill_findings(
            Cause.INODE_USAGE, "inodes of", disk.mount, disk.inodes_used_percent, limits
        )


def _fill_findings(
    code: Cause, what: str, mount: str, used_percent: float, limits: Thresholds
) -> Iterator[Finding]:
    for limit, status in (
        (limits.disk_critical_percent, Status.CRITICAL),
        (limits.disk_warning_percent, Status.WARNING),
    ):
        if used_percent > limit:
            verb = "are" if what.startswith("inodes") else "is"
            text = f"{what} {mount} {verb} {used_percent:.1f} % full (limit {limit:g} %)"
            yield Finding(code, status, mount, text, used_percent, limit)
            return


def _memory_findings(sample: Sample, limits: Thresholds) -> Iterator[Finding]:
    memory, limit = sample.memory, limits.memory_warning_percent
    if memory is not None and memory.used_percent > limit:
        text = f"memory is {memory.used_percent:.1f} % used (limit {limit:g} %)"
        yield Finding(Cause.MEMORY_USAGE, Status.WARNING, "memory", text, memory.used_percent, limit)


def _heartbeat_findings(beat: HeartbeatSample, limits: Thresholds) -> Iterator[Finding]:
    limit = limits.heartbeat_max_age_seconds
    if beat.age_seconds is None:
        text = f"heartbeat file {beat.path} is {beat.problem or 'missing'}"
        yield Finding(Cause.HEARTBEAT_MISSING, Status.WARNING, beat.path, text)
    elif beat.age_seconds > limit:
        text = f"heartbeat file {beat.path} is {beat.age_seconds:.0f} s old (limit {limit:g} s)"
        yield Finding(Cause.HEARTBEAT_STALE, Status.WARNING, beat.path, text, beat.age_seconds, limit)


def _log_findings(log: LogSample, limits: Thresholds) -> Iterator[Finding]:
    if log.errors > limits.log_errors:
        noun = "error" if log.errors == 1 else "errors"
        text = f"{log.errors} recent {noun} in the log of {log.source}"
        if log.last:
            text += f", the last: {log.last}"
        yield Finding(
            Cause.LOG_ERRORS, Status.WARNING, log.source, text, float(log.errors), float(limits.log_errors)
        )


def _checkout_findings(checkout: GitSample) -> Iterator[Finding]:
    """A checkout whose state can't be told is a warning too: nobody knows then what is deployed."""
    faults = [checkout.problem] if checkout.problem else []
    if checkout.is_dirty:
        faults.append("has local changes")
    if checkout.behind:
        faults.append(f"is {checkout.behind} commits behind its upstream")
    if faults:
        text = f"checkout {checkout.path} {' and '.join(faults)}"
        yield Finding(Cause.GIT_OUT_OF_SYNC, Status.WARNING, checkout.path, text, float(checkout.behind), 0.0)


def _clock_findings(sample: Sample) -> Iterator[Finding]:
    if sample.system is not None and sample.system.clock_synchronized is False:
        text = "the clock is not synchronized"
        yield Finding(Cause.CLOCK_UNSYNCHRONIZED, Status.WARNING, "clock", text)
