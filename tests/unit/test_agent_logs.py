"""How a log line looks in the journal."""

from __future__ import annotations

import logging

from vm_agent.logs import LineFormatter


def test_message_then_extras_on_one_line() -> None:
    record = logging.makeLogRecord(
        {
            "levelname": "INFO",
            "msg": "status",
            "status": "CRITICAL",
            "reason": "a b\nINFO forged",
            "empty": "",
        }
    )
    assert LineFormatter().format(record) == "INFO status status=CRITICAL reason='a b\\nINFO forged' empty=''"


def test_a_traceback_follows_on_its_own_lines() -> None:
    error = ValueError("no")
    record = logging.makeLogRecord(
        {"levelname": "ERROR", "msg": "broke", "exc_info": (ValueError, error, None)}
    )
    assert LineFormatter().format(record).splitlines() == ["ERROR broke", "ValueError: no"]
