"""Reading untrusted JSON objects field by field, collecting every fault instead of stopping at the first."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeGuard, TypeVar

T = TypeVar("T")

MAX_TEXT_CHARS = 1_024
MAX_ITEMS = 500


def load_object(text: str, max_chars: int, faults: list[str]) -> dict[str, Any]:
    """Parse ``text`` as one JSON object; on any trouble note a fault and return an empty one."""
    if len(text) > max_chars:
        faults.append(f"must be at most {max_chars} characters, has {len(text)}")
        return {}
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        faults.append(f"must be JSON ({str(error)[:100]})")
        return {}
    if not isinstance(value, dict):
        faults.append(f"must be a JSON object, is {_kind(value)}")
        return {}
    return value


class Fields:
    """Typed access to one JSON object. Every reader notes its fault in ``faults`` and returns a stand-in,
    so that one pass reports all; callers must look at ``faults`` before they use what they read."""

    def __init__(self, value: dict[str, Any], path: str, faults: list[str]) -> None:
        self._value = value
        self._path = path
        self.faults = faults

    def fault(self, name: str, must: str) -> None:
        """Note that field ``name`` is not what it ``must`` be."""
        self.faults.append(f"{self._path}{name} must be {must}, is {_shown(self._value.get(name))}")

    def text(self, name: str, default: str | None = None, max_chars: int = MAX_TEXT_CHARS) -> str:
        """Read a string; absent is a fault unless there is a ``default``."""
        value = self._value.get(name, default)
        if not _is_text(value, max_chars):
            self.fault(name, f"a string of at most {max_chars} characters")
            return ""
        return value

    def number(self, name: str, default: float | None = None, low: float = 0.0) -> float:
        """Read a finite number not below ``low``."""
        value = self._value.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value) or value < low:
            self.fault(name, f"a number not below {low:g}")
            return low
        return float(value)

    def optional_number(self, name: str, low: float = -math.inf) -> float | None:
        """Read a finite number, or None where it is null or absent."""
        return None if self._value.get(name) is None else self.number(name, low=low)

    def whole(self, name: str, default: int | None = None) -> int:
        """Read a whole number from 0 to 2^63-1."""
        value = self._value.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
            self.fault(name, "a whole number not below 0")
            return 0
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """Read a boolean."""
        value = self._value.get(name, default)
        if not isinstance(value, bool):
            self.fault(name, "true or false")
            return default
        return value

    def optional_flag(self, name: str) -> bool | None:
        """Read a boolean, or None where it is null or absent."""
        return None if self._value.get(name) is None else self.flag(name)

    def moment(self, name: str) -> datetime:
        """Read an ISO 8601 time with an offset, as aware UTC."""
        found = self.optional_moment(name)
        if found is None:
            self.fault(name, "an ISO 8601 time with an offset")
            return datetime(1970, 1, 1, tzinfo=UTC)
        return found

    def optional_moment(self, name: str) -> datetime | None:
        """Read an ISO 8601 time with an offset, or None where it is null or absent."""
        value = self._value.get(name)
        if value is None:
            return None
        try:
            found = datetime.fromisoformat(value)
            if found.tzinfo is not None:
                return found.astimezone(UTC)
        except (TypeError, ValueError, OverflowError):
            pass
        self.fault(name, "an ISO 8601 time with an offset")
        return None

    def choice(self, name: str, parse: Callable[[str], T], choices: str) -> T | None:
        """Read a string that ``parse`` (an enum) knows."""
        try:
            return parse(self._value[name])
        except (KeyError, ValueError, TypeError):
            self.fault(name, f"one of {choices}")
            return None

    def child(self, name: str) -> Fields | None:
        """Read a nested object, or None where it is null or absent."""
        value = self._value.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.fault(name, "an object")
            return None
        return Fields(value, f"{self._path}{name}.", self.faults)

    def children(self, name: str, max_items: int = MAX_ITEMS) -> list[Fields]:
        """Read a list of objects of bounded length; absent is empty."""
        value = self._value.get(name, [])
        if not isinstance(value, list) or len(value) > max_items:
            self.fault(name, f"a list of at most {max_items} objects")
            return []
        found = []
        for index, item in enumerate(value):
            if isinstance(item, dict):
                found.append(Fields(item, f"{self._path}{name}[{index}].", self.faults))
            else:
                self.faults.append(f"{self._path}{name}[{index}] must be an object, is {_kind(item)}")
        return found

    def texts(self, name: str, max_items: int = MAX_ITEMS) -> tuple[str, ...]:
        """Read a list of strings of bounded length; absent is empty."""
        value = self._value.get(name, [])
        if (
            not isinstance(value, list)
            or len(value) > max_items
            or not all(_is_text(item, MAX_TEXT_CHARS) for item in value)
        ):
            self.fault(name, f"a list of at most {max_items} strings")
            return ()
        return tuple(value)


def _is_text(value: object, max_chars: int) -> TypeGuard[str]:
    """Tell whether ``value`` is text that any other system can take: JSON allows half a character (a lone
    surrogate), which no page, row or log can be encoded with."""
    if not isinstance(value, str) or len(value) > max_chars:
        return False
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _shown(value: object) -> str:
    # Nested values are named, not shown: what could just be parsed may be too deep to be written again.
    return _kind(value) if isinstance(value, list | dict) else json.dumps(value)[:60]


def _finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _kind(value: object) -> str:
    return {"NoneType": "null", "str": "a string", "list": "a list", "dict": "an object"}.get(
        type(value).__name__, type(value).__name__
    )
