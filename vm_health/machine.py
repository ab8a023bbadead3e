"""The state machine of one VM: ``step`` turns a look into the next state, actions and a reason.

Pure: everything it knows is passed in, everything it wants is returned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

from vm_health.incident import follow_incident
from vm_health.model import Cause, Evidence, ProbeOutcome, ProbeResult, Status
from vm_health.names import vm_key
from vm_health.policy import Policy
from vm_health.repair import Repair, on_down, on_local_repair, on_up
from vm_health.state import (
    Decision,
    Event,
    LookAgain,
    RestartUnit,
    UnitState,
    VmState,
)
from vm_health.verdict import Verdict, judge

AGENT_UNIT = "vm-agent.service"
_REPAIRABLE = frozenset({Cause.SERVICE_DOWN, Cause.VM_SILENT})
_NOT_RUNNING = frozenset({Status.STOPPED, Status.MAINTENANCE})
MAX_REASON_CHARS = 2_000


def step(state: VmState, evidence: Evidence, policy: Policy, now: datetime) -> Decision:
    """Weigh one look at a VM against what is remembered of it and return what to do."""
    state, evidence = _learn_route(state, evidence)
    verdict = judge(_without_old_news(state, evidence), policy, now)
    settled = _settle(state, verdict, policy, now)
    if settled.status is not state.status and settled.status in _NOT_RUNNING:
        settled = replace(settled, off_at=now)
    events = []
    if (settled.status, settled.cause) != (state.status, state.cause) or state.since is None:
        change = f"{state.status} -> {settled.status}: {verdict.reason}"
        detail = {"cause": settled.cause, "subjects": list(settled.subjects), "seen_by": _source(verdict)}
        if settled.since is not None:
            events.append(Event("transition", change, now, detail))
    repaired = _repair(settled, verdict, evidence.vm_id, policy, now)
    incident, notices = follow_incident(
        settled, evidence.vm_id, settled.sequence, repaired.gave_up, repaired.attempts, now
    )
    look_at = _next_look(settled, repaired.look_at, policy, now)
    keeps_look = look_at is not None and look_at == state.next_look_at
    new_state = replace(
        settled,
        units=repaired.units,
        sequence=settled.sequence + len(repaired.restarts) + len(notices),
        incident=incident,
        outbox=(*settled.outbox, *notices),
        next_look_at=look_at,
    )
    return Decision(
        state=new_state,
        reason=" | ".join([verdict.reason, *repaired.reasons])[:MAX_REASON_CHARS],
        restarts=repaired.restarts,
        look_again=None if look_at is None or keeps_look else LookAgain(look_at),
        events=(*events, *repaired.events),
    )


def _without_old_news(state: VmState, evidence: Evidence) -> Evidence:
    """Leave out telemetry from before the VM was off: what was down then is no news of this boot."""
    snapshot = evidence.snapshot
    if (
        snapshot is None
        or state.off_at is None
        or min(snapshot.taken_at, snapshot.received_at) > state.off_at
    ):
        return evidence
    return replace(evidence, snapshot=None)


def _learn_route(state: VmState, evidence: Evidence) -> tuple[VmState, Evidence]:
    """Remember the endpoint and whether it ever answered; a VM never reached has no endpoint to judge by."""
    outcome = evidence.probe.outcome
    if outcome in (ProbeOutcome.OK, ProbeOutcome.UNHEALTHY):
        state = replace(state, was_reached=True)
    elif outcome is ProbeOutcome.UNREACHABLE and not state.was_reached:
        probe = ProbeResult(ProbeOutcome.NOT_CONFIGURED, f"never reached: {evidence.probe.detail}")
        evidence = replace(evidence, probe=probe)
    reported = "" if evidence.snapshot is None else evidence.snapshot.report.endpoint
    return replace(state, endpoint=reported or state.endpoint), evidence


def _settle(state: VmState, verdict: Verdict, policy: Policy, now: datetime) -> VmState:
    """Apply the verdict softly: it becomes hard after enough looks that say the same."""
    reason = verdict.reason[:MAX_REASON_CHARS]
    if state.since is not None and (verdict.status, verdict.cause) == (state.status, state.cause):
        return replace(
            state, soft_status=None, soft_cause=None, soft_looks=0, reason=reason, subjects=verdict.subjects
        )
    same = (state.soft_status, state.soft_cause) == (verdict.status, verdict.cause)
    looks = state.soft_looks + 1 if same else 1
    if looks < _looks_needed(state, verdict, policy):
        return replace(state, soft_status=verdict.status, soft_cause=verdict.cause, soft_looks=looks)
    return replace(
        state,
        status=verdict.status,
        cause=verdict.cause,
        subjects=verdict.subjects,
        reason=reason,
        since=state.since if state.since is not None and verdict.status is state.status else now,
        soft_status=None,
        soft_cause=None,
        soft_looks=0,
    )


def _looks_needed(state: VmState, verdict: Verdict, policy: Policy) -> int:
    if verdict.self_reported:  # the first backoff step is the confirmation
        return 1
    if verdict.status in _NOT_RUNNING:  # ARM's own word, not an inference
        return 1
    if verdict.cause is Cause.VM_SILENT:
        return policy.confirm_silent
    if state.since is None and verdict.status is Status.HEALTHY:
        return 1
    return policy.confirm_up if verdict.status.severity < state.status.severity else policy.confirm_down


class _Repaired(NamedTuple):
    units: Mapping[str, UnitState]
    restarts: tuple[RestartUnit, ...]
    events: tuple[Event, ...]
    reasons: tuple[str, ...]
    gave_up: tuple[str, ...]
    attempts: int
    look_at: datetime | None


def _repair(state: VmState, verdict: Verdict, vm_id: str, policy: Policy, now: datetime) -> _Repaired:
    """Walk over the units that are down, and those that were, and collect what is due."""
    units: dict[str, UnitState] = {}
    restarts: list[RestartUnit] = []
    events: list[Event] = []
    reasons: list[str] = []
    gave_up: list[str] = []
    looks: list[datetime] = []
    for name, repair in _repairs(state, verdict, vm_id, policy, now):
        if repair is None:
            if state.units[name].attempts:
                events.append(Event("backoff_reset", f"{name} is stable again", now, {"unit": name}))
            continue
        unit = repair.state
        if repair.attempt_now:
            token = f"{now:%Y%m%dT%H%M%S}-{vm_key(vm_id)[:8]}-{state.sequence + len(restarts)}"
            evidence = f"Azure says that the VM is running; {verdict.reason}"  # the two witnesses
            detail = {"unit": name, "attempt": unit.attempts, "token": token, "evidence": evidence}
            events.append(Event("restart" if policy.may_act else "would_restart", repair.reason, now, detail))
            if policy.may_act:
                unit = replace(unit, command=token)
                restarts.append(RestartUnit(name, unit.attempts, token))
        elif unit.not_before is not None and state.units.get(name, UnitState()).not_before is None:
            events.append(Event("backoff", f"{name}: {repair.reason}", now, {"unit": name}))
        if repair.gave_up:
            gave_up.append(name)
            events.append(Event("circuit_open", f"{name}: {repair.reason}", now, {"unit": name}))
        if repair.look_at is not None:
            looks.append(repair.look_at)
        reasons.append(f"{name}: {repair.reason}")
        units[name] = unit
    return _Repaired(
        units,
        tuple(restarts),
        tuple(events),
        tuple(reasons),
        tuple(gave_up),
        max((unit.attempts for unit in units.values()), default=0),
        min(looks, default=None),
    )


def _repairs(
    state: VmState, verdict: Verdict, vm_id: str, policy: Policy, now: datetime
) -> list[tuple[str, Repair | None]]:
    """Pair every unit that matters now with what to do about it; None means: forget it."""
    if verdict.status in _NOT_RUNNING:
        # Whatever was planned is off: after the VM's return the wait starts over.
        return [
            (name, Repair(replace(unit, not_before=None, up_since=None), "the VM does not run"))
            for name, unit in state.units.items()
        ]
    seen = verdict.observation
    samples = {} if seen is None else {unit.name: unit for unit in seen.report.sample.units}
    down: tuple[str, ...] = ()
    if state.cause in _REPAIRABLE and verdict.cause is state.cause:
        down = tuple(
            name
            for name in verdict.subjects or (AGENT_UNIT,)
            if name not in samples or samples[name].load_state == "loaded"
        )
    observed_at = None if seen is None else seen.observed_at
    local = {} if seen is None else {repair.unit: repair for repair in seen.report.repairs}
    found: list[tuple[str, Repair | None]] = []
    for name in down:
        unit = state.units.get(name, UnitState())
        held = on_local_repair(unit, local.get(name), now)
        found.append((name, held or on_down(unit, observed_at, policy, now, f"{vm_id}/{name}")))
    for name, unit in state.units.items():
        if name in down:
            continue
        is_up = name in samples and samples[name].is_up
        if seen is not None and (is_up or name == AGENT_UNIT):
            found.append((name, on_up(unit, seen.observed_at, policy)))
        else:
            found.append((name, Repair(unit, "not seen at this look")))
    return found


def _next_look(state: VmState, repair_at: datetime | None, policy: Policy, now: datetime) -> datetime | None:
    """Return when to look again sooner than the next tick, keeping a look that is already on its way."""
    wanted = [] if repair_at is None else [repair_at]
    if state.incident is not None and state.soft_status is Status.HEALTHY:
        wanted.append(now + timedelta(seconds=policy.verify_after_seconds))
    earliest = min(wanted, default=None)
    pending = state.next_look_at if state.next_look_at is not None and state.next_look_at > now else None
    if earliest is None or (pending is not None and pending <= earliest):
        return pending
    return earliest


def _source(verdict: Verdict) -> str:
    return "azure" if verdict.observation is None else verdict.observation.source
