"""When people must hear of this VM: ``vm_health.machine`` says, with the VM as its own witness. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from vm_health.incident import Telling, follow_incident
from vm_health.machine import step
from vm_health.model import Evidence, HealthReport, PowerState, ProbeOutcome, ProbeResult
from vm_health.policy import Policy
from vm_health.state import Notice, VmState


def follow(
    before: VmState, report: HealthReport, policy: Policy, now: datetime
) -> tuple[VmState, tuple[Notice, ...]]:
    """Return the state after ``report`` and what must be said.

    The machine only settles status and incident here: what is repaired, and when, is not its business, so it
    is told of no unit's past. A machine that can ask this is running, and telemetry is no witness here.
    """
    evidence = Evidence(
        _name(report),
        PowerState.RUNNING,
        telemetry_available=False,
        probe=ProbeResult(ProbeOutcome.OK, "", report),
    )
    after = step(replace(before, units={}, next_look_at=None), evidence, policy, now).state
    return replace(after, units={}, next_look_at=None, outbox=(), endpoint=""), after.outbox


def after_giving_up(
    state: VmState, report: HealthReport, units: tuple[str, ...], attempts: int, now: datetime
) -> tuple[VmState, tuple[Notice, ...]]:
    """Return the state, and what must be said, after local repair has given up ``units``."""
    told = follow_incident(state, state, Telling(_name(report), now, attempts, units))
    return replace(told, outbox=()), told.outbox


def _name(report: HealthReport) -> str:
    return report.vm_id or report.host  # not on Azure, or not known yet: the host is a name too
