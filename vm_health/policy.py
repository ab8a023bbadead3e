"""What applies to one VM: limits, confirmations, backoff. Where the values come from is not known here."""

from __future__ import annotations

from dataclasses import dataclass, field

from vm_health.backoff import BackoffPolicy, backoff_faults
from vm_health.rules import Thresholds, threshold_faults

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


def policy_faults(policy: Policy) -> list[str]:
    """List what is unusable in ``policy``, one sentence each."""
    faults = threshold_faults(policy.thresholds) + backoff_faults(policy.backoff)
    for name in ("confirm_down", "confirm_up", "confirm_silent", "max_attempts"):
        if getattr(policy, name) < 1:
            faults.append(f"{name} must be 1 or more, is {getattr(policy, name)}")
    for name in ("snapshot_max_age_seconds", "stable_after_seconds", "verify_after_seconds"):
        if not 0 < getattr(policy, name) <= MAX_SECONDS:
            faults.append(f"{name} must be above 0 and at most {MAX_SECONDS}, is {getattr(policy, name):g}")
    return faults
