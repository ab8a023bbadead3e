"""Thresholds to findings: the same code on the VM and in the cloud."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from vm_health.model import (
    Cause,
    DiskSample,
    Finding,
    GitSample,
    HeartbeatSample,
    LogSample,
    MemorySample,
    Sample,
    Status,
    UnitSample,
    worst,
)

MAX_STARTUP_GRACE_SECONDS = 3_600.0


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Limits above which a value becomes a finding. Percentages are of the whole, ages in seconds.

    ``startup_grace_seconds`` is how long a unit may take to start before that counts as down; 0: no time.
    """

    disk_warning_percent: float = 80.0
    disk_critical_percent: float = 90.0
    memory_warning_percent: float = 90.0
    crash_loop_restarts: int = 5
    heartbeat_max_age_seconds: float = 300.0
    log_errors: int = 0
    startup_grace_seconds: float = 60.0


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
    if not 0 <= limits.startup_grace_seconds <= MAX_STARTUP_GRACE_SECONDS:
        faults.append(
            f"startup_grace_seconds must lie in 0…{MAX_STARTUP_GRACE_SECONDS:g},"
            f" is {limits.startup_grace_seconds:g}"
        )
    return faults


def evaluate(sample: Sample, limits: Thresholds) -> tuple[Finding, ...]:
    """Return every finding in ``sample``, the most severe first, in a stable order.

    A finding of status HEALTHY (a unit that is starting) is told and is no trouble: it comes last and does
    not count for the overall status.
    """
    # This runs for every VM at every look: a few comparisons an item, and words only where they are needed.
    found: list[Finding] = []
    most_restarts = limits.crash_loop_restarts
    for unit in sample.units:
        if (
            unit.active_state != "active"
            or unit.sub_state == "exited"
            or unit.recent_restarts > most_restarts
        ):
            found += _unit_findings(unit, sample.taken_at, limits)
    full = min(limits.disk_warning_percent, limits.disk_critical_percent)
    for disk in sample.disks:
        inodes = disk.inodes_used_percent
        if disk.used_percent > full or (inodes is not None and inodes > full):
            found += _disk_findings(disk, limits)
    memory = sample.memory
    if memory is not None and memory.used_percent > limits.memory_warning_percent:
        found.append(_memory_finding(memory, limits))
    for beat in sample.heartbeats:
        age = beat.age_seconds
        if age is None or age > limits.heartbeat_max_age_seconds:
            found += _heartbeat_findings(beat, sample, limits)
    found += _other_findings(sample, limits)
    if len(found) > 1:
        found.sort(key=lambda finding: -finding.status.severity)
    return tuple(found)


def overall(findings: tuple[Finding, ...]) -> Status:
    """Return the status that ``findings`` add up to."""
    return worst(finding.status for finding in findings) if findings else Status.HEALTHY


def is_starting(unit: UnitSample, taken_at: datetime, limits: Thresholds) -> bool:
    """Tell whether ``unit`` is on its way up and not late yet: neither down nor up.

    A crashed unit that systemd will start again after a while ("auto-restart") is down, and one whose start
    began nobody knows when is too.
    """
    if unit.active_state != "activating" or unit.sub_state.startswith("auto-restart"):
        return False
    return _is_within_grace(unit.started_at, taken_at, limits)


def _is_within_grace(moment: datetime | None, taken_at: datetime, limits: Thresholds) -> bool:
    """Tell whether ``moment`` was just now. One ahead is too: a clock was set back, or it is that new."""
    grace = limits.startup_grace_seconds
    return moment is not None and grace > 0 and (taken_at - moment).total_seconds() <= grace


def _unit_findings(unit: UnitSample, taken_at: datetime, limits: Thresholds) -> Iterator[Finding]:
    if not unit.is_up:
        if is_starting(unit, taken_at, limits):
            yield _starting_finding(unit, taken_at, limits)
        else:
            yield _down_finding(unit)
    if unit.recent_restarts > limits.crash_loop_restarts:
        yield Finding(
            Cause.CRASH_LOOP,
            Status.WARNING,
            unit.name,
            f"{unit.name} restarted {unit.recent_restarts} times within 15 minutes",
            float(unit.recent_restarts),
            float(limits.crash_loop_restarts),
        )


def _down_finding(unit: UnitSample) -> Finding:
    state = f"{unit.active_state}/{unit.sub_state}"
    if unit.load_state != "loaded":
        state += f", {unit.load_state}"
    elif unit.result != "success":
        state += f", result {unit.result}"
    return Finding(Cause.SERVICE_DOWN, Status.CRITICAL, unit.name, f"{unit.name} is down ({state})")


def _starting_finding(unit: UnitSample, taken_at: datetime, limits: Thresholds) -> Finding:
    age = 0.0 if unit.started_at is None else max(0.0, (taken_at - unit.started_at).total_seconds())
    text = f"{unit.name} is starting (for {age:.0f} s, {unit.active_state}/{unit.sub_state})"
    limit = limits.startup_grace_seconds
    return Finding(Cause.SERVICE_STARTING, Status.HEALTHY, unit.name, text, age, limit)


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


def _memory_finding(memory: MemorySample, limits: Thresholds) -> Finding:
    limit = limits.memory_warning_percent
    text = f"memory is {memory.used_percent:.1f} % used (limit {limit:g} %)"
    return Finding(Cause.MEMORY_USAGE, Status.WARNING, "memory", text, memory.used_percent, limit)


def _heartbeat_findings(beat: HeartbeatSample, sample: Sample, limits: Thresholds) -> Iterator[Finding]:
    """A unit that has just begun cannot have touched its file yet."""
    for unit in sample.units:
        if unit.name == beat.unit and (
            _is_within_grace(unit.active_since, sample.taken_at, limits)
            or _is_within_grace(unit.started_at, sample.taken_at, limits)
        ):
            return
    limit = limits.heartbeat_max_age_seconds
    if beat.age_seconds is None:
        text = f"heartbeat file {beat.path} is {beat.problem or 'missing'}"
        yield Finding(Cause.HEARTBEAT_MISSING, Status.WARNING, beat.path, text)
    elif beat.age_seconds > limit:
        text = f"heartbeat file {beat.path} is {beat.age_seconds:.0f} s old (limit {limit:g} s)"
        yield Finding(Cause.HEARTBEAT_STALE, Status.WARNING, beat.path, text, beat.age_seconds, limit)


def _other_findings(sample: Sample, limits: Thresholds) -> list[Finding]:
    """Judge what has one limit or none: logs, checkouts, the clock, and what could not be looked at."""
    found = [_log_finding(log, limits) for log in sample.logs if log.errors > limits.log_errors]
    for checkout in sample.checkouts:
        if checkout.problem or checkout.is_dirty or checkout.behind:
            found.append(_checkout_finding(checkout))
    if sample.system is not None and sample.system.clock_synchronized is False:
        text = "the clock is not synchronized"
        found.append(Finding(Cause.CLOCK_UNSYNCHRONIZED, Status.WARNING, "clock", text))
    for failure in sample.failures:
        found.append(Finding(Cause.COLLECTOR_FAILED, Status.WARNING, failure.collector, failure.message))
    return found


def _log_finding(log: LogSample, limits: Thresholds) -> Finding:
    noun = "error" if log.errors == 1 else "errors"
    text = f"{log.errors} recent {noun} in the log of {log.source}"
    if log.last:
        text += f", the last: {log.last}"
    return Finding(
        Cause.LOG_ERRORS, Status.WARNING, log.source, text, float(log.errors), float(limits.log_errors)
    )


def _checkout_finding(checkout: GitSample) -> Finding:
    """A checkout whose state can't be told is a warning too: nobody knows then what is deployed."""
    faults = [checkout.problem] if checkout.problem else []
    if checkout.is_dirty:
        faults.append("has local changes")
    if checkout.behind:
        faults.append(f"is {checkout.behind} commits behind its upstream")
    text = f"checkout {checkout.path} {' and '.join(faults)}"
    return Finding(Cause.GIT_OUT_OF_SYNC, Status.WARNING, checkout.path, text, float(checkout.behind), 0.0)
