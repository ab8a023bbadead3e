"""Evidence to verdict: what one look at a VM says, before it is weighed against earlier looks.

The table that this follows stands in docs/architecture.md. Two witnesses or none: a unit counts as down only
where ARM says that the VM runs and a fresh report says that the unit does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from vm_health.model import (
    Cause,
    Evidence,
    Finding,
    HealthReport,
    PowerState,
    ProbeOutcome,
    Snapshot,
    Status,
)
from vm_health.policy import Policy
from vm_health.rules import evaluate

_OFF = frozenset({PowerState.STOPPED, PowerState.DEALLOCATED})
_CHANGING = frozenset(
    {PowerState.CREATING, PowerState.STARTING, PowerState.STOPPING, PowerState.DEALLOCATING}
)
SLOW_INGESTION_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Observation:
    """A report and when the VM looked like that, on the watchdog's clock."""

    report: HealthReport
    observed_at: datetime
    source: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one look says. ``self_reported`` marks what the VM itself says of its units: one look suffices.

    ``observation`` is the report that the verdict rests on, None where no report is fresh enough.
    ``down`` names the units that a restart may help.
    """

    status: Status
    cause: Cause
    reason: str
    subjects: tuple[str, ...] = ()
    self_reported: bool = False
    observation: Observation | None = None
    findings: tuple[Finding, ...] = ()
    down: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Leeway:
    """What earlier looks taught: by how much the VM's clock is behind, whether its own word that it wants to
    be left alone still counts, and whether it runs again for less time than telemetry may take to arrive."""

    clock_offset_seconds: float = 0.0
    heeds_excuses: bool = True
    awaits_telemetry: bool = False


_NO_LEEWAY = Leeway()


def judge(evidence: Evidence, policy: Policy, now: datetime, leeway: Leeway = _NO_LEEWAY) -> Verdict:
    """Return what ``evidence`` says at ``now``, by the first row of the table that fits."""
    is_updating = evidence.is_updating and leeway.heeds_excuses
    if evidence.power is not PowerState.RUNNING or evidence.maintenance or is_updating:
        return _judge_azure(evidence)
    probed = _from_probe(evidence, policy, now)
    reported = _from_snapshot(evidence, policy, now, leeway)
    if probed is None or (reported is not None and reported.observed_at > probed.observed_at):
        newest = reported
    else:
        newest = probed
    if newest is None:
        return _judge_silence(evidence, policy, now, leeway)
    if leeway.heeds_excuses and (excused := excuse(newest.report, now)) is not None:
        return Verdict(Status.MAINTENANCE, excused[0], excused[1])
    verdict = _judge_report(newest, policy)
    if verdict.status is not Status.HEALTHY or verdict.cause is Cause.SERVICE_STARTING:
        return verdict
    return _judge_witnesses(verdict, evidence, reported, now, leeway)


def excuse(report: HealthReport, now: datetime) -> tuple[Cause, str] | None:
    """Return why the VM itself wants to be left alone at ``now``: a deployment, or Azure's maintenance."""
    lock = report.sample.deploy_lock
    if lock is not None and now < lock.until:
        holder = f" by {lock.holder}" if lock.holder else ""
        return Cause.DEPLOY_LOCK, f"a deployment holds the VM{holder} until {lock.until:%H:%M:%S} UTC"
    for event in report.sample.scheduled_events:
        if event.status == "Started" or (event.not_before is not None and event.not_before <= now):
            return Cause.SCHEDULED_EVENT, f"Azure's own maintenance is under way: {event.event_type}"
    return None


def _judge_azure(evidence: Evidence) -> Verdict:
    """Judge by what Azure and the VM's owners say: the VM is not meant to run undisturbed now."""
    power = evidence.power
    if power in _OFF:
        by = f", stopped by {evidence.stopped_by}" if evidence.stopped_by else ""
        return Verdict(Status.STOPPED, Cause.POWERED_OFF, f"the VM is {power}{by}")
    if power in _CHANGING:
        return Verdict(Status.MAINTENANCE, Cause.POWER_CHANGING, f"the VM is {power}")
    if evidence.maintenance:
        return Verdict(Status.MAINTENANCE, Cause.MAINTENANCE, f"maintenance: {evidence.maintenance}")
    if power is not PowerState.RUNNING:
        return Verdict(Status.UNKNOWN, Cause.POWER_UNKNOWN, "Azure gives no power state for the VM")
    return Verdict(Status.MAINTENANCE, Cause.VM_UPDATING, "Azure is changing the VM")


def _from_probe(evidence: Evidence, policy: Policy, now: datetime) -> Observation | None:
    report = evidence.probe.report
    if report is None or report.age_seconds > policy.snapshot_max_age_seconds:
        return None
    for finding in report.findings:
        if finding.code is Cause.SAMPLE_STALE:
            return None  # the agent serves its last sample and says itself that it is too old to judge by
    return Observation(report, now - timedelta(seconds=report.age_seconds), "endpoint")


def _from_snapshot(evidence: Evidence, policy: Policy, now: datetime, leeway: Leeway) -> Observation | None:
    snapshot = evidence.snapshot
    if snapshot is None or not evidence.telemetry_available:
        return None
    observed_at = _observed_at(snapshot, now, leeway)
    if (now - observed_at).total_seconds() > policy.snapshot_max_age_seconds:
        return None
    return Observation(snapshot.report, observed_at, "telemetry")


def _observed_at(snapshot: Snapshot, now: datetime, leeway: Leeway) -> datetime:
    """When the snapshot was taken, on the watchdog's clock.

    A VM whose clock runs ahead must not make old news look new: Azure's own arrival time caps it. One whose
    clock is behind is put right by what its endpoint taught of it; arrival alone would not do, for telemetry
    that was held up on the VM for an hour arrives just now and is an hour old.
    """
    taken_at = snapshot.taken_at
    if leeway.clock_offset_seconds:
        taken_at += timedelta(seconds=leeway.clock_offset_seconds)
    return min(taken_at, snapshot.received_at, now)


def _judge_report(seen: Observation, policy: Policy) -> Verdict:
    findings = evaluate(seen.report.sample, policy.thresholds)
    if not findings:
        return Verdict(Status.HEALTHY, Cause.OK, "all checks are fine", observation=seen)
    first = findings[0]  # the most severe
    same_cause = [finding for finding in findings if finding.code is first.code]
    reason = "; ".join(finding.message for finding in findings[:5])
    if len(findings) > 5:
        reason += f"; and {len(findings) - 5} more"
    return Verdict(
        status=first.status,
        cause=first.code,
        reason=f"{reason} (seen by {seen.source})",
        subjects=tuple(finding.subject for finding in same_cause),
        self_reported=first.code is Cause.SERVICE_DOWN,
        observation=seen,
        findings=findings,
        down=_restartable(findings, seen, policy),
    )


def _restartable(findings: tuple[Finding, ...], seen: Observation, policy: Policy) -> tuple[str, ...]:
    """Name the units that are down and loaded, and those that hang where the policy wants them restarted."""
    loaded = {unit.name for unit in seen.report.sample.units if unit.load_state == "loaded"}
    down = [finding.subject for finding in findings if finding.code is Cause.SERVICE_DOWN]
    if policy.restart_on_stale_heartbeat:
        stale = {finding.subject for finding in findings if finding.code is Cause.HEARTBEAT_STALE}
        down += [beat.unit for beat in seen.report.sample.heartbeats if beat.path in stale and beat.unit]
    return tuple(name for name in dict.fromkeys(down) if name in loaded)


def _judge_witnesses(
    verdict: Verdict, evidence: Evidence, reported: Observation | None, now: datetime, leeway: Leeway
) -> Verdict:
    """A VM that says it is fine: do both witnesses say so?"""
    if evidence.probe.outcome is ProbeOutcome.UNREACHABLE:
        reason = f"telemetry is fine, but the endpoint is unreachable: {evidence.probe.detail}"
        return Verdict(Status.WARNING, Cause.ENDPOINT_UNREACHABLE, reason, observation=verdict.observation)
    if reported is None and evidence.telemetry_available and not leeway.awaits_telemetry:
        reason = f"the endpoint is fine, but {_telemetry_age(evidence, now, leeway)}"
        return Verdict(Status.WARNING, Cause.TELEMETRY_DELAYED, reason, observation=verdict.observation)
    return verdict


def _judge_silence(evidence: Evidence, policy: Policy, now: datetime, leeway: Leeway) -> Verdict:
    """No report is fresh: say which witness is missing, and call the VM silent only where both are."""
    if not evidence.telemetry_available:
        reason = f"telemetry could not be read, and the endpoint gave nothing ({evidence.probe.detail})"
        return Verdict(Status.UNKNOWN, Cause.TELEMETRY_UNAVAILABLE, reason)
    age = _telemetry_age(evidence, now, leeway)
    match evidence.probe.outcome:
        case ProbeOutcome.UNREACHABLE:
            reason = f"{age}, and the endpoint is unreachable: {evidence.probe.detail}"
            return Verdict(Status.CRITICAL, Cause.VM_SILENT, reason)
        case ProbeOutcome.NOT_CONFIGURED:
            missing = evidence.probe.detail or "no endpoint is known"
            reason = f"{age}, and no second witness: {missing}"
            return Verdict(Status.UNKNOWN, Cause.NO_SECOND_WITNESS, reason)
    reason = f"{age}, and the endpoint serves a sample that is too old to judge by"
    return Verdict(Status.WARNING, Cause.SAMPLE_STALE, reason)


def _telemetry_age(evidence: Evidence, now: datetime, leeway: Leeway) -> str:
    """Say how old telemetry is, and where the time went: on its way, or by the VM's clock."""
    snapshot = evidence.snapshot
    if snapshot is None:
        return "no telemetry arrived"
    age = (now - _observed_at(snapshot, now, leeway)).total_seconds()
    travelled = (snapshot.received_at - snapshot.taken_at).total_seconds()
    text = f"telemetry is {age:.0f} s old"
    if travelled > SLOW_INGESTION_SECONDS and not leeway.clock_offset_seconds:
        text += f" (it arrived {travelled:.0f} s after it was taken: held up, or the VM's clock is behind)"
    return text
