"""From reports to what is sent: envelopes of Application Insights, without their key until they go out."""

from __future__ import annotations

import json

import pytest

from tests.unit.agent_builders import KEY, NOW, VM_ID, a_down_unit, a_report, a_unit
from vm_agent.aggregate import Aggregates, Series
from vm_agent.envelopes import keyed, metric_items, report_item
from vm_health.errors import WireError
from vm_health.model import HeartbeatSample
from vm_health.wire import decode_report


def test_the_event_carries_the_whole_report_and_its_numbers() -> None:
    report = a_report(
        a_down_unit(), heartbeats=(HeartbeatSample("/run/a", 5.0), HeartbeatSample("/run/b", None))
    )
    item = report_item(report, {"telemetry_dropped": 7.0})
    event = json.loads(item.text)
    data = event["data"]["baseData"]
    assert (item.at, event["time"]) == (NOW.timestamp(), "2026-11-24T12:00:00.000Z")
    assert event["tags"]["ai.cloud.role"] == "vm-agent"
    assert event["tags"]["ai.cloud.roleInstance"] == "vm1"
    assert (event["data"]["baseType"], data["name"]) == ("EventData", "vm.health")
    assert (data["properties"]["vm_id"], data["properties"]["status"]) == (VM_ID, "CRITICAL")
    assert decode_report(data["properties"]["report"]) == report
    assert all(isinstance(value, str) for value in data["properties"].values())
    assert data["measurements"] == {
        **data["measurements"],
        "disk_usage_percent": 40.0,
        "memory_usage_percent": 30.0,
        "heartbeat_age_seconds": 5.0,
        "units_down": 1.0,
        "telemetry_dropped": 7.0,
    }


def test_the_key_joins_at_sending_and_changes_nothing_else() -> None:
    item = report_item(a_report(), {})
    assert "iKey" not in item.text
    assert json.loads(keyed(item.text, KEY)) == {"iKey": KEY, **json.loads(item.text)}


def test_a_long_report_is_spread_over_properties_and_reads_back() -> None:
    report = a_report(*(a_unit(f"{'n' * 60}{number}.service") for number in range(60)))
    properties = json.loads(report_item(report, {}).text)["data"]["baseData"]["properties"]
    assert len(properties["report"]) == 8192
    parts = (properties.get(name, "") for name in ("report", "report2", "report3"))
    assert decode_report("".join(parts)) == report


def test_an_event_over_the_limit_of_one_item_is_refused_here() -> None:
    """Ingestion takes 64 KB an item: quotes in quotes grow, so the report's own limit is not enough."""
    beats = tuple(HeartbeatSample('/"' + '"' * 500, None, '"' * 500) for _ in range(8))
    with pytest.raises(WireError, match="must be at most 65472 characters"):
        report_item(a_report(heartbeats=beats), {})


def test_a_metric_is_one_point_whose_value_is_the_sum() -> None:
    series = (
        Series("health.disk_usage", "mount", "/", 3, 150.0, 40.0, 60.0),
        Series("health.memory_usage", "", "", 1, 30.0, 30.0, 30.0),
    )
    items = metric_items(Aggregates(VM_ID, "vm1", "0.1.0", NOW, series))
    found = [json.loads(item.text)["data"] for item in items]
    assert [data["baseType"] for data in found] == ["MetricData", "MetricData"]
    assert found[0]["baseData"]["properties"] == {"vm_id": VM_ID, "mount": "/"}
    assert found[0]["baseData"]["metrics"] == [
        {"name": "health.disk_usage", "value": 150.0, "count": 3, "min": 40.0, "max": 60.0}
    ]
    assert found[1]["baseData"]["properties"] == {"vm_id": VM_ID}
    assert {item.at for item in items} == {NOW.timestamp()}
