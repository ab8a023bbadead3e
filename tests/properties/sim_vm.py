"""A simulated VM: units, an agent that samples and reports, a clock of its own, and what Run Command finds.

It obeys a fencing token once, as the real agent does, and counts what was really restarted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import IntEnum

from tests.builders import SUBSCRIPTION, UNREACHABLE, a_vm_id
from vm_health.errors import WireError
from vm_health.model import (
    DeployLock,
    HealthReport,
    PowerState,
    ProbeOutcome,
    ProbeResult,
    Sample,
    Snapshot,
    Status,
    UnitSample,
)
from vm_health.repairs import AGENT_UNIT
from vm_health.wire import decode_report, encode_report
from vm_watchdog.ports import Target

EMIT_SECONDS = 30.0
WINDOW = timedelta(hours=1)  # as far back as the fleet's query looks
HOSTILE_NAMES = ("web.service; reboot", "$(reboot).service", "-rf.service", "../../bin/sh", "a b.service")


class Unit(IntEnum):
    """How a unit is. A restart helps one that is DOWN; only the VM's restart one that is STUCK."""

    UP = 0
    STARTING = 1
    DOWN = 2
    STUCK = 3
    BROKEN = 4


class Command(IntEnum):
    """What becomes of a Run Command."""

    WORKS = 0
    SLOW = 1
    NO_HELP = 2
    HANGS = 3
    BUSY = 4
    THROTTLED = 5
    NOT_RUNNING = 6
    AGENT_NOT_READY = 7
    FORBIDDEN = 8
    FAILS = 9
    ANSWER_LOST = 10  # it runs, and nobody is told


@dataclass(slots=True)
class SimVm:
    """One VM as it really is; what the watchdog sees of it comes through ``probed`` and ``telemetry``."""

    name: str
    group: str
    units: dict[str, Unit]
    tags: dict[str, str]
    reports_endpoint: bool = False
    sample_seconds: float = 1.0
    power: PowerState = PowerState.RUNNING
    is_updating: bool = False
    instance_id: str = "machine-0"
    agent_runs: bool = True
    agent_is_broken: bool = False  # a restart of the agent does not help
    endpoint_is_open: bool = True
    telemetry_flows: bool = True
    latency_seconds: float = 2.0
    skew_seconds: float = 0.0
    locked_until: datetime | None = None
    hostile_name: str = ""
    command: Command = Command.WORKS
    is_listed: bool = True
    has_unknown_power: bool = False
    boots: int = 0
    obeyed: set[str] = field(default_factory=set)
    restarts: Counter[str] = field(default_factory=Counter)
    changed_at: dict[str, datetime] = field(default_factory=dict)
    _sampled_at: datetime | None = None
    _sample: HealthReport | None = None
    _emitted_at: datetime | None = None
    _sent: list[tuple[datetime, HealthReport, datetime]] = field(default_factory=list)

    @property
    def vm_id(self) -> str:
        return a_vm_id(self.name, self.group)

    @property
    def endpoint(self) -> str:
        return f"http://{self.name}.fleet.example:8080"

    @property
    def is_alive(self) -> bool:
        """Whether its agent runs, so that it can report."""
        return self.power is PowerState.RUNNING and self.agent_runs

    def target(self) -> Target:
        """The VM as Resource Manager lists it."""
        power = PowerState.UNKNOWN if self.has_unknown_power else self.power
        return Target(
            self.vm_id, self.name, self.group, SUBSCRIPTION, "westeurope", power, dict(self.tags),
            self.instance_id, self.is_updating,
        )  # fmt: skip

    def set_unit(self, name: str, how: Unit, now: datetime) -> None:
        """Change how a unit is."""
        if self.units[name] is not how:
            self.units[name] = how
            self.changed_at[name] = now

    def boot(self, now: datetime) -> None:
        """Start over: everything that a reboot helps is up."""
        self.power, self.agent_runs = PowerState.RUNNING, not self.agent_is_broken
        self.boots += 1
        self._sample = self._sampled_at = None
        for name, how in self.units.items():
            if how is not Unit.BROKEN:
                self.set_unit(name, Unit.UP, now)

    def obey(self, token: str, unit: str, now: datetime, *, helps: bool) -> None:
        """Restart a unit as Run Command asks, once for each token."""
        if self.power is not PowerState.RUNNING or token in self.obeyed:
            return
        self.obeyed.add(token)
        self.restarts[unit] += 1
        if unit == AGENT_UNIT:
            self.agent_runs = not self.agent_is_broken
        elif helps and self.units.get(unit) in (Unit.DOWN, Unit.STARTING):
            self.set_unit(unit, Unit.UP, now)

    def emit(self, now: datetime, *, at_once: bool = False) -> None:
        """Send telemetry where it is time for it; it arrives after its latency."""
        if not self.is_alive or not self.telemetry_flows:
            return
        since = self._emitted_at
        if not at_once and since is not None and (now - since).total_seconds() < EMIT_SECONDS:
            return
        self._emitted_at = now
        report, sampled_at = self._report(now)
        self._sent.append((now + timedelta(seconds=self.latency_seconds), report, sampled_at))
        if len(self._sent) > 8:
            old = [one for one in self._sent if one[0] <= now]
            self._sent = [one for one in self._sent if one[0] > now]
            self._sent += sorted(old, key=lambda one: one[1].sample.taken_at)[-2:]

    def telemetry(self, now: datetime, ingested_until: datetime) -> Snapshot | None:
        """What the fleet's query finds of it: the newest by the VM's own clock."""
        arrived = [
            Snapshot(report, report.sample.taken_at, received)
            for received, report, _ in self._sent
            if received <= now and received <= ingested_until and now - received < WINDOW
        ]
        newest = max(arrived, key=lambda one: one.taken_at, default=None)
        return newest if newest is None or _is_readable(newest.report) else None

    def probed(self, now: datetime) -> ProbeResult:
        """What its endpoint answers."""
        if not self.is_alive or not self.endpoint_is_open:
            return UNREACHABLE
        report, sampled_at = self._report(now)
        report = replace(report, age_seconds=(now - sampled_at).total_seconds())
        if not _is_readable(report):
            return ProbeResult(ProbeOutcome.UNREACHABLE, "the endpoint answers no report")
        is_fine = report.status is Status.HEALTHY
        return ProbeResult(ProbeOutcome.OK if is_fine else ProbeOutcome.UNHEALTHY, "it answered", report)

    def _report(self, now: datetime) -> tuple[HealthReport, datetime]:
        at = self._sampled_at
        if self._sample is None or at is None or (now - at).total_seconds() >= self.sample_seconds:
            self._sampled_at = at = now
            self._sample = self._take_sample(now)
        return self._sample, at

    def _take_sample(self, now: datetime) -> HealthReport:
        taken_at = now + timedelta(seconds=self.skew_seconds)
        units = [_sampled(name, how, taken_at) for name, how in self.units.items()]
        if self.hostile_name:
            units.append(UnitSample(self.hostile_name, "loaded", "failed", "failed", result="exit-code"))
        lock = None if self.locked_until is None else DeployLock(self.locked_until, "a release")
        is_fine = all(unit.is_up for unit in units)
        return HealthReport(
            vm_id=self.vm_id,
            host=self.name,
            agent_version="1",
            boot_id="b",
            sequence=1,
            status=Status.HEALTHY if is_fine else Status.CRITICAL,
            findings=(),
            sample=Sample(taken_at, tuple(units), deploy_lock=lock),
            endpoint=self.endpoint if self.reports_endpoint else "",
        )


def _sampled(name: str, how: Unit, taken_at: datetime) -> UnitSample:
    if how is Unit.UP:
        return UnitSample(name, "loaded", "active", "running", main_pid=7)
    if how is Unit.STARTING:
        started_at = taken_at - timedelta(seconds=20)
        return UnitSample(name, "loaded", "activating", "start-pre", started_at=started_at)
    return UnitSample(name, "loaded", "failed", "failed", result="exit-code")


def _is_readable(report: HealthReport) -> bool:
    """Whether it survives the wire; for honest VMs that is taken for granted, for it takes time."""
    if not any(unit.name in HOSTILE_NAMES for unit in report.sample.units):
        return True
    try:
        return decode_report(encode_report(report)) == report
    except WireError:
        return False
