"""From a look at the VM to a report: sample, rules, who says so; and whether it tells something new."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from vm_agent.boot import boot_id
from vm_agent.collectors.base import Round
from vm_health.model import CollectorFailure, HealthReport
from vm_health.rules import Thresholds, evaluate, overall
from vm_health.version import VERSION


class Sampler:
    """Takes one report after the other and numbers them.

    ``vm_id`` and ``endpoint`` are asked each time: both may be unknown at boot and known later. So is
    ``own_failures``: what of the agent itself does not work, as a collector's failure is told.
    """

    def __init__(
        self,
        collectors: Round,
        limits: Thresholds,
        vm_id: Callable[[], str],
        endpoint: Callable[[], str],
        own_failures: Callable[[], Sequence[CollectorFailure]] = tuple,
    ) -> None:
        self._collectors = collectors
        self._limits = limits
        self._vm_id = vm_id
        self._endpoint = endpoint
        self._own_failures = own_failures
        self._host = socket.gethostname()
        self._boot_id = boot_id()
        self._sequence = 0

    def take(self, now: datetime) -> HealthReport:
        """Look at the VM and judge what is seen; ``now`` is the sample's time."""
        sample = self._collectors.take(now)
        if own := self._own_failures():
            sample = replace(sample, failures=(*sample.failures, *own))
        findings = evaluate(sample, self._limits)
        self._sequence += 1
        return HealthReport(
            vm_id=self._vm_id(),
            host=self._host,
            agent_version=VERSION,
            boot_id=self._boot_id,
            sequence=self._sequence,
            status=overall(findings),
            findings=findings,
            sample=sample,
            endpoint=self._endpoint(),
        )


def what_changed(before: HealthReport | None, after: HealthReport) -> str:
    """Say in words what ``after`` tells that ``before`` did not, "" for nothing.

    Numbers that merely move are no change; a status, a finding that came or went, and a unit's state are.
    """
    if before is None:
        return "first sample"
    if before.status is not after.status:
        return f"status {before.status} -> {after.status}"
    if before.vm_id != after.vm_id:
        return "vm_id became known"
    known, found = _findings(before), _findings(after)
    if known != found:
        came = ", ".join(sorted(f"{code} {subject}" for code, subject, _ in found - known)) or "none"
        went = ", ".join(sorted(f"{code} {subject}" for code, subject, _ in known - found)) or "none"
        return f"findings came: {came}; went: {went}"
    states = _states(before)
    for name, state in _states(after).items():
        if states.get(name) != state:
            return f"{name} is {'/'.join(state)}"
    return _locked(before, after) or _repaired(before, after)


def _locked(before: HealthReport, after: HealthReport) -> str:
    lock = after.sample.deploy_lock
    if before.sample.deploy_lock == lock:
        return ""
    return "deploy lock is gone" if lock is None else f"deploy lock until {lock.until:%H:%M:%S} UTC"


def _repaired(before: HealthReport, after: HealthReport) -> str:
    known = {(repair.unit, repair.attempts, repair.circuit_open) for repair in before.repairs}
    for repair in after.repairs:
        if (repair.unit, repair.attempts, repair.circuit_open) not in known:
            stand = "given up" if repair.circuit_open else f"{repair.attempts} attempts"
            return f"local repair of {repair.unit}: {stand}"
    return ""


def _findings(report: HealthReport) -> set[tuple[str, str, str]]:
    return {(finding.code, finding.subject, finding.status) for finding in report.findings}


def _states(report: HealthReport) -> dict[str, tuple[str, str]]:
    return {unit.name: (unit.active_state, unit.sub_state) for unit in report.sample.units}
