"""The log of a process that hosts the watchdog itself: one line a record on stderr, with its fields."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
# Azure's SDKs tell of every request at INFO, with headers and addresses.
_NOISY = ("azure", "aiohttp", "urllib3", "asyncio")


class LineFormatter(logging.Formatter):
    """``time LEVEL message  key=value…``, or one JSON object a line."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """Return ``record`` as one line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        extra = {name: value for name, value in record.__dict__.items() if name not in _OWN}
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        if self._as_json:
            return _json_line(record, time, extra, trace)
        fields = " ".join(f"{name}={_short(value)}" for name, value in extra.items())
        line = f"{time} {record.levelname} {record.getMessage()}  {fields}".rstrip()
        return f"{line}\n{trace}" if trace else line


def configure(*, as_json: bool, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send all records of the process to stderr, once."""
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(LineFormatter(as_json=as_json))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def _json_line(record: logging.LogRecord, time: str, extra: Mapping[str, Any], trace: str) -> str:
    value = {
        "time": time,
        "level": record.levelname,
        "logger": record.name,
        "message": record.getMessage(),
        "extra": extra,
    }
    if trace:
        value["exception"] = trace
    return json.dumps(value, default=str)


def _short(value: object) -> str:
    if not isinstance(value, str):
        return json.dumps(value, default=str)
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ' "\n=') else value
