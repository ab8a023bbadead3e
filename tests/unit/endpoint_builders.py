"""A report with everything in it, under names that a hostile VM would choose."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from tests.unit.agent_builders import NOW, a_report, a_unit
from vm_health.model import (
    CollectorFailure,
    DiskSample,
    GitSample,
    HealthReport,
    HeartbeatSample,
    LogSample,
    RepairSample,
    ScheduledEvent,
    SystemSample,
)
from vm_health.rules import Thresholds, evaluate, overall

HOSTILE = '<script>alert(1)</script>"\'&\\\n\r\0\u202e\udc80\u00e9{x="1"} 2\n# EOF\n'


def a_full_report(name: str = HOSTILE) -> HealthReport:
    """Every kind of thing that a sample can hold, with ``name`` wherever a name goes."""
    report = a_report(
        a_unit("web.service" + name, memory_bytes=5000, active_since=NOW - timedelta(days=2), restarts=3),
        a_unit("db.service", active_state="failed", sub_state=name, result=name, recent_restarts=7),
        heartbeats=(
            HeartbeatSample("/run/beat" + name, 5.0, unit="web.service"),
            HeartbeatSample("/run/gone", None, name),
        ),
        system=SystemSample(
            12.5, 1.0, 0.5, 0.25, 4, 90_061.0, {"cpu.some": 1.5, "io.full": 0.0}, False, True
        ),
        logs=(LogSample("web.service" + name, 2, name),),
        checkouts=(GitSample("/opt/app" + name, "a1b2c3", name, True, 2, name),),
        scheduled_events=(ScheduledEvent("1", name, name, NOW, name), ScheduledEvent("2", name, name)),
        failures=(CollectorFailure("git" + name, name),),
    )
    disks = (DiskSample("/", 1000, 600, 40.0, 3.0), DiskSample("/data" + name, 1000, 10, 99.0))
    sample = replace(report.sample, disks=disks)
    findings = evaluate(sample, Thresholds())
    repair = RepairSample("web.service" + name, 2, NOW, True)
    return replace(
        report,
        host="vm1" + name,
        sample=sample,
        findings=findings,
        status=overall(findings),
        repairs=(repair,),
        endpoint="http://10.0.0.4:8080",
    )
