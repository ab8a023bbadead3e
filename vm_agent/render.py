"""A report as lines for people. Pure; colours are asked for by the caller."""

from __future__ import annotations

from collections.abc import Iterator

from vm_health.model import HealthReport, Status

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
        yield f"  unit      {unit.name}  {unit.active_state}/{unit.sub_state}{restarts}"
    for disk in sample.disks:
        yield f"  disk      {disk.mount}  {disk.used_percent:.1f} % of {_size(disk.total_bytes)}"
    if sample.memory is not None:
        yield f"  memory    {sample.memory.used_percent:.1f} % of {_size(sample.memory.total_bytes)}"
    for beat in sample.heartbeats:
        age = beat.problem if beat.age_seconds is None else f"{beat.age_seconds:.0f} s old"
        yield f"  heartbeat {beat.path}  {age}"


def _tint(status: Status, text: str, colour: bool) -> str:
    return f"\x1b[{_COLOURS.get(status, '0')}m{text}\x1b[0m" if colour else text


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
