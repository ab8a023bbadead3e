"""One telemetry item of Application Insights: checked, and turned into a row. No I/O."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from devcloud.log_tables import Row

MAX_ITEM_BYTES = 64 * 1024
MAX_PROPERTY_VALUE = 8_192
MAX_PROPERTY_KEY = 150
_MAX_NAME = {"EventData": 512, "MetricData": 1_024}
_SEVERITIES = ("Verbose", "Information", "Warning", "Error", "Critical")
_TAG_COLUMNS = {
    "ai.cloud.role": "AppRoleName",
    "ai.cloud.roleInstance": "AppRoleInstance",
    "ai.application.ver": "AppVersion",
    "ai.operation.id": "OperationId",
    "ai.operation.name": "OperationName",
    "ai.operation.parentId": "ParentId",
    "ai.internal.sdkVersion": "SDKVersion",
    "ai.session.id": "SessionId",
    "ai.user.id": "UserId",
}


class ItemRefused(Exception):  # noqa: N818 - an outcome of one item, reported in the answer
    """An item the service doesn't take; ``status`` goes into the answer."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def row_of(item: Any, instrumentation_key: str, now: datetime) -> tuple[str, Row]:
    """The table and the row that ``item`` becomes; raises ItemRefused."""
    if not isinstance(item, dict):
        raise ItemRefused(f"an item is a JSON object, got {type(item).__name__}")
    size = len(json.dumps(item, ensure_ascii=False).encode())
    if size > MAX_ITEM_BYTES:
        raise ItemRefused(f"item of {size} bytes, must be at most {MAX_ITEM_BYTES}")
    if str(item.get("iKey", "")).lower() != instrumentation_key.lower():
        raise ItemRefused("Invalid instrumentation key")
    _text(item, "name", "Envelope", 1_024)
    time_generated = _time(item.get("time"), now)
    data = item.get("data")
    base = data.get("baseData") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(base, dict):
        raise ItemRefused(_required("data", "Envelope"))
    base_type = data.get("baseType")
    builder = {"EventData": _event, "MetricData": _metric, "MessageData": _message}.get(str(base_type))
    if builder is None:
        raise ItemRefused(f"baseType: got {base_type!r}, must be EventData, MetricData or MessageData")
    if base.get("ver") != 2:
        raise ItemRefused(f"ver: got {base.get('ver')!r}, must be 2")
    row: Row = {
        "TimeGenerated": time_generated,
        "_TimeReceived": now,
        "Properties": _properties(base.get("properties")),
        "IKey": item["iKey"],
        "ItemCount": 1,
        "ClientType": "PC",
        "ClientIP": "0.0.0.0",
        "SourceSystem": "Azure",
        "_IsBillable": "True",
        "_BilledSize": float(size),
    }
    tags = item.get("tags") or {}
    row |= {column: str(tags[tag]) for tag, column in _TAG_COLUMNS.items() if tag in tags}
    table, own = builder(base)
    return table, row | own


def _event(base: dict[str, Any]) -> tuple[str, Row]:
    name = _text(base, "name", "EventData", _MAX_NAME["EventData"])
    return "AppEvents", {"Name": name, "Measurements": _measurements(base.get("measurements"))}


def _metric(base: dict[str, Any]) -> tuple[str, Row]:
    metrics = base.get("metrics")
    if not isinstance(metrics, list) or not metrics or not isinstance(metrics[0], dict):
        raise ItemRefused(_required("metrics", "MetricData"))
    point = metrics[0]  # the service stores the first one only
    value = _number(point, "value")
    count = point.get("count")
    return "AppMetrics", {
        "Name": _text(point, "name", "DataPoint", _MAX_NAME["MetricData"]),
        "Sum": value,
        "ItemCount": int(count) if isinstance(count, int) and count > 0 else 1,
        "Min": _number(point, "min") if point.get("min") is not None else value,
        "Max": _number(point, "max") if point.get("max") is not None else value,
    }


def _message(base: dict[str, Any]) -> tuple[str, Row]:
    message = _text(base, "message", "MessageData", 32_768)
    level = base.get("severityLevel", 1)
    severity = _SEVERITIES.index(level) if level in _SEVERITIES else level
    if severity not in range(len(_SEVERITIES)):
        raise ItemRefused(f"severityLevel: got {level!r}, must be 0 to 4 or one of {', '.join(_SEVERITIES)}")
    measurements = _measurements(base.get("measurements"))
    return "AppTraces", {"Message": message, "SeverityLevel": severity, "Measurements": measurements}


def _required(name: str, kind: str) -> str:
    return f"109: Field '{name}' on type '{kind}' is required but missing or empty"


def _text(source: dict[str, Any], name: str, kind: str, limit: int) -> str:
    value = source.get(name)
    if not isinstance(value, str) or not value:
        raise ItemRefused(_required(name, kind))
    if len(value) > limit:
        raise ItemRefused(f"{name}: {len(value)} characters, must be at most {limit}")
    return value


def _number(source: dict[str, Any], name: str) -> float:
    value = source.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ItemRefused(f"{name}: got {value!r}, must be a finite number")
    return float(value)


def _properties(properties: Any) -> dict[str, str] | None:
    if properties is None:
        return None
    if not isinstance(properties, dict):
        raise ItemRefused(f"properties: got {type(properties).__name__}, must be an object")
    for key, value in properties.items():
        if not 0 < len(key) <= MAX_PROPERTY_KEY:
            raise ItemRefused(f"properties: key {key[:40]!r} must have 1 to {MAX_PROPERTY_KEY} characters")
        if not isinstance(value, str) or len(value) > MAX_PROPERTY_VALUE:
            got = f"{len(value)} characters" if isinstance(value, str) else type(value).__name__
            raise ItemRefused(
                f"properties.{key}: got {got}, must be a string of at most {MAX_PROPERTY_VALUE} characters"
            )
    return properties


def _measurements(measurements: Any) -> dict[str, float] | None:
    if measurements is None:
        return None
    if not isinstance(measurements, dict):
        raise ItemRefused(f"measurements: got {type(measurements).__name__}, must be an object")
    return {key: _number(measurements, key) for key in measurements}


def _time(text: Any, now: datetime) -> datetime:
    try:
        # The service takes seven digits of a second, Python six.
        moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
    except (TypeError, ValueError):
        raise ItemRefused(f"time: got {text!r}, must be an ISO 8601 time") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    # Older than 2 days or more than a day ahead: the time of arrival stands in.
    return moment if now - timedelta(days=2) <= moment <= now + timedelta(days=1) else now
