"""The words of the policy file as tables: which fields stand where, and what each must be.

Most of it follows from the dataclasses of the policy; only what is written differently is named here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from vm_health.fleet import SafetyPolicy
from vm_health.policy import Policy
from vm_health.policy_book import SPELLINGS, policy_values
from vm_health.rules import Thresholds
from vm_health.settings_table import unknown_names
from vm_health.silence import MAX_TEXT_CHARS, Stops
from vm_health.state import VmActionKind

MAX_NUMBER = 10**12
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")

Kind = Callable[[Any], Any]  # returns the value, or raises ValueError with what it must be


@dataclass(frozen=True, slots=True)
class Field:
    """One field: ``target`` is where its value belongs (a path in the policy), ``read`` what it must be."""

    target: str
    read: Kind
    required: bool = False


def a_whole_number(value: Any) -> int:
    """A whole number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_NUMBER:
        raise ValueError("a whole number, 0 or more")
    return value


def a_number(value: Any) -> float:
    """A number that is not negative: TOML also knows nan, inf and integers of any length."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_NUMBER:
        raise ValueError("a number, 0 or more")
    return float(value)


def numbers(value: Any) -> tuple[float, ...]:
    """A list of numbers."""
    try:
        return tuple(a_number(item) for item in a_list(value))
    except ValueError:
        raise ValueError("a list of numbers, 0 or more") from None


def a_list(value: Any) -> list[Any]:
    """A list of anything."""
    if not isinstance(value, list):
        raise ValueError("a list")  # noqa: TRY004 - one error for all kinds
    return value


def text(value: Any) -> str:
    """A text in one line that is not empty."""
    if not isinstance(value, str) or not 1 <= len(value.strip()) <= MAX_TEXT_CHARS or not value.isprintable():
        raise ValueError(f"a text of 1 to {MAX_TEXT_CHARS} printable characters")
    return value.strip()


def words(known: Mapping[str, Any]) -> Kind:
    """Return the kind "list of some of ``known``"."""

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) and item in known for item in value):
            raise ValueError("a list of any of " + ", ".join(known))
        return tuple(known[item] for item in value)

    return read


def word(known: Mapping[str, Any]) -> Kind:
    """Return the kind "one of ``known``"."""

    def read(value: Any) -> Any:
        if not isinstance(value, str) or value not in known:
            raise ValueError("one of " + ", ".join(known))
        return known[value]

    return read


def clock(value: Any) -> int:
    """A time of day; returns the minutes after midnight."""
    found = _CLOCK.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('a time of day (UTC) as text, such as "02:00"')
    return int(found[1]) * 60 + int(found[2])


def tag_pattern(value: Any) -> tuple[str, str]:
    """A tag's name and the pattern of its value, with ``=`` between."""
    name, equals, pattern = value.partition("=") if isinstance(value, str) else ("", "", "")
    if not (equals and name.strip() and pattern.strip()):
        raise ValueError('a tag and its value such as "env=prod"')
    return name.strip().lower(), pattern.strip()


def _like(target: str, default: Any) -> Field:
    """Return the field that takes the kind of number that its default is."""
    return Field(target, a_whole_number if isinstance(default, int) else a_number)


POLICY_FIELDS: Mapping[str, Field] = {
    **{
        SPELLINGS.get(path, path): _like(path, value)
        for path, value in policy_values(Policy())
        if not path.startswith("thresholds.")
    },
    "backoff_seconds": Field("backoff.steps_seconds", numbers),
    "ladder": Field("ladder", words({kind.value: kind for kind in VmActionKind})),
    "on_stale_heartbeat": Field("restart_on_stale_heartbeat", word({"alert": False, "restart": True})),
}
THRESHOLD_FIELDS: Mapping[str, Field] = {
    own.name: _like(f"thresholds.{own.name}", getattr(Thresholds(), own.name)) for own in fields(Thresholds)
}
SAFETY_FIELDS: Mapping[str, Field] = {
    own.name: _like(own.name, getattr(SafetyPolicy(), own.name)) for own in fields(SafetyPolicy)
}
MATCH_FIELDS: Mapping[str, Field] = {
    "vm": Field("vm", text),
    "group": Field("group", text),
    "tag": Field("tag", tag_pattern),
}
WINDOW_FIELDS: Mapping[str, Field] = {
    "name": Field("name", text, required=True),
    "days": Field("days", words({day: index for index, day in enumerate(DAYS)})),
    "at": Field("at_minute", clock, required=True),
    "minutes": Field("minutes", a_whole_number, required=True),
    "stops": Field("stops", word({stops.value: stops for stops in Stops})),
    "why": Field("why", text, required=True),
}


@dataclass(slots=True)
class Reader:
    """Reads tables by their fields, noting every fault with its path. ``unread`` are the names of fields
    that could not be read: what is said of their values afterwards would be said of a stand-in."""

    faults: list[str] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)

    def values(
        self, table: Mapping[str, Any], known: Mapping[str, Field], path: str, also: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Return what ``table`` gives, by target; names ``also`` may stand there and are left alone."""
        self.faults += unknown_names(
            (f"{path}.{name}" for name in table), [f"{path}.{name}" for name in (*known, *also)]
        )
        found: dict[str, Any] = {}
        for name, one in known.items():
            if name in table:
                try:
                    found[one.target] = one.read(table[name])
                except ValueError as error:
                    self.unread.add(name)
                    self.faults.append(f"{path}.{name} must be {error}, is {_shown(table[name])}")
            elif one.required:
                self.unread.add(name)
                self.faults.append(f"{path}.{name} must be set")
        return found

    def table(self, parent: Mapping[str, Any], name: str, path: str = "") -> dict[str, Any]:
        """Return the table ``name`` of ``parent``, an empty one where there is none."""
        value = parent.get(name, {})
        if isinstance(value, dict):
            return value
        self.faults.append(f"{path}{name} must be a table, is {_shown(value)}")
        return {}

    def tables(self, parent: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
        """Return the tables of the list ``name``; what is none of them is left out."""
        value = parent.get(name, [])
        if isinstance(value, list) and all(isinstance(item, dict) for item in value):
            return value
        self.faults.append(f"{name} must be a list of tables ([[{name}]]), is {_shown(value)}")
        return []


def _shown(value: Any) -> str:
    return repr(value)[:100]
