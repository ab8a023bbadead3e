"""How a log line looks in the journal, on a terminal and in a file."""

from __future__ import annotations

import logging

import pytest

from vm_agent.logs import FileFormatter, JournalFormatter, LineFormatter


def a_record(**changes: object) -> logging.LogRecord:
    return logging.makeLogRecord({"levelname": "INFO", "levelno": logging.INFO, "msg": "status", **changes})


def test_message_then_extras_on_one_line() -> None:
    record = a_record(status="CRITICAL", reason="a b\nINFO forged", empty="")
    assert LineFormatter().format(record) == "INFO status status=CRITICAL reason='a b\\nINFO forged' empty=''"


def test_a_traceback_follows_on_its_own_lines() -> None:
    error = ValueError("no")
    record = a_record(levelname="ERROR", msg="broke", exc_info=(ValueError, error, None))
    assert LineFormatter().format(record).splitlines() == ["ERROR broke", "ValueError: no"]


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.INFO, "<6>"), (logging.WARNING, "<4>"), (logging.ERROR, "<3>"), (logging.CRITICAL, "<2>")],
)
def test_the_journal_reads_the_level_of_every_line(level: int, priority: str) -> None:
    record = a_record(levelno=level, exc_info=(ValueError, ValueError("no"), None))
    lines = JournalFormatter().format(record).splitlines()
    assert len(lines) == 2
    assert all(line.startswith(priority) for line in lines)


def test_a_file_has_the_time() -> None:
    assert FileFormatter().format(a_record(created=0.25)) == "1970-01-01T00:00:00.250+00:00 INFO status"
