"""From what the watchdog remembers and sees to what operators are shown. Pure: one function a shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from vm_health.fleet import FleetState, Freeze
from vm_health.model import PowerState, Status
from vm_health.policy_book import Applied
from vm_health.silence import Silence
from vm_health.state import Event, UnitState, VmState
from vm_watchdog.api_models import (
    CommandView,
    EventView,
    ExplainView,
    FleetView,
    FreezeView,
    HoldView,
    IncidentView,
    PolicyValueView,
    SilenceView,
    SoftView,
    TickView,
    UnitView,
    VmActionView,
    VmSummary,
    VmView,
    WouldHaveView,
)
from vm_watchdog.lookup import Found, name_of, resource_group_of
from vm_watchdog.on_demand import Preview
from vm_watchdog.ports import TickRecord
from vm_watchdog.words import evidence_in_words, would_do


def unit_views(units: Mapping[str, UnitState]) -> list[UnitView]:
    """Return units under repair, by name."""
    return [
        UnitView(
            name=name,
            attempts=unit.attempts,
            not_before=unit.not_before,
            last_attempt_at=unit.last_attempt_at,
            up_since=unit.up_since,
            circuit_open=unit.circuit_open,
            held=unit.held,
            command=None
            if unit.command is None
            else CommandView(token=unit.command.token, lane=unit.command.lane),
        )
        for name, unit in sorted(units.items())
    ]


def incident_view(vm_id: str, state: VmState) -> IncidentView | None:
    """Return a VM's open incident."""
    incident = state.incident
    if incident is None:
        return None
    return IncidentView(
        id=incident.id,
        vm_id=vm_id,
        name=name_of(vm_id),
        opened_at=incident.opened_at,
        status=incident.status,
        cause=incident.cause,
        subjects=list(incident.subjects),
        told_at=incident.told_at,
    )


def freeze_view(freeze: Freeze) -> FreezeView:
    """Return a freeze."""
    return FreezeView(
        cause=freeze.cause,
        reason=freeze.reason,
        since=freeze.since,
        scope=freeze.scope,
        incident_id=freeze.incident_id,
    )


def silence_view(silence: Silence, now: datetime) -> SilenceView:
    """Return a silence as it stands at ``now``."""
    match = silence.match
    return SilenceView(
        id=silence.id,
        vm=match.vm,
        group=match.group,
        tag="" if match.tag is None else "=".join(match.tag),
        all=not (match.vm or match.group or match.tag),
        starts_at=silence.starts_at,
        ends_at=silence.ends_at,
        stops=silence.stops,
        created_by=silence.created_by,
        why=silence.why,
        is_active=silence.is_active(now),
    )


def silence_views(silences: Iterable[Silence], now: datetime) -> list[SilenceView]:
    """Return silences, the next to end first."""
    return [silence_view(silence, now) for silence in sorted(silences, key=lambda one: (one.ends_at, one.id))]


def vm_summary(vm_id: str, state: VmState) -> VmSummary:
    """Return a VM's line in a list."""
    return VmSummary(
        vm_id=vm_id,
        name=name_of(vm_id),
        group=resource_group_of(vm_id),
        status=state.status,
        severity=state.status.severity,
        cause=state.cause,
        reason=state.reason,
        since=state.since,
        incident=None if state.incident is None else state.incident.id,
        is_flapping=state.is_flapping,
        units=unit_views(state.units),
    )


def worst_first(states: Mapping[str, VmState]) -> list[VmSummary]:
    """Return all VMs, the worst first."""
    rows = [vm_summary(vm_id, state) for vm_id, state in states.items()]
    return sorted(rows, key=lambda row: (-row.severity, row.name, row.vm_id))


def tick_view(record: TickRecord, now: datetime) -> TickView:
    """Return the last tick with its age at ``now``."""
    return TickView(
        started_at=record.started_at,
        finished_at=record.finished_at,
        age_seconds=round((now - record.finished_at).total_seconds(), 1),
        targets=record.targets,
        troubles=list(record.troubles),
    )


def fleet_view(
    states: Mapping[str, VmState],
    record: TickRecord | None,
    fleet: FleetState,
    silences: Iterable[Silence],
    now: datetime,
    *,
    may_act: bool,
) -> FleetView:
    """Return the fleet as a whole."""
    rows = worst_first(states)
    found = [incident_view(vm_id, state) for vm_id, state in states.items()]
    incidents = sorted((one for one in found if one is not None), key=lambda one: (one.opened_at, one.name))
    is_thawed = fleet.thawed_until is not None and now < fleet.thawed_until
    return FleetView(
        at=now,
        mode="on" if may_act else "observe",
        last_tick=None if record is None else tick_view(record, now),
        vms=len(rows),
        statuses={
            status: count for status in Status if (count := sum(1 for row in rows if row.status is status))
        },
        frozen=fleet.frozen(now),
        freezes=[freeze_view(freeze) for freeze in fleet.freezes],
        thawed_until=fleet.thawed_until if is_thawed else None,
        thawed_by=fleet.thawed_by if is_thawed else "",
        silences=silence_views((one for one in silences if one.is_active(now)), now),
        incidents=incidents,
        needing=[row for row in rows if row.severity > 0 or row.incident is not None],
    )


def vm_view(
    found: Found, state: VmState, silences: Iterable[Silence], policy: Sequence[Applied], now: datetime
) -> VmView:
    """Return everything about one VM."""
    target = found.target
    return VmView(
        vm_id=found.vm_id,
        name=found.name,
        group=found.group,
        is_in_inventory=target is not None if found.was_asked else None,
        mode=_mode(found),
        power=PowerState.UNKNOWN if target is None else target.power,
        status=state.status,
        cause=state.cause,
        subjects=list(state.subjects),
        reason=state.reason,
        since=state.since,
        soft=None
        if state.soft_status is None
        else SoftView(status=state.soft_status, cause=state.soft_cause, looks=state.soft_looks),
        units=unit_views(state.units),
        incident=incident_view(found.vm_id, state),
        is_flapping=state.is_flapping,
        changes=state.changes,
        vm_actions=[VmActionView(kind=one.kind, at=one.at, token=one.token) for one in state.vm_actions],
        next_look_at=state.next_look_at,
        endpoint=state.endpoint,
        was_reached=state.was_reached,
        off_at=state.off_at,
        back_at=state.back_at,
        excused_since=state.excused_since,
        gone_since=state.gone_since,
        notices_waiting=len(state.outbox),
        silences=silence_views(silences, now),
        policy=policy_view(policy),
    )


def policy_view(policy: Sequence[Applied]) -> dict[str, PolicyValueView]:
    """Return what applies to a VM by path, each value with its source."""
    return {one.path: PolicyValueView(value=_plain(one.value), source=one.source) for one in policy}


def explain_view(
    found: Found, seen: Preview, silences: Iterable[Silence], policy: Sequence[Applied]
) -> ExplainView:
    """Return what a fresh look saw and would do."""
    now, state = seen.sight.now, seen.decision.state
    return ExplainView(
        vm_id=found.vm_id,
        name=found.name,
        group=found.group,
        at=now,
        evidence=evidence_in_words(seen.observed.evidence, now),
        status=state.status,
        cause=state.cause,
        subjects=list(state.subjects),
        reason=seen.decision.reason,
        would_do=would_do(seen.decision),
        hold=None if seen.hold is None else HoldView(kind=seen.hold.kind, reason=seen.hold.reason),
        silences=silence_views(silences, now),
        policy=policy_view(policy),
    )


def event_view(event: Event) -> EventView:
    """Return a line of history."""
    return EventView(at=event.at, kind=event.kind, reason=event.reason, detail=_plain(event.detail))


def would_have_view(vm_id: str, event: Event) -> WouldHaveView:
    """Return something that was not done, of one VM."""
    return WouldHaveView(
        vm_id=vm_id,
        name=name_of(vm_id),
        at=event.at,
        kind=event.kind,
        reason=event.reason,
        detail=_plain(event.detail),
    )


def _mode(found: Found) -> Literal["on", "observe", ""]:
    if found.target is None:
        return ""
    return "on" if found.target.may_act else "observe"


def _plain(value: Any) -> Any:
    """Return what any client can read: a VM's word may hold half characters, which no answer can carry."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, Mapping):
        return {_plain(name): _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
