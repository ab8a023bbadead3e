"""When to restart a unit that is down: backoff, attempts, circuit. Pure; one unit at a time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from vm_health.backoff import delay
from vm_health.model import RepairSample
from vm_health.policy import Policy
from vm_health.state import UnitState

LOCAL_REPAIR_GRACE_SECONDS = 60.0  # a sample and a restart may pass before the report tells of the attempt
LOCAL_REPAIR_MOST_SECONDS = 600.0  # twice the longest wait of the shared backoff: later is no plan


@dataclass(frozen=True, slots=True)
class Repair:
    """What to do about one unit: its next state, why, and whether an attempt is due now."""

    state: UnitState
    reason: str
    attempt_now: bool = False
    look_at: datetime | None = None
    gave_up: bool = False


def on_down(
    state: UnitState, observed_at: datetime | None, policy: Policy, now: datetime, spread_key: str
) -> Repair:
    """Decide on a unit that is down at ``observed_at`` (None: it can't be seen at all, as a silent VM's)."""
    state = replace(state, up_since=None)
    if state.circuit_open:
        return Repair(state, f"circuit open after {state.attempts} failed attempts: people are needed")
    if state.not_before is None:
        wait = delay(state.attempts + 1, policy.backoff, _spread(spread_key, state.attempts + 1))
        due = now + timedelta(seconds=wait)
        return Repair(replace(state, not_before=due), _ahead(state.attempts, policy, wait), look_at=due)
    if observed_at is not None and state.last_attempt_at is not None and observed_at <= state.last_attempt_at:
        again = now + timedelta(seconds=policy.verify_after_seconds)
        look_at = min(again, state.not_before) if state.not_before > now else again
        return Repair(state, "the report is older than the last attempt: looking again", look_at=look_at)
    if now < state.not_before:
        left = (state.not_before - now).total_seconds()
        return Repair(state, _ahead(state.attempts, policy, left), look_at=state.not_before)
    if state.attempts >= policy.max_attempts:
        opened = replace(state, circuit_open=True, not_before=None)
        reason = f"still down after {state.attempts} attempts: circuit open, people are needed"
        return Repair(opened, reason, gave_up=True)
    return _attempt(state, policy, now, spread_key)


def on_up(state: UnitState, observed_at: datetime, policy: Policy) -> Repair | None:
    """Decide on a unit that is up at ``observed_at``; None where its backoff is over and forgotten."""
    if state.last_attempt_at is not None and observed_at <= state.last_attempt_at:
        return Repair(state, "the report is older than the last attempt")
    up_since = state.up_since or observed_at
    if (observed_at - up_since).total_seconds() >= policy.stable_after_seconds or state.attempts == 0:
        return None
    up = replace(state, up_since=up_since, not_before=None, circuit_open=False)
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
    return Repair(replace(state, not_before=None, up_since=None), reason)


def _attempt(state: UnitState, policy: Policy, now: datetime, spread_key: str) -> Repair:
    attempt = state.attempts + 1
    wait = delay(attempt + 1, policy.backoff, _spread(spread_key, attempt + 1))
    tried = replace(state, attempts=attempt, last_attempt_at=now, not_before=now + timedelta(seconds=wait))
    verify_at = now + timedelta(seconds=min(policy.verify_after_seconds, wait))
    return Repair(
        tried,
        f"restart attempt {attempt} of {policy.max_attempts}; if it stays down: "
        + _ahead(attempt, policy, wait),
        attempt_now=True,
        look_at=verify_at,
    )


def _ahead(attempts: int, policy: Policy, seconds: float) -> str:
    """Say what comes after ``attempts`` if the unit stays down."""
    if attempts >= policy.max_attempts:
        return f"no attempt is left, people are needed in {seconds:.0f} s"
    return f"attempt {attempts + 1} of {policy.max_attempts} in {seconds:.0f} s"


def _spread(key: str, attempt: int) -> float:
    """Place a VM's attempt in -1…1 by hash: no two VMs alike, the same one always the same."""
    digest = hashlib.sha256(f"{key}/{attempt}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 0xFFFFFFFF * 2.0 - 1.0
