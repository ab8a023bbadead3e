"""Reports as Application Insights envelopes: one event with everything, one metric for each number. Pure."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from vm_agent.measures import Measure, measures, summary
from vm_health.model import HealthReport
from vm_health.wire import report_properties

EVENT_NAME = "vm.health"
ROLE = "vm-agent"


def envelopes(report: HealthReport, instrumentation_key: str) -> list[dict[str, Any]]:
    """Return everything that is sent for ``report``, stamped with the time of its sample.

    Raises:
        WireError: the report is too long to be sent.
    """
    found = [_event(report)]
    found += [_metric(report, measure) for measure in measures(report)]
    moment = report.sample.taken_at.astimezone(UTC).isoformat(timespec="milliseconds")
    for envelope in found:
        envelope["iKey"] = instrumentation_key
        envelope["time"] = moment.replace("+00:00", "Z")
        envelope["tags"] = {
            "ai.cloud.role": ROLE,
            "ai.cloud.roleInstance": report.host,
            "ai.internal.sdkVersion": f"vm-agent:{report.agent_version}",
        }
    return found


def _event(report: HealthReport) -> dict[str, Any]:
    properties = {"vm_id": report.vm_id, "status": report.status.value, "host": report.host}
    return {
        "name": "Microsoft.ApplicationInsights.Event",
        "data": {
            "baseType": "EventData",
            "baseData": {
                "ver": 2,
                "name": EVENT_NAME,
                "properties": {**properties, **report_properties(report)},
                "measurements": summary(report),
            },
        },
    }


def _metric(report: HealthReport, measure: Measure) -> dict[str, Any]:
    value = measure.value
    point = {"name": measure.name, "value": value, "count": 1, "min": value, "max": value}
    about = {measure.kind: measure.subject} if measure.kind else {}
    return {
        "name": "Microsoft.ApplicationInsights.Metric",
        "data": {
            "baseType": "MetricData",
            "baseData": {"ver": 2, "properties": {"vm_id": report.vm_id, **about}, "metrics": [point]},
        },
    }
