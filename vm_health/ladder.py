"""The rungs above restarting a unit: the whole VM, as far as its owner allows; then people. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from vm_health.names import vm_key
from vm_health.policy import Policy
from vm_health.state import VmAction, VmState

MAX_KEPT = 10
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Rung:
    """What comes next: an action that is due, a wait for the last one to help, or people."""

    reason: str
    action: VmAction | None = None
    look_at: datetime | None = None
    needs_people: bool = False


def next_rung(state: VmState, vm_id: str, policy: Policy, now: datetime) -> Rung:
    """Decide what may be done to a VM, one of whose units stays down with its circuit open.

    Each rung is tried once in an incident, and never more often than the policy allows within an hour and
    a day.
    """
    since = now if state.incident is None else state.incident.opened_at
    tried = [action for action in state.vm_actions if action.at >= since]
    last = tried[-1] if tried else None
    if last is not None:
        helps_until = last.at + timedelta(seconds=policy.ladder_wait_seconds)
        if now < helps_until:
            return Rung(f"{last.kind} at {last.at:%H:%M:%S} UTC has yet to help", look_at=helps_until)
    steps = policy.ladder[len(tried) :]
    if not steps:
        return Rung("nothing is left to try: people are needed", needs_people=True)
    free_at = _free_at(state, policy, now)
    if free_at > now:
        reason = f"{steps[0]} is not allowed again before {free_at:%Y-%m-%d %H:%M} UTC: people are needed"
        return Rung(reason, needs_people=True)
    token = f"{now:%Y%m%dT%H%M%S}-{vm_key(vm_id)[:8]}-vm{state.sequence}"
    return Rung(f"{steps[0]} is the next step", VmAction(steps[0], now, token))


def with_action(state: VmState, action: VmAction) -> tuple[VmAction, ...]:
    """Return the VM's actions with ``action``, the oldest forgotten where there are too many."""
    return (*state.vm_actions, action)[-MAX_KEPT:]


def _free_at(state: VmState, policy: Policy, now: datetime) -> datetime:
    """When the limits of the hour and of the day allow another action."""
    free_at = now
    for span, most in ((_HOUR, policy.vm_actions_an_hour), (_DAY, policy.vm_actions_a_day)):
        recent = [action.at for action in state.vm_actions if action.at > now - span]
        if len(recent) >= most:
            free_at = max(free_at, recent[-most] + span)
    return free_at
