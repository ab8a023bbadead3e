"""A report as Prometheus metrics: which there are, what they are called, what they mean. Pure.

Names are those of telemetry in Prometheus' manner (health.disk_usage is vm_health_disk_usage_percent), and
the same in both of its formats. Of a sample too old to count only its age and the status UNKNOWN are told:
a number that stands still would look like a measurement.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from vm_agent.exposition import Family, gauges, write
from vm_health.model import Cause, HealthReport, Sample, Status

_STATUSES = (Status.HEALTHY, Status.WARNING, Status.CRITICAL, Status.UNKNOWN)
_OWN_GAUGES = ("_waiting", "_bytes", "_seconds", "_connections", "_open", "_active", "_up")
_VM = {
    "vm_health_status": "1 for the status that the VM has, 0 for the others.",
    "vm_health_finding": "1 for each thing that is wrong, by code, what it is about and how bad it is.",
    "vm_health_sample_timestamp_seconds": "When the VM was last looked at, by its own clock.",
}
_SAMPLE = {
    "vm_health_service_active": "1 while the unit is up (health.service_active).",
    "vm_health_service_starting": "1 while the unit starts and is not late yet: neither up nor down.",
    "vm_health_recent_restarts": "Restarts of the unit within 15 minutes (health.crash_count).",
    "vm_health_service_memory_bytes": "Memory of the unit as systemd counts it.",
    "vm_health_service_start_timestamp_seconds": "When the unit became active.",
    "vm_health_disk_usage_percent": "How full the file system is (health.disk_usage).",
    "vm_health_disk_size_bytes": "Size of the file system.",
    "vm_health_disk_free_bytes": "What services can still write to the file system.",
    "vm_health_inode_usage_percent": "How many of the file system's inodes are in use.",
    "vm_health_memory_usage_percent": "Memory that is not available (health.memory_usage).",
    "vm_health_memory_size_bytes": "Main memory.",
    "vm_health_memory_available_bytes": "Memory that is to be had without swapping (the kernel's estimate).",
    "vm_health_swap_size_bytes": "Swap space.",
    "vm_health_swap_usage_percent": "How full the swap space is.",
    "vm_health_cpu_usage_percent": "How busy the processors were between the last two samples.",
    "vm_health_load1": "Load average over 1 minute.",
    "vm_health_load5": "Load average over 5 minutes.",
    "vm_health_load15": "Load average over 15 minutes.",
    "vm_health_cpu_cores": "Number of processors.",
    "vm_health_uptime_seconds": "Time since the VM started.",
    "vm_health_pressure_percent": "Share of the last minute in which tasks waited for the resource (PSI).",
    "vm_health_clock_synchronized": "1 while the clock is kept right by a time service.",
    "vm_health_reboot_required": "1 while an update waits for a reboot.",
    "vm_health_heartbeat_age_seconds": "Age of the heartbeat file (health.heartbeat_age).",
    "vm_health_heartbeat_missing": "1 while the heartbeat file is missing or unreadable.",
    "vm_health_log_errors": "Recent errors in the log of the unit or in the log file.",
    "vm_health_checkout_behind_commits": "Commits that the checkout is behind its upstream as last fetched.",
    "vm_health_checkout_dirty": "1 while the checkout has local changes.",
    "vm_health_scheduled_events": "Maintenance that Azure announces, by type and status.",
    "vm_health_deploy_lock": "1 while a deployment keeps repair and alerts off.",
    "vm_health_deploy_lock_end_timestamp_seconds": "When the deploy lock ends by itself.",
    "vm_health_collector_failed": "1 for each collector that failed or hung.",
    "vm_health_repair_attempts": "Restarts of the unit by the agent since it was last stable.",
    "vm_health_repair_circuit_open": "1 while the agent has given up restarting the unit.",
}


def report_lines(report: HealthReport, *, open_metrics: bool) -> str:
    """Return all that ``report`` tells but the sample's age, which moves while a report does not."""
    info = Family("vm_health_agent", "info", "Who reports.")
    info.add(1, vm_id=report.vm_id, host=report.host, version=report.agent_version)
    found = gauges(_VM)
    for status in _STATUSES:
        found["vm_health_status"].add(report.status is status, status=status.value)
    for finding in report.findings:
        if finding.status.severity:  # who alerts on any of them must not hear of a unit that is just starting
            found["vm_health_finding"].add(
                1, code=finding.code.value, subject=finding.subject, status=finding.status.value
            )
    if report.sequence:
        found["vm_health_sample_timestamp_seconds"].add(report.sample.taken_at.timestamp())
    families = [info, *found.values(), *(_sample_families(report) if is_current(report) else ())]
    return write(families, open_metrics=open_metrics)


def is_current(report: HealthReport) -> bool:
    """Tell whether the sample in ``report`` still says how the VM is."""
    return all(finding.code is not Cause.SAMPLE_STALE for finding in report.findings)


def own_lines(age_seconds: float, own: Mapping[str, float], *, open_metrics: bool) -> str:
    """Return the sample's age and the agent's numbers about itself.

    A number about the agent only ever grows, and so is a counter, unless its name says what else it is.
    """
    families = gauges({"vm_health_sample_age_seconds": "Age of the last sample, by the monotonic clock."})
    families["vm_health_sample_age_seconds"].add(round(age_seconds, 3))
    for name, value in own.items():
        kind = "gauge" if name.endswith(_OWN_GAUGES) else "counter"
        key = f"vm_agent_{name.removesuffix('_total')}"
        families[key] = Family(key, kind, f"The agent about itself: {name.replace('_', ' ')}.")
        families[key].add(value)
    return write(families.values(), open_metrics=open_metrics) + ("# EOF\n" if open_metrics else "")


def _sample_families(report: HealthReport) -> Iterator[Family]:
    found = gauges(_SAMPLE)
    restarts = Family(
        "vm_health_service_restarts", "counter", "Restarts of the unit, as systemd counts them."
    )
    sample = report.sample
    _add_units(found, restarts, report)
    _add_storage(found, sample)
    _add_system(found, sample)
    _add_files(found, sample)
    for repair in report.repairs:
        found["vm_health_repair_attempts"].add(repair.attempts, unit=repair.unit)
        found["vm_health_repair_circuit_open"].add(repair.circuit_open, unit=repair.unit)
    yield from found.values()
    yield restarts


def _add_units(found: Mapping[str, Family], restarts: Family, report: HealthReport) -> None:
    starting = {finding.subject for finding in report.findings if finding.code is Cause.SERVICE_STARTING}
    for unit in report.sample.units:
        found["vm_health_service_starting"].add(unit.name in starting, unit=unit.name)
        found["vm_health_service_active"].add(unit.is_up, unit=unit.name)
        found["vm_health_recent_restarts"].add(unit.recent_restarts, unit=unit.name)
        found["vm_health_service_memory_bytes"].add(unit.memory_bytes or None, unit=unit.name)
        found["vm_health_service_start_timestamp_seconds"].add(_seconds(unit.active_since), unit=unit.name)
        restarts.add(unit.restarts, unit=unit.name)


def _add_storage(found: Mapping[str, Family], sample: Sample) -> None:
    for disk in sample.disks:
        found["vm_health_disk_usage_percent"].add(disk.used_percent, mount=disk.mount)
        found["vm_health_disk_size_bytes"].add(disk.total_bytes, mount=disk.mount)
        found["vm_health_disk_free_bytes"].add(disk.free_bytes, mount=disk.mount)
        found["vm_health_inode_usage_percent"].add(disk.inodes_used_percent, mount=disk.mount)
    if (memory := sample.memory) is not None:
        found["vm_health_memory_usage_percent"].add(memory.used_percent)
        found["vm_health_memory_size_bytes"].add(memory.total_bytes)
        found["vm_health_memory_available_bytes"].add(memory.available_bytes)
        found["vm_health_swap_size_bytes"].add(memory.swap_total_bytes)
        found["vm_health_swap_usage_percent"].add(memory.swap_used_percent)


def _add_system(found: Mapping[str, Family], sample: Sample) -> None:
    if (system := sample.system) is None:
        return
    found["vm_health_cpu_usage_percent"].add(system.cpu_percent)
    found["vm_health_load1"].add(system.load1)
    found["vm_health_load5"].add(system.load5)
    found["vm_health_load15"].add(system.load15)
    found["vm_health_cpu_cores"].add(system.cores)
    found["vm_health_uptime_seconds"].add(system.uptime_seconds)
    for name, percent in system.pressure.items():
        resource, _, share = name.partition(".")
        found["vm_health_pressure_percent"].add(percent, resource=resource, share=share)
    found["vm_health_clock_synchronized"].add(system.clock_synchronized)
    found["vm_health_reboot_required"].add(system.reboot_required)


def _add_files(found: Mapping[str, Family], sample: Sample) -> None:
    for beat in sample.heartbeats:
        found["vm_health_heartbeat_age_seconds"].add(beat.age_seconds, path=beat.path, unit=beat.unit)
        found["vm_health_heartbeat_missing"].add(beat.age_seconds is None, path=beat.path, unit=beat.unit)
    for log in sample.logs:
        found["vm_health_log_errors"].add(log.errors, source=log.source)
    for checkout in sample.checkouts:
        found["vm_health_checkout_behind_commits"].add(checkout.behind, path=checkout.path)
        found["vm_health_checkout_dirty"].add(checkout.is_dirty, path=checkout.path)
    events = [(event.event_type, event.status) for event in sample.scheduled_events]
    for kind, status in events:
        count = events.count((kind, status))
        found["vm_health_scheduled_events"].add(count, type=kind, status=status)
    found["vm_health_deploy_lock"].add(sample.deploy_lock is not None)
    if sample.deploy_lock is not None:
        found["vm_health_deploy_lock_end_timestamp_seconds"].add(sample.deploy_lock.until.timestamp())
    for failure in sample.failures:
        found["vm_health_collector_failed"].add(1, collector=failure.collector)


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
