"""What stands in a deploy lock, and what a report with one says everywhere it is shown."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.unit.agent_builders import NOW, a_down_unit, a_report, a_unit
from vm_agent.board import Board
from vm_agent.cli import main
from vm_agent.deploy_lock import MAX_BYTES, parse_lock
from vm_agent.measures import measures, summary
from vm_agent.prometheus import report_lines as prometheus_lines
from vm_agent.render import report_lines
from vm_agent.sampler import what_changed
from vm_agent.web_page import web_page
from vm_health.errors import PermanentError
from vm_health.model import Cause, DeployLock, HealthReport, Status
from vm_health.wire import encode_report

LOCK = DeployLock(NOW + timedelta(minutes=20), "release <1.2>")
PATH = "/run/vm-agent/deploy.lock"


def minutes(count: float) -> DeployLock:
    return DeployLock(NOW + timedelta(minutes=count))


@pytest.mark.parametrize(
    ("text", "lock"),
    [
        ("", minutes(15)),
        (" \n\n", minutes(15)),
        ("600", minutes(10)),
        ("90.5\n", DeployLock(NOW + timedelta(seconds=90.5))),
        ("0", minutes(0)),
        ("1795521600", minutes(60)),  # a time in seconds, as `date +%s` prints it: the longest there is
        ("2026-11-24T12:20:00Z", minutes(20)),
        ("2026-11-24T14:20:00+02:00\n", minutes(20)),
        ("2026-11-24 12:20:00+00:00", minutes(20)),
        ('{"until": "2026-11-24T12:20:00Z", "holder": "release <1.2>"}', LOCK),
        ('{"until": "2026-11-24T12:20:00Z", "ticket": 7}', minutes(20)),
        (
            '{"until": "2026-11-24T12:20:00Z", "holder": "a\\u001b[31m\\nb"}',
            replace(minutes(20), holder="a[31mb"),
        ),
    ],
)
def test_the_forms_of_a_lock(text: str, lock: DeployLock) -> None:
    assert parse_lock(text.encode(), NOW, PATH) == lock


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("soon", "must hold nothing, seconds, an ISO 8601 time with an offset, or"),
        ("-1", "must hold nothing, seconds"),
        ("nan", "must hold nothing, seconds"),
        ("inf", "must hold nothing, seconds"),
        ("2026-11-24T12:20:00", "must hold nothing, seconds, an ISO 8601 time with an offset"),
        ("0001-01-01T00:00:00+14:00", "must hold nothing, seconds"),
        ("[1]", "must hold nothing, seconds"),
        ("{", "must be JSON"),
        ("{}", "until must be an ISO 8601 time with an offset, is null"),
        ('{"until": 600}', "until must be an ISO 8601 time"),
        ('{"until": "2026-11-24T12:20:00Z", "holder": 7}', "holder must be a string"),
        ('{"until": "2026-11-24T12:20:00Z", "holder": "' + "x" * 201 + '"}', "holder must be a string"),
        ('{"until": "x", "holder": 7}', "until must be an ISO 8601 time with an offset"),
        ("{" * MAX_BYTES, "must be JSON"),
    ],
)
def test_what_is_no_lock_says_what_it_must_be(text: str, told: str) -> None:
    with pytest.raises(PermanentError) as refused:
        parse_lock(text.encode(), NOW, PATH)
    assert str(refused.value).startswith(f"deploy lock {PATH}")
    assert told in str(refused.value)


def test_bytes_that_are_no_text_are_no_lock() -> None:
    with pytest.raises(PermanentError, match="must hold nothing"):
        parse_lock(b"\xff\xfe\x00", NOW, PATH)


LOCKED = a_report(a_down_unit(), deploy_lock=LOCK)


def test_a_lock_keeps_the_status_true_and_is_told_to_people() -> None:
    assert LOCKED.status is Status.CRITICAL
    told = "lock      until 12:20:00 UTC (release <1.2>): nothing is restarted, no alert is sent"
    assert told in "\n".join(report_lines(LOCKED))
    assert "lock " not in "\n".join(report_lines(a_report()))
    page = web_page(LOCKED, "3")
    assert "release &lt;1.2&gt;" in page
    assert "until 2026-11-24 12:20:00" in page
    assert "deploy lock" not in web_page(a_report(), "3")


def test_a_lock_is_a_number_too() -> None:
    text = prometheus_lines(LOCKED, open_metrics=False)
    assert "\nvm_health_deploy_lock 1\n" in text
    assert "\nvm_health_deploy_lock_end_timestamp_seconds 1795522800\n" in text
    free = prometheus_lines(a_report(), open_metrics=False)
    assert "\nvm_health_deploy_lock 0\n" in free
    assert "lock_end" not in free
    assert [one.value for one in measures(LOCKED) if one.name == "health.deploy_lock"] == [1.0]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (a_report(a_down_unit()), LOCKED, "deploy lock until 12:20:00 UTC"),
        (LOCKED, a_report(a_down_unit()), "deploy lock is gone"),
        (LOCKED, LOCKED, ""),
        (LOCKED, a_report(a_down_unit(), deploy_lock=minutes(30)), "deploy lock until 12:30:00 UTC"),
    ],
)
def test_a_lock_that_comes_or_goes_is_news_for_the_watchdog(
    before: HealthReport, after: HealthReport, told: str
) -> None:
    assert what_changed(before, after) == told


STARTING = a_report(
    a_unit(active_state="activating", sub_state="start", started_at=NOW - timedelta(seconds=12)),
    a_unit("b.service"),
)


def test_a_unit_that_is_starting_is_told_and_no_trouble_to_anybody() -> None:
    """Not to exit codes, numbers that people alert on, or monitors that ask for strictness."""
    assert (STARTING.status, STARTING.status.exit_code) == (Status.HEALTHY, 0)
    lines = "\n".join(report_lines(STARTING))
    assert lines.startswith("HEALTHY")
    assert "HEALTHY   web.service is starting (for 12 s, activating/start)" in lines
    assert "All is well" in web_page(STARTING, "3")
    text = prometheus_lines(STARTING, open_metrics=False)
    assert "vm_health_finding" not in text
    assert '\nvm_health_service_starting{unit="web.service"} 1\n' in text
    assert '\nvm_health_service_starting{unit="b.service"} 0\n' in text
    assert '\nvm_health_service_active{unit="web.service"} 0\n' in text
    numbers = summary(STARTING)
    assert (numbers["units_total"], numbers["units_down"], numbers["findings"]) == (2, 0, 0)
    assert summary(a_report(a_down_unit()))["units_down"] == 1
    assert summary(a_report(a_down_unit()))["findings"] == 1


def test_an_old_sample_with_a_starting_unit_is_still_not_known() -> None:
    board = Board(STARTING, 60.0, lambda: 0.0)
    assert [finding.code for finding in board.current().findings] == [Cause.SAMPLE_STALE]
    assert "vm_health_finding" in prometheus_lines(board.current(), open_metrics=False)


@pytest.mark.parametrize("given", ["0", "61", "-5", "nan", "soon", ""])
def test_a_lock_lasts_an_hour_at_most(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["lock", "--minutes", given], {})
    assert ended.value.code == 2
    assert f"must be a number above 0, 60 at most, was {given!r}" in capsys.readouterr().err


def test_a_report_with_a_lock_reads_as_json() -> None:
    assert json.loads(encode_report(LOCKED))["deploy_lock"] == {
        "until": "2026-11-24T12:20:00+00:00",
        "holder": "release <1.2>",
    }
