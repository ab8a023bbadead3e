"""A report as lines for people. Pure; colours are asked for by the caller."""

from __future__ import annotations

from collections.abc import Iterator

from vm_health.model import DeployLock, GitSample, HealthReport, Status, SystemSample

_COLOURS = {Status.HEALTHY: "32", Status.WARNING: "33", Status.CRITICAL: "31", Status.UNKNOWN: "35"}


def report_lines(report: HealthReport, colour: bool = False) -> Iterator[str]:
    """Yield status, findings, then what was looked at."""
    taken = report.sample.taken_at.strftime("%Y-%m-%d %H:%M:%S UTC")
    status = _tint(report.status, report.status.value, colour)
    yield f"{status}  {report.host}  {taken}  (vm-agent {report.agent_version})"
    for finding in report.findings:
        yield f"  {_tint(finding.status, f'{finding.status.value:<8}', colour)}  {finding.message}"
    sample = report.sample
    for unit in sample.units:
        restarts = f", {unit.restarts} restarts" if unit.restarts else ""
        memory_used = f", {_size(unit.memory_bytes)}" if unit.memory_bytes else ""
        yield f"  unit      {unit.name}  {unit.active_state}/{unit.sub_state}{restarts}{memory_used}"
    for disk in sample.disks:
        inodes = "" if disk.inodes_used_percent is None else f", inodes {disk.inodes_used_percent:.1f} %"
        yield f"  disk      {disk.mount}  {disk.used_percent:.1f} % of {_size(disk.total_bytes)}{inodes}"
    if sample.memory is not None:
        yield f"  memory    {sample.memory.used_percent:.1f} % of {_size(sample.memory.total_bytes)}"
        if sample.memory.swap_total_bytes:
            swap = sample.memory
            yield f"  swap      {swap.swap_used_percent:.1f} % of {_size(swap.swap_total_bytes)}"
    if sample.system is not None:
        yield from _system_lines(sample.system)
    for beat in sample.heartbeats:
        age = beat.problem if beat.age_seconds is None else f"{beat.age_seconds:.0f} s old"
        owner = f"  (of {beat.unit})" if beat.unit else ""
        yield f"  heartbeat {beat.path}  {age}{owner}"
    for log in sample.logs:
        yield f"  log       {log.source}  {_plural(log.errors, 'recent error')}"
    for checkout in sample.checkouts:
        yield f"  checkout  {checkout.path}  {_checkout(checkout)}"
    for event in sample.scheduled_events:
        begins = "" if event.not_before is None else f" from {event.not_before:%Y-%m-%d %H:%M:%S} UTC"
        yield f"  event     {event.event_type}  {event.status}{begins}  {event.description}".rstrip()
    if sample.deploy_lock is not None:
        yield f"  lock      {lock_text(sample.deploy_lock)}: nothing is restarted, no alert is sent"


def lock_text(lock: DeployLock) -> str:
    """Return a deploy lock in words: until when it holds, and whose it is."""
    return f"until {lock.until:%H:%M:%S} UTC" + (f" ({lock.holder})" if lock.holder else "")


def _system_lines(system: SystemSample) -> Iterator[str]:
    busy = "" if system.cpu_percent is None else f"{system.cpu_percent:.1f} % busy, "
    load = f"load {system.load1:.2f} {system.load5:.2f} {system.load15:.2f}"
    yield f"  cpu       {busy}{load} on {_plural(system.cores, 'core')}"
    if system.pressure:
        waits = ", ".join(f"{name} {share:.1f} %" for name, share in system.pressure.items())
        yield f"  pressure  {waits} of the last minute"
    days, hours = divmod(int(system.uptime_seconds // 3600), 24)
    clock = {"True": ", clock synchronized", "False": ", clock NOT synchronized"}.get(
        str(system.clock_synchronized), ""
    )
    reboot = ", reboot required" if system.reboot_required else ""
    yield f"  system    up {days} d {hours} h{clock}{reboot}"


def _checkout(checkout: GitSample) -> str:
    words = [checkout.branch or "detached", checkout.commit[:12]]
    if checkout.is_dirty:
        words.append("changed")
    if checkout.behind:
        words.append(f"{checkout.behind} behind")
    return checkout.problem or " ".join(word for word in words if word)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _tint(status: Status, text: str, colour: bool) -> str:
    return f"\x1b[{_COLOURS.get(status, '0')}m{text}\x1b[0m" if colour else text


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{count / 2**20:.1f} MiB"
