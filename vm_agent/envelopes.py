"""Reports and sums as Application Insights envelopes: one event with everything, one metric a number. Pure.

The instrumentation key is no part of them: what waits on the disk must hold no credential, so ``keyed`` adds
it at the moment of sending.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from vm_agent.aggregate import Aggregates, Series
from vm_agent.measures import summary
from vm_agent.segments import Item
from vm_health.errors import WireError
from vm_health.model import HealthReport
from vm_health.wire import report_properties

EVENT_NAME = "vm.health"
ROLE = "vm-agent"
MAX_ITEM_CHARS = 64 * 1024 - 64  # ingestion's limit for one item, less the key that is added later


def report_item(report: HealthReport, own: Mapping[str, float]) -> Item:
    """Return the event for ``report``, stamped with the time of its sample; ``own`` joins the measurements.

    Raises:
        WireError: the report is too long to be sent.
    """
    properties = {"vm_id": report.vm_id, "status": report.status.value, "host": report.host}
    event = {
        "ver": 2,
        "name": EVENT_NAME,
        "properties": {**properties, **report_properties(report)},
        "measurements": {**summary(report), **own},
    }
    found = _item("Event", event, report.sample.taken_at, report.host, report.agent_version)
    if len(found.text) > MAX_ITEM_CHARS:
        raise WireError([f"event must be at most {MAX_ITEM_CHARS} characters, has {len(found.text)}"])
    return found


def metric_items(found: Aggregates) -> list[Item]:
    """Return one metric for each series, stamped with the time of the last sample in it."""
    return [
        _item("Metric", _metric(found.vm_id, series), found.at, found.host, found.agent_version)
        for series in found.series
    ]


def keyed(text: str, instrumentation_key: str) -> str:
    """Return an envelope with its key."""
    return f'{{"iKey":"{instrumentation_key}",{text[1:]}'


def _metric(vm_id: str, series: Series) -> dict[str, Any]:
    """Return the one data point that is stored: Application Insights keeps ``value`` as ``Sum``."""
    about = {series.kind: series.subject} if series.kind else {}
    point = {
        "name": series.name,
        "value": series.total,
        "count": series.count,
        "min": series.least,
        "max": series.most,
    }
    return {"ver": 2, "properties": {"vm_id": vm_id, **about}, "metrics": [point]}


def _item(kind: str, base_data: Mapping[str, Any], at: datetime, host: str, version: str) -> Item:
    moment = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    envelope = {
        "name": f"Microsoft.ApplicationInsights.{kind}",
        "time": moment,
        "tags": {
            "ai.cloud.role": ROLE,
            "ai.cloud.roleInstance": host,
            "ai.internal.sdkVersion": f"vm-agent:{version}",
        },
        "data": {"baseType": f"{kind}Data", "baseData": base_data},
    }
    return Item(at.timestamp(), json.dumps(envelope, separators=(",", ":"), allow_nan=False))
