"""Builders: say only what matters to the test, everything else is healthy and fixed.

Times are seconds from ``NOW``; ages are seconds back from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from vm_health.backoff import BackoffPolicy
from vm_health.model import (
    Cause,
    CollectorFailure,
    DiskSample,
    Evidence,
    HealthReport,
    HeartbeatSample,
    MemorySample,
    PowerState,
    ProbeOutcome,
    ProbeResult,
    RepairSample,
    Sample,
    Snapshot,
    Status,
    UnitSample,
)
from vm_health.policy import Policy
from vm_health.rules import Thresholds, evaluate, overall
from vm_health.state import Incident, Notice, NoticeKind
from vm_watchdog.ports import Target

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
SUBSCRIPTION = "00000000-0000-4000-8000-000000000001"
GIB = 1024**3


EXACT = Policy(backoff=BackoffPolicy(jitter_fraction=0.0))  # as in a fleet of a few VMs


def at(seconds: float) -> datetime:
    """The moment ``seconds`` after NOW."""
    return NOW + timedelta(seconds=seconds)


def a_vm_id(name: str = "web-1", group: str = "rg-web") -> str:
    """The lower-case ARM id of a VM."""
    return (
        f"/subscriptions/{SUBSCRIPTION}/resourcegroups/{group}"
        f"/providers/microsoft.compute/virtualmachines/{name}"
    )


VM_ID = a_vm_id()


def a_unit(name: str = "web.service", *, down: bool = False, **fields: Any) -> UnitSample:
    """A unit that runs, or one that has failed."""
    state = ("failed", "failed", "exit-code") if down else ("active", "running", "success")
    unit = UnitSample(name, "loaded", state[0], state[1], result=state[2], main_pid=0 if down else 4711)
    return replace(unit, **fields)


def a_sample(
    *,
    units: Iterable[UnitSample] | None = None,
    disk: float = 40.0,
    memory: float | None = 30.0,
    heartbeat_age: float | None = 5.0,
    failures: Iterable[CollectorFailure] = (),
    taken_at: datetime = NOW,
) -> Sample:
    """What a healthy VM's round of collecting sees; ``heartbeat_age`` None: the file is missing."""
    return Sample(
        taken_at=taken_at,
        units=(a_unit(),) if units is None else tuple(units),
        disks=(DiskSample("/", 100 * GIB, 60 * GIB, disk),),
        memory=None if memory is None else MemorySample(8 * GIB, 5 * GIB, memory),
        heartbeats=(HeartbeatSample("/run/app/heartbeat", heartbeat_age),),
        failures=tuple(failures),
    )


def a_report(
    *,
    down: str | Iterable[str] = (),
    up: str | Iterable[str] = "web.service",
    age: float = 0.0,
    vm_id: str = VM_ID,
    endpoint: str = "",
    repairs: tuple[RepairSample, ...] = (),
    **sample: Any,
) -> HealthReport:
    """A report of a VM with the units ``up`` and ``down``; ``age`` is the sample's on the VM's own clock."""
    is_down = [down] if isinstance(down, str) else list(down)
    is_up = [name for name in ([up] if isinstance(up, str) else up) if name not in is_down]
    units = [*(a_unit(name) for name in is_up), *(a_unit(name, down=True) for name in is_down)]
    seen = a_sample(**{"units": units, **sample})
    findings = evaluate(seen, Thresholds())
    return HealthReport(
        vm_id=vm_id,
        host=vm_id.rsplit("/", 1)[-1],
        agent_version="0.1.0",
        boot_id="b0b0",
        sequence=7,
        status=overall(findings),
        findings=findings,
        sample=seen,
        age_seconds=age,
        endpoint=endpoint,
        repairs=repairs,
    )


def a_snapshot(
    report: HealthReport | None = None,
    *,
    age: float = 30.0,
    received_age: float | None = None,
    now: datetime = NOW,
) -> Snapshot:
    """Telemetry taken ``age`` seconds ago on the VM's clock and received by Azure a little later."""
    received = age - 2 if received_age is None else received_age
    return Snapshot(report or a_report(), now - timedelta(seconds=age), now - timedelta(seconds=received))


def answers(report: HealthReport | None = None) -> ProbeResult:
    """An endpoint that serves ``report``: 200, or 503 where a check is critical."""
    report = report or a_report()
    outcome = ProbeOutcome.UNHEALTHY if report.status is Status.CRITICAL else ProbeOutcome.OK
    return ProbeResult(
        outcome, f"/health answered {503 if outcome is ProbeOutcome.UNHEALTHY else 200}", report
    )


UNREACHABLE = ProbeResult(ProbeOutcome.UNREACHABLE, "connection refused")
NO_PROBE = ProbeResult(ProbeOutcome.NOT_CONFIGURED, "no endpoint is known")


def evidence(
    power: PowerState = PowerState.RUNNING,
    probe: ProbeResult = NO_PROBE,
    snapshot: Snapshot | None = None,
    *,
    telemetry: bool = True,
    vm_id: str = VM_ID,
) -> Evidence:
    """What one look found; nothing but a running VM unless said otherwise."""
    return Evidence(vm_id, power, snapshot, telemetry, probe)


def a_notice(kind: NoticeKind = NoticeKind.FIRED, **fields: Any) -> Notice:
    """A notice of a failed web.service."""
    notice = Notice(
        kind=kind,
        key=f"incident-1:{kind}",
        vm_id=VM_ID,
        incident_id="incident-1",
        status=Status.HEALTHY if kind is NoticeKind.RESOLVED else Status.CRITICAL,
        cause=Cause.SERVICE_DOWN,
        subjects=("web.service",),
        reason="web.service is down (failed/failed, result exit-code)",
        opened_at=NOW,
        at=NOW,
        attempts=0,
    )
    return replace(notice, **fields)


def an_incident(**fields: Any) -> Incident:
    """The incident of a failed web.service."""
    return replace(
        Incident("incident-1", NOW, Status.CRITICAL, Cause.SERVICE_DOWN, ("web.service",)), **fields
    )


def a_target(
    name: str = "web-1", *, mode: str = "on", power: PowerState = PowerState.RUNNING, **tags: str
) -> Target:
    """A VM that opted in; tags with ``_`` for ``-``."""
    every = {"watchdog": mode, **{key.replace("_", "-"): value for key, value in tags.items()}}
    return Target(a_vm_id(name), name, "rg-web", SUBSCRIPTION, "westeurope", power, every)
