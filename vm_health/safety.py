"""Safety of the fleet as a whole: when nobody may act, and how many VMs of a group may be restarted at once.

Pure. A freeze says: the watchdog is blind, or something larger than a VM is wrong; then restarting VM by VM
makes it worse. Every freeze has a cause, a scope (who judged: the tick, or one shard of it) and one alert a
cause. Want of data neither sets nor lifts a freeze.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType

from vm_health.fleet import (
    FLEET_SCOPE,
    FleetDecision,
    FleetState,
    Freeze,
    SafetyPolicy,
    Senses,
    Slot,
)
from vm_health.freezes import Judged, follow, lift, own_freeze
from vm_health.model import Cause
from vm_health.policy import MAX_SECONDS
from vm_health.state import Event

__all__ = [
    "FLEET_SCOPE",
    "FREEZE_CAUSES",
    "FleetDecision",
    "FleetState",
    "Freeze",
    "SafetyPolicy",
    "Senses",
    "Slot",
    "assess_senses",
    "assess_turned_bad",
    "budget",
    "give_back",
    "lift_orphans",
    "safety_faults",
    "take_slots",
    "thaw",
]

FREEZE_CAUSES = (
    Cause.INVENTORY_SUSPECT,
    Cause.TELEMETRY_STALE_FOR_ALL,
    Cause.CANARY_FAILED,
    Cause.MASS_FAILURE,
)
MAX_PROBLEM_CHARS = 300


def assess_senses(
    state: FleetState, senses: Senses, policy: SafetyPolicy, stale_after_seconds: float, now: datetime
) -> FleetDecision:
    """Judge whether the watchdog sees at all: inventory, telemetry, canary. Sets and lifts those freezes.

    Equal input gives an equal state: a fleet in which nothing changed needs no write.
    """
    judged: list[Judged] = []
    if senses.vm_count is not None:
        state, inventory = _judge_inventory(state, senses, senses.vm_count, policy, now)
        judged.append(inventory)
    if senses.running is not None:
        judged += _judge_telemetry(senses, senses.running, policy, stale_after_seconds)
    if senses.canary_age_seconds is not None and not state.canary_was_seen:
        state = replace(state, canary_was_seen=True)
    canary = _judge_canary(state, senses, stale_after_seconds)
    return follow(state, senses.scope, judged if canary is None else [*judged, canary], now)


def assess_turned_bad(
    state: FleetState,
    scope: str,
    turned_bad: int,
    bad: int,
    vm_count: int,
    policy: SafetyPolicy,
    now: datetime,
) -> FleetDecision:
    """Judge whether more than one VM's own trouble is going on.

    Args:
        turned_bad: VMs that became CRITICAL within the policy's window.
        bad: VMs that are CRITICAL now; the freeze lasts until their share is back under the limit.
        vm_count: how many VMs the two are counted among; of none, nothing can be said.
    """
    if vm_count <= 0:
        return FleetDecision(state)
    is_frozen = own_freeze(state, Cause.MASS_FAILURE, scope) is not None
    counted = max(bad, turned_bad) if is_frozen else turned_bad
    limit = vm_count * policy.mass_failure_percent / 100.0
    is_mass = counted >= policy.mass_failure_min_vms and counted > limit
    numbers = {
        "turned_bad": turned_bad,
        "bad": bad,
        "vm_count": vm_count,
        "limit_percent": policy.mass_failure_percent,
    }
    problem = f"{turned_bad} of {vm_count} VMs turned bad at once" if is_mass else ""
    return follow(state, scope, [Judged(Cause.MASS_FAILURE, problem, numbers)], now)


def thaw(state: FleetState, until: datetime, by: str, now: datetime) -> FleetDecision:
    """Let a person overrule every freeze until a moment, those included that are yet to come."""
    what = "; ".join(freeze.reason for freeze in state.freezes) or "none is in force"
    detail = {
        "by": by,
        "until": until.isoformat(),
        "causes": [freeze.cause.value for freeze in state.freezes],
    }
    reason = f"{by} overrules every freeze until {until:%Y-%m-%d %H:%M:%S} UTC ({what})"
    event = Event("freeze_overruled", reason, now, detail)
    return FleetDecision(replace(state, thawed_until=until, thawed_by=by), (event,))


def lift_orphans(state: FleetState, is_judged: Callable[[Freeze], bool], now: datetime) -> FleetDecision:
    """Lift the freezes whose scope nobody judges any more, as when the fleet is cut into other shards."""
    events: list[Event] = []
    for freeze in state.freezes:
        if not is_judged(freeze):
            state, found = lift(state, freeze, {"orphan": True}, now)
            events += found
    return FleetDecision(state, tuple(events))


def safety_faults(policy: SafetyPolicy) -> list[str]:
    """List what is unusable in ``policy``, one sentence each."""
    faults = []
    if not 0 < policy.mass_failure_percent <= 100:
        faults.append(
            f"mass_failure_percent must be above 0 and at most 100, is {policy.mass_failure_percent:g}"
        )
    for name in ("mass_failure_min_vms", "stale_min_vms"):
        if getattr(policy, name) < 1:
            faults.append(f"{name} must be 1 or more, is {getattr(policy, name)}")
    for name in ("mass_failure_window_seconds", "inventory_settles_seconds"):
        if not 0 < getattr(policy, name) <= MAX_SECONDS:
            faults.append(f"{name} must be above 0 and at most {MAX_SECONDS}, is {getattr(policy, name):g}")
    return faults


def budget(group_size: int, percent: float) -> int:
    """Return how many VMs of a group may be in restart at once: at least one."""
    return max(1, math.floor(group_size * percent / 100.0))


def take_slots(
    slots: Sequence[Slot], vms: Sequence[str], limit: int, until: datetime, now: datetime
) -> tuple[tuple[Slot, ...], frozenset[str]]:
    """Give slots to as many of ``vms`` (in their order) as ``limit`` leaves free; a VM that has one keeps it.

    A kept slot lasts until ``until`` at least: it must not expire under the restart it is asked for.

    Returns:
        The slots afterwards, expired ones gone, and the VMs of ``vms`` that hold one.
    """
    held = {slot.vm: slot.until for slot in slots if now < slot.until}
    granted = set()
    for vm in vms:
        if vm in held or len(held) < limit:
            held[vm] = max(held.get(vm, until), until)
            granted.add(vm)
    return tuple(Slot(vm, end) for vm, end in held.items()), frozenset(granted)


def give_back(slots: Sequence[Slot], vms: Collection[str], now: datetime) -> tuple[Slot, ...]:
    """Return ``slots`` without those of ``vms`` and without expired ones."""
    return tuple(slot for slot in slots if now < slot.until and slot.vm not in vms)


def _judge_inventory(
    state: FleetState, senses: Senses, count: int, policy: SafetyPolicy, now: datetime
) -> tuple[FleetState, Judged]:
    """Believe the inventory, unless it has shrunk too far to be true and not for long enough."""
    numbers = {"vm_count": count, "believed": state.vm_count}
    since = state.shrunk_since or now
    lasted = (now - since).total_seconds()
    if _is_shrunk(count, state.vm_count) and lasted < policy.inventory_settles_seconds:
        problem = f"the inventory shows {count} of {state.vm_count} VMs"
        return replace(state, shrunk_since=since), Judged(Cause.INVENTORY_SUSPECT, problem, numbers)
    groups = state.groups if senses.groups is None else MappingProxyType(dict(senses.groups))
    believed = replace(state, vm_count=count, groups=groups, shrunk_since=None)
    return believed, Judged(Cause.INVENTORY_SUSPECT, "", numbers)


def _is_shrunk(count: int, believed: int) -> bool:
    return believed > 0 and (count == 0 or (believed >= 2 and count * 2 <= believed))


def _judge_telemetry(
    senses: Senses, running: int, policy: SafetyPolicy, stale_after_seconds: float
) -> list[Judged]:
    """Judge whether telemetry is there at all; not where the query fails and has not done so for long."""
    problem, failing_seconds = "", senses.telemetry_failing_seconds
    if not senses.telemetry_available:
        if failing_seconds < stale_after_seconds:
            return []
        problem = f"the telemetry query has failed or been partial for {failing_seconds:.0f} s"
    elif running >= policy.stale_min_vms and senses.fresh == 0:
        problem = f"none of {running} running VMs has fresh telemetry"
    numbers = {"running": running, "fresh": senses.fresh, "available": senses.telemetry_available}
    return [Judged(Cause.TELEMETRY_STALE_FOR_ALL, problem, numbers)]


def _judge_canary(state: FleetState, senses: Senses, stale_after_seconds: float) -> Judged | None:
    """Judge the watchdog's own way out and back; None where the way back cannot be looked at."""
    age = senses.canary_age_seconds
    numbers = {"egress_problem": senses.egress_problem[:MAX_PROBLEM_CHARS], "canary_age_seconds": age}
    if senses.egress_problem:
        problem = f"own egress failed: {senses.egress_problem}"[:MAX_PROBLEM_CHARS]
        return Judged(Cause.CANARY_FAILED, problem, numbers)
    if not senses.canary_is_sent or not state.canary_was_seen:
        return Judged(Cause.CANARY_FAILED, "", numbers)
    if not senses.telemetry_available:
        return None
    if age is not None and age <= stale_after_seconds:
        return Judged(Cause.CANARY_FAILED, "", numbers)
    seen = "none is there" if age is None else f"the newest is {age:.0f} s old"
    return Judged(Cause.CANARY_FAILED, f"own event did not come back through telemetry ({seen})", numbers)
