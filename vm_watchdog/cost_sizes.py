"""How large a typical report is when it is sent: encoded as agents encode it, never guessed. Pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from vm_health.model import (
    DiskSample,
    HealthReport,
    HeartbeatSample,
    LogSample,
    MemorySample,
    Sample,
    Status,
    SystemSample,
    UnitSample,
)
from vm_health.wire import encode_report

# The agent's envelopes around what it sends; a test holds them against the agent's own.
EVENT_ENVELOPE_BYTES = 780
METRIC_BYTES = 590


def typical_report(units: int) -> HealthReport:
    """Return a report of a healthy VM with ``units`` units, two disks, a heartbeat file and PSI."""
    at = datetime(2026, 11, 24, 12, 0, 0, 123_456, tzinfo=UTC)
    names = [f"worker-{number:02d}.service" for number in range(units)]
    gib = 2**30
    sample = Sample(
        taken_at=at,
        units=tuple(
            UnitSample(
                name, "loaded", "active", "running", "notify", "success", 1, 0, 4711, at, 123 * 2**20, at
            )
            for name in names
        ),
        disks=tuple(DiskSample(mount, 128 * gib, 71 * gib, 44.5, 3.25) for mount in ("/", "/var/lib/data")),
        memory=MemorySample(16 * gib, 9 * gib, 43.75, 4 * gib, 0.5),
        heartbeats=(HeartbeatSample("/run/worker/heartbeat", 4.321, unit=names[0] if names else ""),),
        system=SystemSample(
            12.5,
            0.52,
            0.61,
            0.58,
            4,
            864_000.25,
            dict.fromkeys(("cpu.some", "memory.some", "memory.full", "io.some", "io.full"), 0.25),
            True,
        ),
        logs=tuple(LogSample(name, 0) for name in names),
    )
    subscription = "00000000-0000-4000-8000-000000000001"
    vm_id = (
        f"/subscriptions/{subscription}/resourcegroups/rg-production-web"
        "/providers/microsoft.compute/virtualmachines/production-web-0001"
    )
    return HealthReport(
        vm_id,
        "production-web-0001",
        "1.0.0",
        "3f1c8a5e-8a55-4b5e-9d64-2f0c5d1f7a10",
        123_456,
        Status.HEALTHY,
        (),
        sample,
        0.012,
        "http://10.0.12.34:8080",
    )


def event_bytes(report: HealthReport) -> int:
    """Return the bytes of the event that carries ``report``: its text within JSON, and the envelope."""
    return len(json.dumps(encode_report(report)).encode()) + EVENT_ENVELOPE_BYTES


def metric_count(units: int) -> int:
    """Return the metrics that an agent sends at once: two disks, memory, a heartbeat, two for each unit."""
    return 4 + 2 * units
