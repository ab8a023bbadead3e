"""How a freeze is set, joined and lifted: one incident and one notice a cause, whoever judged it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from vm_health.fleet import FLEET_SCOPE, FleetDecision, FleetState, Freeze
from vm_health.model import Cause, Status
from vm_health.state import FLEET_ID, Event, Notice, NoticeKind


class Judged(NamedTuple):
    """One cause judged: ``problem`` is empty where all is well; ``numbers`` are what it was judged by."""

    cause: Cause
    problem: str
    numbers: Mapping[str, Any]


def follow(state: FleetState, scope: str, judged: Sequence[Judged], now: datetime) -> FleetDecision:
    """Set and lift the freezes of ``scope``; those of other scopes stay as they are."""
    events: list[Event] = []
    for one in judged:
        own = own_freeze(state, one.cause, scope)
        if one.problem and own is None:
            state, found = _freeze(state, scope, one, now)
            events += found
        elif own is not None and not one.problem:
            state, found = lift(state, own, one.numbers, now)
            events += found
    return FleetDecision(state, tuple(events))


def own_freeze(state: FleetState, cause: Cause, scope: str) -> Freeze | None:
    """Return the freeze that ``scope`` itself has set for ``cause``."""
    return next((one for one in state.freezes if one.cause is cause and one.scope == scope), None)


def _freeze(
    state: FleetState, scope: str, judged: Judged, now: datetime
) -> tuple[FleetState, tuple[Event, ...]]:
    problem = judged.problem if scope == FLEET_SCOPE else f"{scope}: {judged.problem}"
    shared = next((one for one in state.freezes if one.cause is judged.cause), None)
    if shared is not None:
        joined = replace(shared, reason=problem, scope=scope)
        return replace(state, freezes=(*state.freezes, joined)), ()
    incident_id = f"fleet-{judged.cause.value}-{now:%Y%m%dT%H%M%S}-{state.sequence}"
    freeze = Freeze(judged.cause, problem, now, incident_id, scope)
    reason = f"all action is stopped: {problem}"
    state = replace(
        state,
        freezes=(*state.freezes, freeze),
        sequence=state.sequence + 1,
        outbox=(*state.outbox, _notice(NoticeKind.FROZEN, freeze, reason, now)),
    )
    return state, (_event("frozen", freeze, reason, judged.numbers, now),)


def lift(
    state: FleetState, freeze: Freeze, numbers: Mapping[str, Any], now: datetime
) -> tuple[FleetState, tuple[Event, ...]]:
    """Take ``freeze`` away; people hear of it when it was the last one of its cause."""
    gone = (freeze.cause, freeze.scope)  # a lost race may have left two of them
    state = replace(state, freezes=tuple(one for one in state.freezes if (one.cause, one.scope) != gone))
    if any(one.cause is freeze.cause for one in state.freezes):
        return state, ()
    seconds = (now - freeze.since).total_seconds()
    reason = f"over after {seconds:.0f} s: {freeze.reason}"
    notice = _notice(NoticeKind.THAWED, freeze, reason, now)
    event = _event("thawed", freeze, reason, numbers, now)
    return replace(state, outbox=(*state.outbox, notice)), (event,)


def _event(kind: str, freeze: Freeze, reason: str, numbers: Mapping[str, Any], now: datetime) -> Event:
    detail = {"cause": freeze.cause.value, "scope": freeze.scope, "incident_id": freeze.incident_id}
    return Event(kind, reason, now, {**detail, **numbers})


def _notice(kind: NoticeKind, freeze: Freeze, reason: str, now: datetime) -> Notice:
    return Notice(
        kind=kind,
        key=f"{freeze.incident_id}:{kind.value}",
        vm_id=FLEET_ID,
        incident_id=freeze.incident_id,
        status=Status.CRITICAL if kind is NoticeKind.FROZEN else Status.HEALTHY,
        cause=freeze.cause,
        subjects=(),
        reason=reason,
        opened_at=freeze.since,
        at=now,
    )
