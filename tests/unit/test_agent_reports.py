"""From report to envelopes, pages and decisions to send: all pure."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.unit.agent_builders import KEY, NOW, VM_ID, a_down_unit, a_report, a_unit
from vm_agent.board import Board, empty_report
from vm_agent.envelopes import envelopes
from vm_agent.pages import page
from vm_agent.render import report_lines
from vm_agent.sampler import what_changed
from vm_agent.service import Reporter
from vm_health.model import CollectorFailure, HealthReport, HeartbeatSample, Status
from vm_health.wire import decode_report

FINE, DOWN = a_report(), a_report(a_down_unit())


def test_the_event_carries_the_whole_report_and_its_numbers() -> None:
    report = a_report(
        a_down_unit(), heartbeats=(HeartbeatSample("/run/a", 5.0), HeartbeatSample("/run/b", None))
    )
    event = envelopes(report, KEY)[0]
    data = event["data"]["baseData"]
    assert (event["iKey"], event["time"]) == (KEY, "2026-11-24T12:00:00.000Z")
    assert event["tags"]["ai.cloud.role"] == "vm-agent"
    assert event["tags"]["ai.cloud.roleInstance"] == "vm1"
    assert (event["data"]["baseType"], data["name"]) == ("EventData", "vm.health")
    assert (data["properties"]["vm_id"], data["properties"]["status"]) == (VM_ID, "CRITICAL")
    assert decode_report(data["properties"]["report"]) == report
    assert all(isinstance(value, str) for value in data["properties"].values())
    assert data["measurements"]["disk_usage_percent"] == 40.0
    assert data["measurements"]["memory_usage_percent"] == 30.0
    assert data["measurements"]["heartbeat_age_seconds"] == 5.0
    assert data["measurements"]["units_down"] == 1.0


def test_a_long_report_is_spread_over_properties_and_reads_back() -> None:
    report = a_report(*(a_unit(f"{'n' * 60}{number}.service") for number in range(60)))
    properties = envelopes(report, KEY)[0]["data"]["baseData"]["properties"]
    assert len(properties["report"]) == 8192
    assert (
        decode_report("".join(properties.get(name, "") for name in ("report", "report2", "report3")))
        == report
    )


def test_one_metric_for_each_number_with_what_it_is_about() -> None:
    report = a_report(
        a_down_unit(), a_unit("db.service", recent_restarts=3), heartbeats=(HeartbeatSample("/h", 5.0),)
    )
    found = {}
    for envelope in envelopes(report, KEY)[1:]:
        data = envelope["data"]["baseData"]
        (point,) = data["metrics"]
        assert point == {**point, "count": 1, "min": point["value"], "max": point["value"]}
        about = {name: value for name, value in data["properties"].items() if name != "vm_id"}
        found[(point["name"], *about.values())] = point["value"]
        assert data["properties"]["vm_id"] == VM_ID
    assert found == {
        ("health.disk_usage", "/"): 40.0,
        ("health.memory_usage",): 30.0,
        ("health.heartbeat_age", "/h"): 5.0,
        ("health.crash_count", "web.service"): 0.0,
        ("health.service_active", "web.service"): 0.0,
        ("health.crash_count", "db.service"): 3.0,
        ("health.service_active", "db.service"): 1.0,
    }


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (None, FINE, "first sample"),
        (FINE, FINE, ""),
        (FINE, a_report(disk_percent=41.0), ""),  # numbers that move are no news
        (FINE, a_report(a_unit(main_pid=43)), ""),
        (FINE, DOWN, "status HEALTHY -> CRITICAL"),
        (DOWN, FINE, "status CRITICAL -> HEALTHY"),
        (a_report(disk_percent=85), a_report(disk_percent=86), ""),
        (DOWN, a_report(a_down_unit(), disk_percent=85), "findings came: disk_usage /; went: none"),
        (a_report(a_down_unit(), disk_percent=85), DOWN, "findings came: none; went: disk_usage /"),
        (DOWN, a_report(a_unit(active_state="inactive", sub_state="dead")), "web.service is inactive/dead"),
        (a_report(vm_id=""), FINE, "vm_id became known"),
    ],
)
def test_what_changed(before: HealthReport | None, after: HealthReport, told: str) -> None:
    assert what_changed(before, after) == told


def test_reports_go_out_on_change_at_once_and_else_once_an_interval() -> None:
    sent: list[Status] = []
    nudged: list[str] = []
    reporter = Reporter(60.0, lambda report: sent.append(report.status), nudged.append)
    for at_seconds, report in (
        (0, FINE),
        (15, FINE),
        (30, DOWN),
        (45, DOWN),
        (89, DOWN),
        (90, DOWN),
        (105, FINE),
    ):
        reporter.consider(report, float(at_seconds))
    assert sent == [Status.HEALTHY, Status.CRITICAL, Status.CRITICAL, Status.HEALTHY]
    assert nudged == [VM_ID, VM_ID]  # not for the first: a fleet that restarts must not nudge all at once


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_the_board_ages_by_the_monotonic_clock_and_says_when_it_does_not_know() -> None:
    clock = Clock()
    board = Board(empty_report("vm1", VM_ID, "", NOW), 60.0, clock)
    nothing = board.current()
    assert (nothing.status, nothing.findings[0].code) == (Status.UNKNOWN, "sample_stale")
    board.post(DOWN, clock.seconds)
    clock.seconds += 60
    assert board.current() == replace(DOWN, age_seconds=60.0)
    clock.seconds += 1
    stale = board.current()
    assert (stale.status, [finding.code for finding in stale.findings]) == (Status.UNKNOWN, ["sample_stale"])
    assert (stale.findings[0].value, stale.findings[0].limit) == (61.0, 60.0)
    assert decode_report(page("/health", stale, {}).body.decode()) == stale


@pytest.mark.parametrize(
    ("report", "status"),
    [(FINE, 200), (a_report(disk_percent=85), 200), (DOWN, 503), (replace(FINE, status=Status.UNKNOWN), 503)],
)
def test_health_answers_200_only_while_the_vm_works(report: HealthReport, status: int) -> None:
    found = page("/health", report, {})
    assert found.status == status
    assert decode_report(found.body.decode()) == report


def test_metrics_and_the_plain_page_show_the_same_report() -> None:
    metrics = json.loads(page("/metrics", DOWN, {"samples": 3}).body)
    assert {"name": "health.service_active", "value": 0.0, "unit": "web.service"} in metrics["metrics"]
    assert (metrics["status"], metrics["agent"]) == ("CRITICAL", {"samples": 3})
    assert b"web.service is down (failed/failed, result exit-code)" in page("/", DOWN, {}).body
    assert page("/etc/passwd", DOWN, {}).status == 404


def test_lines_for_people_have_colours_only_when_asked() -> None:
    report = a_report(
        a_down_unit(),
        heartbeats=(HeartbeatSample("/h", None, "missing"),),
        failures=(CollectorFailure("x", "y"),),
    )
    assert "\x1b" not in "\n".join(report_lines(report))
    assert "\x1b[31mCRITICAL" in "\n".join(report_lines(report, colour=True))
    assert any("/h  missing" in line for line in report_lines(report))
