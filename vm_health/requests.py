"""What changes a VM's state besides a look: an answer to a call, a person's wish, its disappearance. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from vm_health.backoff import delay
from vm_health.incident import Telling, follow_incident
from vm_health.model import Cause, Status
from vm_health.names import vm_key
from vm_health.policy import Policy
from vm_health.state import (
    CommandRef,
    CommandResult,
    Decision,
    Event,
    Lane,
    LookAgain,
    RestartUnit,
    StartKind,
    StartOutcome,
    UnitState,
    VmAction,
    VmState,
)

SENDING_SECONDS = 60.0  # every call to Azure has a shorter time-out


@dataclass(frozen=True, slots=True)
class Request:
    """A person's wish: restart ``unit``; ``by`` says who, ``why`` why."""

    unit: str
    by: str
    why: str


def on_outcome(
    state: VmState, restart: RestartUnit, outcome: StartOutcome, now: datetime
) -> tuple[VmState, Event]:
    """Note how asking for ``restart`` went: refused, nothing runs; where Azure asks to wait, that holds."""
    started = outcome.kind is StartKind.STARTED
    detail: dict[str, object] = {
        "unit": restart.unit,
        "token": restart.token,
        "lane": outcome.lane,
        "outcome": outcome.kind,
    }
    event = Event(
        "restart_sent" if started else "restart_refused", f"{restart.unit}: {outcome.detail}", now, detail
    )
    unit = state.units.get(restart.unit)
    if unit is None or unit.command is None or unit.command.token != restart.token:
        return state, event
    if started:
        unit = replace(unit, command=CommandRef(restart.token, outcome.lane, outcome.operation))
    else:
        unit = replace(unit, command=None, held=f"refused: {outcome.detail}"[:300])
    if outcome.retry_after_seconds is not None and unit.not_before is not None:
        unit = replace(
            unit, not_before=max(unit.not_before, now + timedelta(seconds=outcome.retry_after_seconds))
        )
    return replace(state, units={**state.units, restart.unit: unit}), event


def on_result(
    state: VmState, name: str, result: CommandResult, now: datetime, *, is_hung: bool = False
) -> tuple[VmState, Event]:
    """Note what a finished command said, so that history tells why an attempt did not help."""
    unit = state.units[name]
    kind = "restart_hung" if is_hung else "restart_done" if result.succeeded else "restart_failed"
    token = "" if unit.command is None else unit.command.token
    detail = {"unit": name, "token": token, "result": dict(result.result)}
    event = Event(kind, f"{name}: {result.detail}", now, detail)
    return replace(state, units={**state.units, name: replace(unit, command=None)}), event


def is_being_sent(unit: UnitState, now: datetime) -> bool:
    """Tell whether a unit's command is saved as an intent and Azure's answer is still to come.

    Until then there may be nothing to ask for, which would look like a command that is gone. Whoever sends it
    may die at that, so after a while it is asked for all the same.
    """
    if unit.command is None or unit.command.lane is not Lane.NONE or unit.last_attempt_at is None:
        return False
    return (now - unit.last_attempt_at).total_seconds() < SENDING_SECONDS


def is_hung(unit: UnitState, policy: Policy, now: datetime) -> bool:
    """Tell whether a unit's command should long have ended."""
    if unit.command is None or unit.last_attempt_at is None:
        return False
    return (now - unit.last_attempt_at).total_seconds() > policy.command_hung_seconds


def vm_action_event(action: VmAction, outcome: StartOutcome, now: datetime) -> Event:
    """Return the line of history that says how asking for an action on the whole VM went."""
    kind = "vm_action_sent" if outcome.kind is StartKind.STARTED else "vm_action_refused"
    detail = {"action": action.kind, "token": action.token, "outcome": outcome.kind}
    return Event(kind, f"{action.kind}: {outcome.detail}", now, detail)


def on_request(state: VmState, vm_id: str, request: Request, policy: Policy, now: datetime) -> Decision:
    """Decide on a person's request: one restart now. People stepped in, so the unit's backoff starts over."""
    token = f"{now:%Y%m%dT%H%M%S}-{vm_key(vm_id)[:8]}-{state.sequence}"
    unit = UnitState(
        attempts=1,
        not_before=now + timedelta(seconds=delay(2, policy.backoff)),
        last_attempt_at=now,
        command=CommandRef(token, Lane.NONE),
    )
    reason = f"{request.unit}: restart requested by {request.by}: {request.why}"
    detail = {"unit": request.unit, "by": request.by, "why": request.why, "token": token, "attempt": 1}
    look_at = now + timedelta(seconds=policy.verify_after_seconds)
    return Decision(
        state=replace(
            state,
            units={**state.units, request.unit: unit},
            sequence=state.sequence + 1,
            next_look_at=look_at,
        ),
        reason=reason,
        restarts=(RestartUnit(request.unit, 1, token),),
        look_again=LookAgain(look_at),
        events=(Event("requested", reason, now, detail),),
        wants_action=True,
    )


def on_absence(state: VmState, vm_id: str, policy: Policy, now: datetime) -> Decision | None:
    """Decide on a VM that no inventory shows: wait, then let its incident end. None: forget it now."""
    if state.gone_since is None:
        return Decision(replace(state, gone_since=now), "the VM is not in the inventory")
    if (now - state.gone_since).total_seconds() < policy.forget_after_seconds:
        return Decision(state, "the VM is still not in the inventory")
    if state.cause is Cause.VM_GONE:
        return None
    reason = "the VM is gone: deleted, moved, or no longer tagged"
    gone = replace(
        state,
        status=Status.STOPPED,
        cause=Cause.VM_GONE,
        reason=reason,
        since=now,
        units={},
        is_flapping=False,
        next_look_at=None,
    )
    told = follow_incident(state, gone, Telling(vm_id, now))
    return Decision(told, reason, events=(Event("gone", reason, now, {"was": state.status}),))
