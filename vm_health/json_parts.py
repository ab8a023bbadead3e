"""What the codecs share: values that are ready for JSON, and words that are read from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from vm_health.fields import Fields
from vm_health.model import Cause, Status

MAX_REASON_CHARS = 4_096


def read_status(fields: Fields, name: str = "status") -> Status:
    """Read a status, noting a fault where it is none."""
    return fields.choice(name, Status, ", ".join(Status)) or Status.UNKNOWN


def read_cause(fields: Fields, name: str = "cause") -> Cause:
    """Read a cause, noting a fault where it is none."""
    return fields.choice(name, Cause, "the known causes") or Cause.OK


def readable(text: str, max_chars: int) -> str:
    """Return the beginning of ``text`` in a form that decoding takes: half characters are replaced."""
    text = text[:max_chars]
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def dump(value: Any) -> str:
    """Return ``value`` as compact JSON in ASCII; moments become ISO 8601."""
    return json.dumps(value, separators=(",", ":"), default=_jsonable, allow_nan=False)


def plain(value: Any) -> dict[str, Any]:
    """Return a slotted dataclass's own fields, not copied: all that stands in them is immutable."""
    return {name: getattr(value, name) for name in value.__slots__}


def lean(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` without those that are empty, which is what decoding takes for absent ones."""
    return {name: value for name, value in values.items() if value}


def _jsonable(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")
