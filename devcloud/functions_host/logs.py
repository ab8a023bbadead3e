"""What the host's process prints: every log record of every logger, as text or as one JSON line.

Each record made while a function runs carries that function's name and the invocation's id, as Application
Insights would show them. Chooses no level by itself: ``host.json`` does.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class RunningInvocation:
    """The invocation that the current task or thread works for."""

    function: str
    invocation_id: str


running_invocation: ContextVar[RunningInvocation | None] = ContextVar("running_invocation", default=None)

# `extra=` fields land beside the record's own attributes; what isn't one of these was given by the caller.
_OWN_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _OWN_ATTRIBUTES}


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


class JsonFormatter(logging.Formatter):
    """One record, one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        invocation = running_invocation.get()
        line: dict[str, Any] = {
            "time": _time(record).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "extra": _extra(record),
            "function": invocation.function if invocation else None,
            "invocation_id": invocation.invocation_id if invocation else None,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """One record for human eyes: time, level, function, message, fields."""

    def format(self, record: logging.LogRecord) -> str:
        invocation = running_invocation.get()
        source = invocation.function if invocation else record.name
        fields = "".join(f" {name}={value}" for name, value in _extra(record).items())
        text = f"{_time(record):%H:%M:%S} {record.levelname:<7} {source}: {record.getMessage()}{fields}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def configure_logging(*, json_lines: bool, levels: Mapping[str, int]) -> None:
    """Send the whole process's log records to stdout; ``levels`` are host.json's (category -> level)."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter() if json_lines else TextFormatter())
    # The SDKs log every request with its headers at INFO, aiohttp every access: noise that Azure's default
    # categories leave out as well. A category in host.json turns them on again.
    for quiet in ("azure", "aiohttp.access"):
        logging.getLogger(quiet).setLevel(logging.WARNING)
    for category, level in levels.items():
        if category != "default":
            logging.getLogger(category).setLevel(level)
    logging.basicConfig(level=levels.get("default", logging.INFO), handlers=[handler], force=True)
