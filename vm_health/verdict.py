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
    Status,
)
from vm_health.policy import Policy
from vm_health.rules import evaluate, overall

_OFF = frozenset({PowerState.STOPPED, PowerState.DEALLOCATED})
_CHANGING = frozenset(
    {PowerState.CREATING, PowerState.STARTING, PowerState.STOPPING, PowerState.DEALLOCATING}
)


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
    """

    status: Status
    cause: Cause
    reason: str
    subjects: tuple[str, ...] = ()
    self_reported: bool = False
    observation: Observation | None = None
    findings: tuple[Finding, ...] = ()


def judge(evidence: Evidence, policy: Policy, now: datetime) -> Verdict:
    """Return what ``evidence`` says at ``now``, by the first row of the table that fits."""
    if evidence.power is not PowerState.RUNNING:
        return _judge_power(evidence.power)
    probed = _from_probe(evidence, policy, now)
    reported = _from_snapshot(evidence, policy, now)
    fresh = [seen for seen in (probed, reported) if seen is not None]
    if not fresh:
        return _judge_silence(evidence, policy, now)
    newest = max(fresh, key=lambda seen: seen.observed_at)
    verdict = _judge_report(newest, policy)
    if verdict.status is not Status.HEALTHY:
        return verdict
    return _judge_witnesses(verdict, evidence, reported, policy, now)


def _judge_power(power: PowerState) -> Verdict:
    if power in _OFF:
        return Verdict(Status.STOPPED, Cause.POWERED_OFF, f"the VM is {power}")
    if power in _CHANGING:
        return Verdict(Status.MAINTENANCE, Cause.POWER_CHANGING, f"the VM is {power}")
    return Verdict(Status.UNKNOWN, Cause.POWER_UNKNOWN, "Azure gives no power state for the VM")


def _from_probe(evidence: Evidence, policy: Policy, now: datetime) -> Observation | None:
    report = evidence.probe.report
    if report is None or report.age_seconds > policy.snapshot_max_age_seconds:
        return None
    if any(finding.code is Cause.SAMPLE_STALE for finding in report.findings):
        return None  # the agent serves its last sample and says itself that it is too old to judge by
    return Observation(report, now - timedelta(seconds=report.age_seconds), "endpoint")


def _from_snapshot(evidence: Evidence, policy: Policy, now: datetime) -> Observation | None:
    snapshot = evidence.snapshot
    if snapshot is None:
        return None
    # A VM whose clock runs ahead must not make old news look new: Azure's own arrival time caps it.
    observed_at = min(snapshot.taken_at, snapshot.received_at, now)
    if (now - observed_at).total_seconds() > policy.snapshot_max_age_seconds:
        return None
    return Observation(snapshot.report, observed_at, "telemetry")


def _judge_report(seen: Observation, policy: Policy) -> Verdict:
    findings = evaluate(seen.report.sample, policy.thresholds)
    if not findings:
        return Verdict(Status.HEALTHY, Cause.OK, "all checks are fine", observation=seen)
    first = findings[0]
    same_cause = [finding for finding in findings if finding.code is first.code]
    reason = "; ".join(finding.message for finding in findings[:5])
    if len(findings) > 5:
        reason += f"; and {len(findings) - 5} more"
    return Verdict(
        status=overall(findings),
        cause=first.code,
        reason=f"{reason} (seen by {seen.source})",
        subjects=tuple(finding.subject for finding in same_cause),
        self_reported=first.code is Cause.SERVICE_DOWN,
        observation=seen,
        findings=findings,
    )


def _judge_witnesses(
    verdict: Verdict, evidence: Evidence, reported: Observation | None, policy: Policy, now: datetime
) -> Verdict:
    """A VM that says it is fine: do both witnesses say so?"""
    if evidence.probe.outcome is ProbeOutcome.UNREACHABLE:
        reason = f"telemetry is fine, but the endpoint is unreachable: {evidence.probe.detail}"
        return Verdict(Status.WARNING, Cause.ENDPOINT_UNREACHABLE, reason, observation=verdict.observation)
    if reported is None and evidence.telemetry_available:
        reason = f"the endpoint is fine, but {_telemetry_age(evidence, now)}"
        return Verdict(Status.WARNING, Cause.TELEMETRY_DELAYED, reason, observation=verdict.observation)
    return verdict


def _judge_silence(evidence: Evidence, policy: Policy, now: datetime) -> Verdict:
    """No report is fresh: say which witness is missing, and call the VM silent only where both are."""
    if not evidence.telemetry_available:
        reason = f"telemetry could not be read, and the endpoint gave nothing ({evidence.probe.detail})"
        return Verdict(Status.UNKNOWN, Cause.TELEMETRY_UNAVAILABLE, reason)
    age = _telemetry_age(evidence, now)
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


def _telemetry_age(evidence: Evidence, now: datetime) -> str:
    if evidence.snapshot is None:
        return "no telemetry arrived"
    age = (now - min(evidence.snapshot.taken_at, evidence.snapshot.received_at)).total_seconds()
    return f"telemetry is {age:.0f} s old"
