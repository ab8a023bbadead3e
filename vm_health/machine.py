"""The state machine of one VM: ``step`` turns a look into the next state, actions and a reason.

Pure: everything it knows is passed in, everything it wants is returned.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from vm_health.flapping import change_percent, is_flapping, note_look
from vm_health.incident import Telling, follow_incident
from vm_health.model import Cause, Evidence, PowerState, ProbeOutcome, ProbeResult, Status
from vm_health.policy import Policy
from vm_health.repairs import NOT_RUNNING, Look, Repairs, after_action, repair
from vm_health.state import Decision, Event, Hold, LookAgain, VmState
from vm_health.verdict import Leeway, Verdict, excuse, judge

MAX_REASON_CHARS = 2_000
CLOCK_TOLERANCE_SECONDS = 60.0
_CLOCK_STEP_SECONDS = 10.0
_OFF = frozenset({Cause.POWERED_OFF, Cause.POWER_CHANGING})
_EXCUSES = frozenset({Cause.DEPLOY_LOCK, Cause.SCHEDULED_EVENT, Cause.VM_UPDATING})


def step(
    state: VmState,
    evidence: Evidence,
    policy: Policy,
    now: datetime,
    hold: Hold | None = None,
    *,
    is_silenced: bool = False,
) -> Decision:
    """Weigh one look at a VM against what is remembered of it and return what to do.

    Args:
        hold: why no action may be taken now; what is due stays due.
        is_silenced: whether alerts are kept back; they are told when that is over, if still true.
    """
    learned, evidence = _learn(state, evidence, policy, now)
    leeway = Leeway(
        clock_offset_seconds=learned.clock_offset_seconds,
        heeds_excuses=_heeds_excuses(learned, policy, now),
        awaits_telemetry=_awaits_telemetry(learned, policy, now),
    )
    verdict = _known(learned, judge(_without_old_news(learned, evidence), policy, now, leeway), evidence)
    if _is_steady(learned, verdict):
        return Decision(learned, verdict.reason)
    learned = _note_excuse(learned, verdict, evidence, now)
    settled = _note_change(learned, _settle(learned, verdict, policy, now), evidence, policy)
    if hold is None and not policy.may_act:
        hold = Hold("observe", "only observing")
    if hold is None and settled.is_flapping:
        share = change_percent(settled.changes)
        hold = Hold("flapping", f"the VM is flapping ({share:.0f} % of its last looks changed)")
    repairs = repair(settled, Look(evidence.vm_id, verdict, policy, now, hold))
    telling = Telling(
        vm_id=evidence.vm_id,
        now=now,
        attempts=repairs.attempts,
        gave_up=tuple(repairs.gave_up),
        steps=tuple(repairs.reasons),
        is_silenced=is_silenced,
        reminder_seconds=policy.reminder_seconds,
    )
    told = follow_incident(state, after_action(settled, repairs, now), telling)
    look_at = _next_look(told, min(repairs.looks, default=None), policy, now)
    decided = _keep_wording(state, replace(told, next_look_at=look_at))
    keeps_look = look_at is not None and look_at == state.next_look_at
    return Decision(
        state=decided,
        reason=" | ".join([verdict.reason, *repairs.reasons])[:MAX_REASON_CHARS],
        restarts=tuple(repairs.restarts),
        vm_action=repairs.vm_action,
        look_again=None if look_at is None or keeps_look else LookAgain(look_at),
        events=_events(state, settled, verdict, repairs, evidence, now),
        wants_action=repairs.wants_action,
    )


def _known(state: VmState, verdict: Verdict, evidence: Evidence) -> Verdict:
    """Where telemetry was late and the query now fails, it is still late for all that is known."""
    if state.cause is not Cause.TELEMETRY_DELAYED or evidence.telemetry_available:
        return verdict
    if verdict.cause is not Cause.OK:
        return verdict
    reason = "the endpoint is fine; telemetry was late, and can't be read now"
    return replace(verdict, status=state.status, cause=state.cause, reason=reason)


def _is_steady(state: VmState, verdict: Verdict) -> bool:
    """Tell the common case: a VM that was fine, is fine, and has nothing under way."""
    return (
        verdict.status is Status.HEALTHY
        and verdict.cause is Cause.OK
        and state.status is Status.HEALTHY
        and state.cause is Cause.OK
        and state.soft_looks == 0
        and not state.units
        and state.incident is None
        and not state.changes
        and not state.is_flapping
        and state.excused_since is None
        and state.next_look_at is None
    )


def _learn(state: VmState, evidence: Evidence, policy: Policy, now: datetime) -> tuple[VmState, Evidence]:
    """Remember the endpoint, whether it ever answered, the VM's clock, and which machine this is."""
    if state.cause in _OFF and evidence.power is PowerState.RUNNING:
        state = replace(state, back_at=now)
    outcome = evidence.probe.outcome
    was_reached = state.was_reached or outcome in (ProbeOutcome.OK, ProbeOutcome.UNHEALTHY)
    instance_id = evidence.instance_id or state.instance_id
    if state.instance_id and instance_id != state.instance_id:
        # Another machine under the same name: nothing that was learned or tried holds for it.
        state = replace(state, units={}, off_at=now, back_at=now, clock_offset_seconds=0.0, changes="")
        was_reached = outcome in (ProbeOutcome.OK, ProbeOutcome.UNHEALTHY)
    if outcome is ProbeOutcome.UNREACHABLE and not was_reached:
        # A VM never reached has no endpoint to judge by: a missing route is not a dead VM.
        probe = ProbeResult(ProbeOutcome.NOT_CONFIGURED, f"never reached: {evidence.probe.detail}")
        evidence = replace(evidence, probe=probe)
    if evidence.is_updating and any(unit.command is not None for unit in state.units.values()):
        evidence = replace(evidence, is_updating=False)  # that is the watchdog's own Run Command
    reported = "" if evidence.snapshot is None else evidence.snapshot.report.endpoint
    endpoint = reported or state.endpoint
    offset = _clock_offset(state, evidence, now)
    known = (
        state.endpoint,
        state.was_reached,
        state.instance_id,
        state.clock_offset_seconds,
        state.gone_since,
    )
    if known == (endpoint, was_reached, instance_id, offset, None):
        return state, evidence
    learned = replace(
        state,
        endpoint=endpoint,
        was_reached=was_reached,
        instance_id=instance_id,
        clock_offset_seconds=offset,
        gone_since=None,
    )
    return learned, evidence


def _clock_offset(state: VmState, evidence: Evidence, now: datetime) -> float:
    """Return by how many seconds the VM's clock is behind, as far as its endpoint shows; small ones are 0."""
    report = evidence.probe.report
    if report is None:
        return state.clock_offset_seconds
    behind = (now - report.sample.taken_at).total_seconds() - report.age_seconds
    if abs(behind) < CLOCK_TOLERANCE_SECONDS:
        return 0.0
    if abs(behind - state.clock_offset_seconds) < 2 * _CLOCK_STEP_SECONDS:
        return state.clock_offset_seconds  # as known: not worth a write
    return round(behind / _CLOCK_STEP_SECONDS) * _CLOCK_STEP_SECONDS


def _heeds_excuses(state: VmState, policy: Policy, now: datetime) -> bool:
    """Tell whether a wish to leave the VM alone still counts: neither the VM's own word nor an update that
    hangs in Azure may hide a VM for ever."""
    since = state.excused_since
    return since is None or (now - since).total_seconds() < policy.excuse_max_seconds


def _awaits_telemetry(state: VmState, policy: Policy, now: datetime) -> bool:
    """Tell whether a VM has run again for less time than telemetry may take to arrive."""
    began = max((moment for moment in (state.off_at, state.back_at) if moment is not None), default=None)
    return began is not None and (now - began).total_seconds() <= policy.snapshot_max_age_seconds


def _note_excuse(state: VmState, verdict: Verdict, evidence: Evidence, now: datetime) -> VmState:
    if verdict.cause in _EXCUSES:
        return state if state.excused_since is not None else replace(state, excused_since=now)
    reports = [evidence.probe.report, None if evidence.snapshot is None else evidence.snapshot.report]
    still_asks = evidence.is_updating or any(
        report is not None and excuse(report, now) is not None for report in reports
    )
    if state.excused_since is None or still_asks:
        return state
    return replace(state, excused_since=None)


def _without_old_news(state: VmState, evidence: Evidence) -> Evidence:
    """Leave out telemetry from before the VM was off: what was down then is no news of this boot."""
    snapshot = evidence.snapshot
    if snapshot is None or state.off_at is None:
        return evidence
    if min(snapshot.taken_at, snapshot.received_at) > state.off_at:
        return evidence
    return replace(evidence, snapshot=None)


def _settle(state: VmState, verdict: Verdict, policy: Policy, now: datetime) -> VmState:
    """Apply the verdict softly: it becomes hard after enough looks that say the same."""
    if verdict.cause is Cause.SERVICE_STARTING:  # no news yet: how the start ends is
        return _hardened(state) if state.soft_looks else state
    reason = verdict.reason[:MAX_REASON_CHARS]
    if state.since is not None and (verdict.status, verdict.cause) == (state.status, state.cause):
        return replace(_hardened(state), reason=reason, subjects=verdict.subjects)
    same = (state.soft_status, state.soft_cause) == (verdict.status, verdict.cause)
    looks = state.soft_looks + 1 if same else 1
    if looks < _looks_needed(state, verdict, policy):
        return replace(state, soft_status=verdict.status, soft_cause=verdict.cause, soft_looks=looks)
    is_same_status = state.since is not None and verdict.status is state.status
    went_off = verdict.cause in _OFF
    return replace(
        _hardened(state),
        status=verdict.status,
        cause=verdict.cause,
        subjects=verdict.subjects,
        reason=reason,
        since=state.since if is_same_status else now,
        off_at=now if went_off else state.off_at,
    )


def _hardened(state: VmState) -> VmState:
    return replace(state, soft_status=None, soft_cause=None, soft_looks=0)


def _looks_needed(state: VmState, verdict: Verdict, policy: Policy) -> int:
    if verdict.self_reported:  # the first backoff step is the confirmation
        return 1
    if verdict.status in NOT_RUNNING:  # a word, not an inference
        return 1
    if verdict.cause is Cause.VM_SILENT:
        return policy.confirm_silent
    if state.since is None and verdict.status is Status.HEALTHY:
        return 1
    if state.since is None and verdict.cause is Cause.NO_SECOND_WITNESS:
        return policy.confirm_silent  # a VM that has just appeared may still be starting its agent
    return policy.confirm_up if verdict.status.severity < state.status.severity else policy.confirm_down


def _note_change(before: VmState, settled: VmState, evidence: Evidence, policy: Policy) -> VmState:
    """Remember whether this look changed the status from fine to bad or back.

    Looks between two ticks count where they changed something, and don't water the share down where not.
    """
    if settled.status in NOT_RUNNING or settled.status is Status.UNKNOWN or before.since is None:
        return settled
    changed = _is_bad(before.status) is not _is_bad(settled.status) and before.status is not Status.UNKNOWN
    changed = changed and before.status not in NOT_RUNNING
    if not changed and (not evidence.is_routine or not settled.changes):
        return settled
    changes = note_look(settled.changes, changed)
    flaps = is_flapping(
        settled.is_flapping, changes, policy.flapping_high_percent, policy.flapping_low_percent
    )
    return replace(settled, changes=changes, is_flapping=flaps)


def _is_bad(status: Status) -> bool:
    return status in (Status.WARNING, Status.CRITICAL)


def _events(
    state: VmState,
    settled: VmState,
    verdict: Verdict,
    repairs: Repairs,
    evidence: Evidence,
    now: datetime,
) -> tuple[Event, ...]:
    events: list[Event] = []
    if state.instance_id and evidence.instance_id not in ("", state.instance_id):
        reason = "another machine now has this VM's name: its backoff starts over"
        machines = {"was": state.instance_id, "is": evidence.instance_id}
        events.append(Event("rebuilt", reason, now, machines))
    changed = (settled.status, settled.cause) != (state.status, state.cause) or state.since is None
    if changed and settled.since is not None:
        seen_by = "azure" if verdict.observation is None else verdict.observation.source
        detail = {"cause": settled.cause, "subjects": list(settled.subjects), "seen_by": seen_by}
        events.append(
            Event("transition", f"{state.status} -> {settled.status}: {verdict.reason}", now, detail)
        )
    if settled.is_flapping is not state.is_flapping:
        kind = "flapping_start" if settled.is_flapping else "flapping_end"
        share = change_percent(settled.changes)
        reason = f"{share:.0f} % of the last looks changed between fine and bad"
        events.append(Event(kind, reason, now, {"changes": settled.changes}))
    return (*events, *repairs.events)


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


def _keep_wording(before: VmState, after: VmState) -> VmState:
    """Keep the old reason where nothing but its numbers changed: that is not worth a write every minute."""
    if after.reason == before.reason:
        return before if after == before else after
    return before if replace(after, reason=before.reason) == before else after
