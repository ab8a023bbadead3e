"""When to restart a unit that is down: backoff, attempts, circuit. Pure; one unit at a time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from vm_health.backoff import delay
from vm_health.model import RepairSample
from vm_health.policy import Policy
from vm_health.state import Hold, UnitState

LOCAL_REPAIR_GRACE_SECONDS = 60.0  # a sample and a restart may pass before the report tells of the attempt
BUDGET_RETRY_SECONDS = 15.0  # others of the group are in restart: a slot is free again soon
MAX_HELD_CHARS = 300
LOCAL_REPAIR_MOST_SECONDS = 600.0  # twice the longest wait of the shared backoff: later is no plan


@dataclass(frozen=True, slots=True)
class Repair:
    """What to do about one unit: its next state, why, and whether an attempt is due now."""

    state: UnitState
    reason: str
    attempt_now: bool = False
    look_at: datetime | None = None
    opened_circuit: bool = False
    held: Hold | None = None


def on_down(
    state: UnitState,
    observed_at: datetime | None,
    policy: Policy,
    now: datetime,
    spread_key: str,
    hold: Hold | None = None,
) -> Repair:
    """Decide on a unit that is down at ``observed_at`` (None: it can't be seen at all, as a silent VM's).

    ``hold`` keeps an attempt that is due from being made; it stays due, and no attempt is counted.
    """
    if state.up_since is not None:
        state = replace(state, up_since=None)
    if state.circuit_open:
        return Repair(state, f"circuit open after {state.attempts} failed attempts")
    if state.not_before is None:
        wait = delay(state.attempts + 1, policy.backoff, _spread(spread_key, state.attempts + 1))
        due = now + timedelta(seconds=wait)
        return Repair(replace(state, not_before=due), _ahead(state.attempts, policy, due, now), look_at=due)
    if observed_at is not None and state.last_attempt_at is not None and observed_at <= state.last_attempt_at:
        again = now + timedelta(seconds=policy.verify_after_seconds)
        look_at = min(again, state.not_before) if state.not_before > now else again
        return Repair(state, "the report is older than the last attempt: looking again", look_at=look_at)
    if now < state.not_before:
        ahead = _ahead(state.attempts, policy, state.not_before, now)
        return Repair(state, ahead, look_at=state.not_before)
    return _when_due(state, policy, now, spread_key, hold)


def _when_due(state: UnitState, policy: Policy, now: datetime, spread_key: str, hold: Hold | None) -> Repair:
    if state.attempts >= policy.max_attempts:
        opened = replace(state, circuit_open=True, not_before=None)
        reason = f"still down after {state.attempts} attempts: circuit open"
        if state.held:
            reason += f" (the last one: {state.held})"
        return Repair(opened, reason, opened_circuit=True)
    if hold is not None:
        return _hold(state, policy, hold, now)
    return _attempt(state, policy, now, spread_key)


def on_up(state: UnitState, observed_at: datetime, policy: Policy) -> Repair | None:
    """Decide on a unit that is up at ``observed_at``; None where its backoff is over and forgotten."""
    if state.last_attempt_at is not None and observed_at <= state.last_attempt_at:
        return Repair(state, "the report is older than the last attempt")
    up_since = state.up_since or observed_at
    if (observed_at - up_since).total_seconds() >= policy.stable_after_seconds or state.attempts == 0:
        return None
    up = replace(state, up_since=up_since, not_before=None, circuit_open=False, held="")
    return Repair(up, f"up again after {state.attempts} attempts")


def on_local_repair(state: UnitState, local: RepairSample | None, now: datetime) -> Repair | None:
    """Hold back while the VM's own agent is at the unit; None where it is not, or not any more.

    An agent that gave up, or whose announced attempt is long overdue, is no reason to wait: what a VM
    reports must not keep it down for ever.
    """
    if local is None or local.circuit_open or local.not_before is None:
        return None
    overdue = (now - local.not_before).total_seconds()
    ahead = -overdue
    if overdue > LOCAL_REPAIR_GRACE_SECONDS or ahead > LOCAL_REPAIR_MOST_SECONDS:
        return None
    reason = f"the VM's own agent is at it: attempt {local.attempts + 1} at {local.not_before:%H:%M:%S} UTC"
    return Repair(replace(state, not_before=None, up_since=None, held=""), reason)


def on_starting(state: UnitState, policy: Policy, now: datetime) -> Repair:
    """Decide on a unit that is still starting: neither down nor up. A restart inside this grace would only
    begin the start again; how it ends is looked at soon, for the attempts already made are at stake."""
    return Repair(state, "it is still starting", look_at=now + timedelta(seconds=policy.verify_after_seconds))


def _hold(state: UnitState, policy: Policy, hold: Hold, now: datetime) -> Repair:
    reason = f"attempt {state.attempts + 1} of {policy.max_attempts} is due, but {hold.reason}"
    look_at = now + timedelta(seconds=BUDGET_RETRY_SECONDS) if hold.kind == "budget" else None
    if state.held.startswith(f"{hold.kind}: "):  # told before: nothing new to write down
        return Repair(state, reason, look_at=look_at)
    held = replace(state, held=f"{hold.kind}: {hold.reason}"[:MAX_HELD_CHARS])
    return Repair(held, reason, look_at=look_at, held=hold)


def _attempt(state: UnitState, policy: Policy, now: datetime, spread_key: str) -> Repair:
    attempt = state.attempts + 1
    wait = delay(attempt + 1, policy.backoff, _spread(spread_key, attempt + 1))
    due = now + timedelta(seconds=wait)
    tried = replace(state, attempts=attempt, last_attempt_at=now, not_before=due, held="")
    verify_at = now + timedelta(seconds=min(policy.verify_after_seconds, wait))
    return Repair(
        tried,
        f"restart attempt {attempt} of {policy.max_attempts}; if it stays down: "
        + _ahead(attempt, policy, due, now),
        attempt_now=True,
        look_at=verify_at,
    )


def _ahead(attempts: int, policy: Policy, due: datetime, now: datetime) -> str:
    """Say what comes after ``attempts`` if the unit stays down."""
    when = f"in {(due - now).total_seconds():.0f} s, at {due:%H:%M:%S} UTC"
    if attempts < policy.max_attempts:
        return f"attempt {attempts + 1} of {policy.max_attempts} {when}"
    then = f"{policy.ladder[0]} is considered" if policy.ladder else "people are needed"
    return f"no attempt is left, {then} {when}"


def _spread(key: str, attempt: int) -> float:
    """Place a VM's attempt in -1…1 by hash: no two VMs alike, the same one always the same."""
    digest = hashlib.sha256(f"{key}/{attempt}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 0xFFFFFFFF * 2.0 - 1.0
