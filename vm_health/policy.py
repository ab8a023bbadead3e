"""What applies to one VM: limits, confirmations, backoff. Where the values come from is not known here."""

from __future__ import annotations

from dataclasses import dataclass, field

from vm_health.backoff import BackoffPolicy, backoff_faults
from vm_health.rules import Thresholds, threshold_faults
from vm_health.state import VmActionKind

MAX_SECONDS = 30 * 86_400


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient and how bold the watchdog is with a VM.

    Args:
        confirm_down: looks in a row before a turn for the worse counts.
        confirm_up: looks in a row before a turn for the better counts.
        confirm_silent: looks in a row before a VM that neither reports nor answers counts as silent.
        snapshot_max_age_seconds: telemetry older than this is stale.
        stable_after_seconds: how long a unit must stay up before its backoff starts over.
        max_attempts: failed restarts of a unit before its circuit opens.
        verify_after_seconds: how soon after a restart, or between confirming looks, to look again.
        may_act: False decides and records, but restarts nothing.
        jitter_from_vms: the backoff's jitter is applied in fleets of at least this many VMs.
        restart_on_stale_heartbeat: whether a unit whose heartbeat file is stale is restarted.
        ladder: what may be done to the whole VM once a unit's circuit is open, in this order.
        ladder_wait_seconds: how long a rung has to help before the next step.
        vm_actions_an_hour: most actions on a whole VM within an hour.
        vm_actions_a_day: most actions on a whole VM within 24 hours.
        budget_percent: share of a group that may be in restart at once (one VM always may).
        reminder_seconds: how often an open incident is told again.
        flapping_high_percent: share of changing looks from which a VM flaps; 0 never.
        flapping_low_percent: share under which it has settled again.
        excuse_max_seconds: how long a VM's own word (deploy lock, scheduled event) may keep it unjudged.
        command_hung_seconds: how long a Run Command may go on before it counts as hung and is ended.
        forget_after_seconds: how long a VM must be missing from the inventory before it is forgotten.
    """

    thresholds: Thresholds = field(default_factory=Thresholds)
    backoff: BackoffPolicy = field(default_factory=BackoffPolicy)
    confirm_down: int = 2
    confirm_up: int = 2
    confirm_silent: int = 3
    snapshot_max_age_seconds: float = 300.0
    stable_after_seconds: float = 600.0
    max_attempts: int = 6
    verify_after_seconds: float = 5.0
    may_act: bool = True
    jitter_from_vms: int = 10
    restart_on_stale_heartbeat: bool = False
    ladder: tuple[VmActionKind, ...] = ()
    ladder_wait_seconds: float = 300.0
    vm_actions_an_hour: int = 1
    vm_actions_a_day: int = 2
    budget_percent: float = 10.0
    reminder_seconds: float = 14_400.0
    flapping_high_percent: float = 30.0
    flapping_low_percent: float = 25.0
    excuse_max_seconds: float = 3_600.0
    command_hung_seconds: float = 300.0
    forget_after_seconds: float = 600.0


def policy_faults(policy: Policy) -> list[str]:
    """List what is unusable in ``policy``, one sentence each."""
    faults = threshold_faults(policy.thresholds) + backoff_faults(policy.backoff)
    for name in (
        "confirm_down",
        "confirm_up",
        "confirm_silent",
        "max_attempts",
        "jitter_from_vms",
        "vm_actions_an_hour",
        "vm_actions_a_day",
    ):
        if getattr(policy, name) < 1:
            faults.append(f"{name} must be 1 or more, is {getattr(policy, name)}")
    for name in (
        "snapshot_max_age_seconds",
        "stable_after_seconds",
        "verify_after_seconds",
        "ladder_wait_seconds",
        "reminder_seconds",
        "excuse_max_seconds",
        "command_hung_seconds",
        "forget_after_seconds",
    ):
        if not 0 < getattr(policy, name) <= MAX_SECONDS:
            faults.append(f"{name} must be above 0 and at most {MAX_SECONDS}, is {getattr(policy, name):g}")
    for name in ("budget_percent", "flapping_high_percent", "flapping_low_percent"):
        if not 0 <= getattr(policy, name) <= 100:
            faults.append(f"{name} must lie in 0…100, is {getattr(policy, name):g}")
    if policy.flapping_low_percent > policy.flapping_high_percent:
        faults.append(
            f"flapping_low_percent ({policy.flapping_low_percent:g}) must not be above"
            f" flapping_high_percent ({policy.flapping_high_percent:g})"
        )
    if len(set(policy.ladder)) != len(policy.ladder):
        faults.append(f"ladder must name each step once, is {[step.value for step in policy.ladder]}")
    return faults
