"""From report to lines, ages and decisions to send: all pure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.agent_builders import NOW, VM_ID, a_down_unit, a_report, a_unit
from vm_agent.board import Board, empty_report
from vm_agent.render import report_lines
from vm_agent.sampler import what_changed
from vm_agent.service import Reporter
from vm_health.model import CollectorFailure, HealthReport, HeartbeatSample, RepairSample, Status

FINE, DOWN = a_report(), a_report(a_down_unit())


def repaired(attempts: int, *, circuit_open: bool = False) -> HealthReport:
    return replace(DOWN, repairs=(RepairSample("web.service", attempts, None, circuit_open),))


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
        (DOWN, repaired(1), "local repair of web.service: 1 attempts"),
        (repaired(1), repaired(1), ""),
        (repaired(6), repaired(6, circuit_open=True), "local repair of web.service: given up"),
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


def test_lines_for_people_have_colours_only_when_asked() -> None:
    report = a_report(
        a_down_unit(),
        heartbeats=(HeartbeatSample("/h", None, "missing"),),
        failures=(CollectorFailure("x", "y"),),
    )
    assert "\x1b" not in "\n".join(report_lines(report))
    assert "\x1b[31mCRITICAL" in "\n".join(report_lines(report, colour=True))
    assert any("/h  missing" in line for line in report_lines(report))
