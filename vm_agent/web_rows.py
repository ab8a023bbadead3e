"""The lines of the page for people: one function for each kind of thing that a sample holds. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from vm_agent.exposition import printable
from vm_health.model import Cause, HealthReport, RepairSample, Sample, SystemSample, UnitSample

_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"})


def escape(text: str) -> str:
    """Return ``text`` fit for HTML, in text and in attributes."""
    return printable(text).translate(_ESCAPES)


_UNITS = (Cause.SERVICE_DOWN, Cause.CRASH_LOOP)
_DISKS = (Cause.DISK_USAGE, Cause.INODE_USAGE)
_MACHINE = (Cause.MEMORY_USAGE, Cause.CLOCK_UNSYNCHRONIZED, Cause.COLLECTOR_FAILED)
_HEARTBEATS = (Cause.HEARTBEAT_MISSING, Cause.HEARTBEAT_STALE)


class Rows:
    """The lines about one report. A line is marked with the worst that findings say of what it is about."""

    def __init__(self, report: HealthReport) -> None:
        self._report = report

    def sections(self) -> Iterator[tuple[str, str]]:
        """Yield title and lines of every section that has any."""
        sample = self._report.sample
        for title, lines in (
            ("Findings", self._findings()),
            ("Units", self._units(sample)),
            ("Disks", self._disks(sample)),
            ("Machine", self._machine(sample)),
            ("Heartbeat files", self._heartbeats(sample)),
            ("Logs", self._logs(sample)),
            ("Checkouts", self._checkouts(sample)),
            ("Announced maintenance", self._events(sample)),
            ("Deployment", self._lock(sample)),
        ):
            if found := "".join(lines):
                yield title, found

    def _line(self, codes: tuple[Cause, ...], subject: str, *facts: str) -> str:
        """Return one line; ``facts`` are HTML already, ``subject`` is not. ``codes`` may mark it."""
        marks = (
            finding.status.value  # the worst come first
            for finding in self._report.findings
            if finding.subject == subject and finding.code in codes
        )
        return _item(next(marks, ""), subject, *facts)

    def _findings(self) -> Iterator[str]:
        for finding in self._report.findings:
            status, code = finding.status.value, f"<code>{finding.code.value}</code>"
            yield _item(status, status, escape(finding.message), code)

    def _units(self, sample: Sample) -> Iterator[str]:
        repairs = {repair.unit: repair for repair in self._report.repairs}
        for unit in sample.units:
            yield self._line(
                _UNITS,
                unit.name,
                escape(f"{unit.active_state}/{unit.sub_state}"),
                "" if unit.result == "success" else escape(f"result {unit.result}"),
                f"since {_moment(unit.active_since)}" if unit.is_up and unit.active_since else "",
                size(unit.memory_bytes) if unit.memory_bytes else "",
                _restarts(unit),
                _repair(repairs.get(unit.name)),
            )

    def _disks(self, sample: Sample) -> Iterator[str]:
        for disk in sample.disks:
            inodes = disk.inodes_used_percent
            yield self._line(
                _DISKS,
                disk.mount,
                _meter(disk.used_percent, f"{disk.used_percent:.1f} % of {size(disk.total_bytes)}"),
                f"{size(disk.free_bytes)} free",
                "" if inodes is None else f"inodes {inodes:.1f} %",
            )

    def _machine(self, sample: Sample) -> Iterator[str]:
        if (memory := sample.memory) is not None:
            used = f"{memory.used_percent:.1f} % of {size(memory.total_bytes)}"
            yield self._line(_MACHINE, "memory", _meter(memory.used_percent, used))
            if memory.swap_total_bytes:
                used = f"{memory.swap_used_percent:.1f} % of {size(memory.swap_total_bytes)}"
                yield self._line((), "swap", _meter(memory.swap_used_percent, used))
        if sample.system is not None:
            yield from self._system(sample.system)
        for failure in sample.failures:
            yield self._line(_MACHINE, failure.collector, escape(failure.message))

    def _system(self, system: SystemSample) -> Iterator[str]:
        load = f"load {system.load1:.2f} {system.load5:.2f} {system.load15:.2f}"
        busy = system.cpu_percent
        yield self._line(
            (),
            "CPU",
            "" if busy is None else _meter(busy, f"{busy:.1f} % busy"),
            f"{load} on {system.cores} core{'s' if system.cores != 1 else ''}",
        )
        if waits := [
            f"{escape(name)} {percent:.1f} %" for name, percent in sorted(system.pressure.items()) if percent
        ]:
            yield self._line((), "pressure", *waits)
        if system.uptime_seconds:
            yield self._line((), "up for", duration(system.uptime_seconds))
        if system.clock_synchronized is not None:
            told = "synchronized" if system.clock_synchronized else "not synchronized"
            yield self._line(_MACHINE, "clock", told)
        if system.reboot_required:
            yield self._line((), "reboot", "an update waits for one")

    def _lock(self, sample: Sample) -> Iterator[str]:
        if (lock := sample.deploy_lock) is not None:
            until, effect = f"until {_moment(lock.until)}", "nothing is restarted, no alert is sent"
            yield self._line((), "deploy lock", until, escape(lock.holder), effect)

    def _heartbeats(self, sample: Sample) -> Iterator[str]:
        for beat in sample.heartbeats:
            age = beat.age_seconds
            told = beat.problem or "missing" if age is None else f"{duration(age)} old"
            yield self._line(_HEARTBEATS, beat.path, escape(told), escape(beat.unit))

    def _logs(self, sample: Sample) -> Iterator[str]:
        for log in sample.logs:
            yield self._line((Cause.LOG_ERRORS,), log.source, f"{log.errors} recent errors", escape(log.last))

    def _checkouts(self, sample: Sample) -> Iterator[str]:
        for checkout in sample.checkouts:
            yield self._line(
                (Cause.GIT_OUT_OF_SYNC,),
                checkout.path,
                escape(f"{checkout.branch} {checkout.commit[:12]}".strip()),
                f"{checkout.behind} commits behind" if checkout.behind else "",
                "local changes" if checkout.is_dirty else "",
                escape(checkout.problem),
            )

    def _events(self, sample: Sample) -> Iterator[str]:
        for event in sample.scheduled_events:
            when = f"not before {_moment(event.not_before)}" if event.not_before else ""
            yield self._line((), event.event_type, escape(event.status), when, escape(event.description))


def _item(mark: str, name: str, *facts: str) -> str:
    told = "".join(f"<span>{fact}</span>" for fact in facts if fact)
    return f'<li class="{mark}"><b>{escape(name)}</b><p>{told}</p></li>\n'


def _restarts(unit: UnitSample) -> str:
    if not unit.restarts and not unit.recent_restarts:
        return ""
    return f"{unit.restarts} restarts, {unit.recent_restarts} in the last 15 min"


def _repair(repair: RepairSample | None) -> str:
    if repair is None or not repair.attempts:
        return ""
    told = f"restarted by the agent {repair.attempts} times"
    if repair.circuit_open:
        return f"{told}, given up"
    return f"{told}, next not before {_moment(repair.not_before)}" if repair.not_before else told


def _meter(percent: float, told: str) -> str:
    return f'<meter min="0" max="100" value="{percent:.1f}" aria-hidden="true"></meter> {told}'


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def size(count: int) -> str:
    """Return a number of bytes as people say it."""
    scaled = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if scaled < 1024:
            return f"{scaled:.0f} {unit}" if unit == "B" else f"{scaled:.1f} {unit}"
        scaled /= 1024
    return f"{scaled:.1f} PiB"


def duration(seconds: float) -> str:
    """Return a length of time in its two largest units."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole // 60 % 60} min"
    return f"{whole // 86_400} d {whole // 3600 % 24} h"
