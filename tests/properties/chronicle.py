"""What happened, with all that the acting instance had been shown at that moment.

Promises are held against it. Data only. Nothing here asks the product what is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from vm_health.fleet import FleetState, Slot
from vm_health.model import PowerState, ProbeOutcome, ProbeResult, Snapshot
from vm_health.policy import Policy
from vm_health.silence import Silence
from vm_health.state import Event, Notice, StartOutcome, VmActionKind, VmState
from vm_watchdog.ports import Target


@dataclass(frozen=True, slots=True)
class Seen:
    """A fresh report that an instance was shown: when the VM looked like that, and what was up and down."""

    at: datetime
    up: frozenset[str]
    down: frozenset[str]
    starting: frozenset[str]
    source: str


@dataclass(frozen=True, slots=True)
class Shown:
    """All that one instance had been shown of one VM, and of the fleet, when it did something.

    ``row`` is the VM's state as the instance last read or wrote it (before this write, where it is one);
    ``snapshot`` and ``has_telemetry`` are what it was answered: None and False also where it did not ask.
    """

    instance: str
    kind: str  # tick, shard, recheck, request
    is_disturbed: bool
    now: datetime
    vm_id: str
    target: Target | None
    probe: ProbeResult | None
    snapshot: Snapshot | None
    has_telemetry: bool
    fleet: FleetState
    silences: Sequence[Silence]
    row: VmState | None
    clock_offset_seconds: float
    policy: Policy

    @property
    def is_running(self) -> bool:
        """Whether Azure said so."""
        return self.target is not None and self.target.power is PowerState.RUNNING

    @property
    def is_unreachable(self) -> bool:
        """Whether the endpoint was asked and did not answer."""
        return self.probe is not None and self.probe.outcome is ProbeOutcome.UNREACHABLE

    @property
    def frozen(self) -> bool:
        """Whether all action was frozen, and no person had overruled that."""
        until = self.fleet.thawed_until
        return bool(self.fleet.freezes) and not (until is not None and self.now < until)

    def stopped_by_silence(self, what: str) -> bool:
        """Whether a silence, or the VM's own tag, stopped ``what`` (alerts or action)."""
        if self.target is None:
            return False
        until = self.target.tags.get("watchdog-maintenance-until", "")
        if until and self.now < datetime.fromisoformat(until):
            return True
        return any(
            silence.starts_at <= self.now < silence.ends_at
            and silence.stops in (what, "both")
            and silence.match.vm in ("", self.target.name)
            and silence.match.group in ("", self.target.group)
            for silence in self.silences
        )

    def reports(self) -> list[Seen]:
        """The fresh reports that it was shown, the newest last."""
        oldest = self.now - timedelta(seconds=self.policy.snapshot_max_age_seconds)
        found = []
        if self.probe is not None and self.probe.report is not None:
            at = self.now - timedelta(seconds=self.probe.report.age_seconds)
            found.append(_seen(self.probe.report.sample.units, at, "endpoint"))
        if self.snapshot is not None and self.has_telemetry:
            offset = timedelta(seconds=self.clock_offset_seconds)
            at = min(self.snapshot.taken_at + offset, self.snapshot.received_at, self.now)
            off_at = None if self.row is None else self.row.off_at
            if off_at is None or min(self.snapshot.taken_at, self.snapshot.received_at) > off_at:
                found.append(_seen(self.snapshot.report.sample.units, at, "telemetry"))
        return sorted((one for one in found if one.at >= oldest), key=lambda one: one.at)

    def newest(self) -> Seen | None:
        """The newest fresh report."""
        return max(self.reports(), key=lambda one: one.at, default=None)


def _seen(units: Sequence[object], at: datetime, source: str) -> Seen:
    names: dict[str, set[str]] = {"active": set(), "activating": set(), "failed": set()}
    for unit in units:
        names[unit.active_state].add(unit.name)  # type: ignore[attr-defined]
    return Seen(
        at, frozenset(names["active"]), frozenset(names["failed"]), frozenset(names["activating"]), source
    )


@dataclass(frozen=True, slots=True)
class Sent:
    """A restart of a unit, or (``action``) of the whole VM, that reached Azure."""

    at: datetime
    shown: Shown
    unit: str
    attempt: int
    token: str
    action: VmActionKind | None
    stored: VmState | None  # the VM's row as it stood
    slots: tuple[Slot, ...]
    told: tuple[Event, ...]  # what history said of this token by then
    outcome: StartOutcome

    @property
    def is_requested(self) -> bool:
        """Whether a person asked for it."""
        return self.shown.kind == "request"


@dataclass(frozen=True, slots=True)
class Saved:
    """A VM's row that was written; ``after`` None: deleted."""

    at: datetime
    shown: Shown
    before: VmState | None
    after: VmState | None


@dataclass(frozen=True, slots=True)
class SlotsSaved:
    """A group's slots that were written, and what the instance had been shown of every VM by then."""

    at: datetime
    now: datetime
    group: str
    before: tuple[Slot, ...]
    after: tuple[Slot, ...]
    fleet: FleetState
    shown: dict[str, Shown]  # by slot key
    rows: dict[str, VmState]  # every VM's row as it stood
    wished: frozenset[str]  # commands still at work that a person wanted for a unit that ran


@dataclass(frozen=True, slots=True)
class FleetSaved:
    """The fleet's row that was written."""

    at: datetime
    before: FleetState
    after: FleetState


@dataclass(frozen=True, slots=True)
class Ended:
    """A tick that nothing disturbed, from start to end.

    ``believed`` is the fleet as it was read at the start, ``fleet`` and ``rows`` are what stands at the end;
    ``received`` is when the newest snapshot of each running VM arrived, as the tick was shown it.
    """

    shards: int
    now: datetime
    believed: FleetState
    fleet: FleetState
    received: tuple[datetime, ...]
    listed: int
    vm_ids: frozenset[str]
    egress_problem: str
    has_telemetry: bool
    has_failed: bool
    rows: dict[str, VmState]


@dataclass(frozen=True, slots=True)
class Queued:
    """A notice that stands on the alert queue."""

    at: datetime
    notice: Notice


Entry = Sent | Saved | SlotsSaved | FleetSaved | Ended | Queued


@dataclass(slots=True)
class Chronicle:
    """Everything in order; ``bugs`` are errors that no part of the product raises on purpose."""

    entries: list[Entry] = field(default_factory=list)
    bugs: list[BaseException] = field(default_factory=list)
    story: list[tuple[datetime, str]] = field(default_factory=list)
