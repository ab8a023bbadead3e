"""``host.json`` as the Functions host reads it: the parts that matter to timers, queues, HTTP and logging.

Every value has Azure's own default, so that an app without a section behaves as it would there.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from .errors import HostError

_LEVELS = {
    "Trace": logging.DEBUG,
    "Debug": logging.DEBUG,
    "Information": logging.INFO,
    "Warning": logging.WARNING,
    "Error": logging.ERROR,
    "Critical": logging.CRITICAL,
    "None": logging.CRITICAL + 10,
}


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """``extensions.queues``."""

    batch_size: int = 16
    new_batch_threshold: int = 8
    max_dequeue_count: int = 5
    visibility_timeout_seconds: float = 0.0
    max_polling_interval_seconds: float = 60.0
    message_encoding: str = "base64"


@dataclass(frozen=True, slots=True)
class HostSettings:
    """What this host takes from ``host.json``."""

    queues: QueueSettings = QueueSettings()
    route_prefix: str = "api"
    log_levels: Mapping[str, int] = field(default_factory=dict)


def read_host_json(path: Path) -> HostSettings:
    """Read ``path``; all its faults come as one ``HostError``."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise HostError([f"host.json: cannot be read: {error}"]) from error
    except ValueError as error:
        raise HostError([f"host.json: is no JSON: {error}"]) from error
    faults: list[str] = []
    if document.get("version") != "2.0":
        faults.append(f'host.json: version is {document.get("version")!r}, it must be "2.0"')
    extensions = document.get("extensions", {})
    queues = _queue_settings(extensions.get("queues", {}), faults)
    levels = {
        category: _level(category, level, faults)
        for category, level in document.get("logging", {}).get("logLevel", {}).items()
    }
    if faults:
        raise HostError(faults)
    return HostSettings(queues, str(extensions.get("http", {}).get("routePrefix", "api")).strip("/"), levels)


def parse_time_span(text: str) -> timedelta:
    """A .NET TimeSpan, ``[d.]hh:mm:ss[.fraction]``; raises ``ValueError``."""
    match = re.fullmatch(r"(?:(\d+)\.)?(\d\d?):(\d\d?):(\d\d?)(\.\d{1,7})?", text)
    if match is None:
        raise ValueError(f"is {text!r}, it must be a time span such as '00:00:30'")
    days, hours, minutes, seconds, fraction = match.groups()
    return timedelta(
        days=int(days or 0), hours=int(hours), minutes=int(minutes), seconds=float(seconds + (fraction or ""))
    )


def _queue_settings(section: Mapping[str, Any], faults: list[str]) -> QueueSettings:
    def number(name: str, default: int, largest: int) -> int:
        value = section.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
            faults.append(
                f"host.json: extensions.queues.{name} is {value!r}, it must be a number from 1 to {largest}"
            )
            return default
        return value

    def seconds(name: str, default: str) -> float:
        try:
            return parse_time_span(str(section.get(name, default))).total_seconds()
        except ValueError as error:
            faults.append(f"host.json: extensions.queues.{name} {error}")
            return 0.0

    batch_size = number("batchSize", 16, 32)
    encoding = str(section.get("messageEncoding", "base64")).lower()
    if encoding not in ("base64", "none"):
        faults.append(
            f"host.json: extensions.queues.messageEncoding is {encoding!r}, it must be 'base64' or 'none'"
        )
    return QueueSettings(
        batch_size=batch_size,
        new_batch_threshold=number("newBatchThreshold", max(1, batch_size // 2), 1000),
        max_dequeue_count=number("maxDequeueCount", 5, 1000),
        visibility_timeout_seconds=seconds("visibilityTimeout", "00:00:00"),
        max_polling_interval_seconds=max(0.1, seconds("maxPollingInterval", "00:01:00")),
        message_encoding=encoding,
    )


def _level(category: str, level: object, faults: list[str]) -> int:
    if level not in _LEVELS:
        faults.append(
            f"host.json: logging.logLevel.{category} is {level!r}, it must be one of {', '.join(_LEVELS)}"
        )
        return logging.INFO
    return _LEVELS[str(level)]
