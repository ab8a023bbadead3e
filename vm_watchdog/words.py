"""Evidence and decisions in words, for people who ask why. Pure; says nothing that was not seen."""

from __future__ import annotations

from datetime import datetime

from vm_health.model import Evidence, HealthReport
from vm_health.state import Decision

MAX_FINDINGS = 20


def evidence_in_words(evidence: Evidence, now: datetime) -> list[str]:
    """Return what each witness says, one sentence each."""
    words = [f"Azure says that the VM is {evidence.power.value}"]
    if evidence.is_updating:
        words.append("Azure is changing the VM just now")
    if evidence.stopped_by:
        words.append(f"it was stopped by {evidence.stopped_by}")
    if evidence.maintenance:
        words.append(f"it is in maintenance: {evidence.maintenance}")
    words.append(_snapshot(evidence, now))
    probe = evidence.probe
    words.append(f"its endpoint is {probe.outcome.value}" + (f": {probe.detail}" if probe.detail else ""))
    if probe.report is not None:
        words += _findings("its endpoint", probe.report)
    if evidence.snapshot is not None:
        words += _findings("telemetry", evidence.snapshot.report)
    return words


def would_do(decision: Decision) -> list[str]:
    """Return what carrying out ``decision`` would do, one sentence each."""
    words = [f"restart {one.unit}, attempt {one.attempt}" for one in decision.restarts]
    if decision.vm_action is not None:
        words.append(f"{decision.vm_action.kind.value} of the whole VM")
    words += [f"tell people ({notice.kind.value}): {notice.reason}" for notice in decision.state.outbox]
    if decision.look_again is not None:
        words.append(f"look again at {decision.look_again.at:%H:%M:%S} UTC")
    return words


def _snapshot(evidence: Evidence, now: datetime) -> str:
    snapshot = evidence.snapshot
    if snapshot is None:
        missing = "nothing of it" if evidence.telemetry_available else "nothing that could be believed"
        return f"telemetry holds {missing}"
    age = (now - snapshot.received_at).total_seconds()
    return f"telemetry's newest snapshot came in {age:.0f} s ago and says {snapshot.report.status.value}"


def _findings(witness: str, report: HealthReport) -> list[str]:
    bad = [finding for finding in report.findings if finding.status.severity > 0]
    return [f"{witness} says {one.status.value}: {one.message}" for one in bad[:MAX_FINDINGS]]
