"""What the endpoint says under each path, from the last report. Pure: no request, no clock, no collecting."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from vm_agent.measures import measures
from vm_agent.render import report_lines
from vm_health.model import HealthReport, Status
from vm_health.wire import encode_report

PATHS = ("/", "/health", "/metrics")


@dataclass(frozen=True, slots=True)
class Page:
    """One answer."""

    status: int
    content_type: str
    body: bytes


def page(path: str, report: HealthReport, own: Mapping[str, float]) -> Page:
    """Return the page at ``path``; ``own`` are the agent's numbers about itself."""
    if path == "/health":
        return Page(health_status(report), "application/json", encode_report(report).encode() + b"\n")
    if path == "/metrics":
        return Page(200, "application/json", _metrics(report, own))
    if path == "/":
        lines = [
            *report_lines(report),
            "",
            "/health   this as JSON, 503 when CRITICAL",
            "/metrics  numbers as JSON",
        ]
        return Page(200, "text/plain; charset=utf-8", "\n".join(lines).encode() + b"\n")
    return Page(404, "text/plain; charset=utf-8", b"not here; try " + " ".join(PATHS).encode() + b"\n")


def health_status(report: HealthReport) -> int:
    """Return 200 where the VM works (HEALTHY, WARNING), 503 where it does not or nobody knows."""
    return 200 if report.status in (Status.HEALTHY, Status.WARNING) else 503


def _metrics(report: HealthReport, own: Mapping[str, float]) -> bytes:
    found = {
        "vm_id": report.vm_id,
        "host": report.host,
        "status": report.status.value,
        "taken_at": report.sample.taken_at.isoformat(),
        "age_seconds": round(report.age_seconds, 3),
        "metrics": [
            {"name": item.name, "value": item.value, **({item.kind: item.subject} if item.kind else {})}
            for item in measures(report)
        ],
        "agent": dict(own),
    }
    return json.dumps(found, separators=(",", ":"), allow_nan=False).encode() + b"\n"
