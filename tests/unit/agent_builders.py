"""Builders for the agent's tests: a healthy report in which a test changes only what it is about."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from vm_health.model import DiskSample, HealthReport, MemorySample, Sample, UnitSample
from vm_health.rules import Thresholds, evaluate, overall

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
KEY = "00000000-0000-4000-8000-000000000009"
VM_ID = (
    "/subscriptions/00000000-0000-4000-8000-000000000001/resourcegroups/rg"
    "/providers/microsoft.compute/virtualmachines/vm1"
)


def a_unit(name: str = "web.service", **changes: Any) -> UnitSample:
    """A running service."""
    return replace(UnitSample(name, "loaded", "active", "running", main_pid=42), **changes)


def a_down_unit(name: str = "web.service") -> UnitSample:
    """A service that failed."""
    return a_unit(name, active_state="failed", sub_state="failed", result="exit-code", main_pid=0)


def a_report(
    *units: UnitSample, disk_percent: float = 40.0, vm_id: str = VM_ID, **sample: Any
) -> HealthReport:
    """What the agent would report of a VM with these units and this full a disk."""
    seen = Sample(
        taken_at=NOW,
        units=units or (a_unit(),),
        disks=(DiskSample("/", 1000, 600, disk_percent),),
        memory=MemorySample(1000, 700, 30.0),
        **sample,
    )
    findings = evaluate(seen, Thresholds())
    return HealthReport(
        vm_id=vm_id,
        host="vm1",
        agent_version="0.1.0",
        boot_id="boot",
        sequence=1,
        status=overall(findings),
        findings=findings,
        sample=seen,
    )
