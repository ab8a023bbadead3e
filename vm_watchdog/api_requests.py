"""What people and programs may ask for, checked field by field: bodies and query parameters.

Everything is bounded, printable and known: a field that is not in the model is a fault, not ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from vm_health.names import is_unit_name, is_vm_id
from vm_health.silence import MAX_TEXT_CHARS, Matcher, Stops

MAX_HISTORY = 1_000
MAX_BY_CHARS = 100
_DURATION = re.compile(r"(?:([0-9]{1,4})d)?(?:([0-9]{1,4})h)?(?:([0-9]{1,4})m)?(?:([0-9]{1,5})s)?")
_DURATION_PATTERN = r"^([0-9]{1,4}d)?([0-9]{1,4}h)?([0-9]{1,4}m)?([0-9]{1,5}s)?$"
_WHEN = "a time with an offset, such as 2026-11-24T12:00:00Z, or a duration such as 30m, 2h or 1d12h"
When = datetime | timedelta


@dataclass(frozen=True, slots=True)
class FieldFault:
    """What is wrong with a field: ``problem`` says what it must be, ``was`` what it was, where that helps."""

    field: str
    problem: str
    was: str | None = None

    def __str__(self) -> str:
        return f"{self.field} {self.problem}" + ("" if self.was is None else f", was {self.was}")


def parse_when(value: object) -> When:
    """Read an aware time, or a duration such as ``2h``.

    Raises:
        ValueError: saying what it must be.
    """
    if isinstance(value, timedelta):
        return value
    if isinstance(value, datetime):
        found = value
    else:
        text = value if isinstance(value, str) else ""
        match = _DURATION.fullmatch(text)
        if text and match:
            days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
            return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        try:
            # In a query an unescaped "+" is a space: the offset then, for nothing else has one in the end.
            found = datetime.fromisoformat(re.sub(r" ([0-9][0-9]:[0-9][0-9])$", r"+\1", text))
        except ValueError:
            raise ValueError(f"must be {_WHEN}") from None
    if found.tzinfo is None:
        raise ValueError(f"must be {_WHEN}")
    try:
        return found.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"must be {_WHEN}") from None


def ahead(when: When, now: datetime) -> datetime:
    """Return the moment that is meant, a duration counted forward from ``now``."""
    return now + when if isinstance(when, timedelta) else when


def back(when: When | None, now: datetime) -> datetime | None:
    """Return the moment that is meant, a duration counted back from ``now``."""
    return now - when if isinstance(when, timedelta) else when


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable characters on one line")
    return text


def _rule(fits: Callable[[str], bool], must: str) -> AfterValidator:
    def check(text: str) -> str:
        if text and not fits(text):
            raise ValueError(f"must be {must}")
        return text

    return AfterValidator(check)


def _unit(text: str) -> str:
    if not is_unit_name(text):
        raise ValueError("must be a systemd unit's full name, such as web.service")
    return text


def _vm_id(text: str) -> str:
    if not is_vm_id(text):
        raise ValueError("must be the ARM id of a virtual machine")
    return text


def _fits(pattern: str) -> Callable[[str], bool]:
    return lambda text: re.fullmatch(pattern, text, re.ASCII) is not None


_TEXT = (StringConstraints(strip_whitespace=True), AfterValidator(_printable))
WhenField = Annotated[
    datetime | timedelta,
    BeforeValidator(parse_when),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "string", "pattern": _DURATION_PATTERN, "minLength": 2},
            ],
            "description": f"{_WHEN[0].upper()}{_WHEN[1:]}.",
        }
    ),
]
Why = Annotated[str, *_TEXT, Field(min_length=1, max_length=MAX_TEXT_CHARS, description="Why; it is kept.")]
By = Annotated[
    str,
    *_TEXT,
    Field(
        max_length=MAX_BY_CHARS,
        description="Who asks. Where App Service authentication is on, the signed-in name counts instead.",
    ),
]
Unit = Annotated[
    str,
    Field(max_length=255, description="A systemd unit's full name, such as web.service."),
    AfterValidator(_unit),
]
VmId = Annotated[
    str,
    Field(max_length=400, description="The full ARM id, where name and group are not enough."),
    AfterValidator(str.lower),
    _rule(is_vm_id, "the ARM id of a virtual machine"),
]
Group = Annotated[
    str,
    Field(max_length=256, description="The VM's group (tag watchdog-group) or resource group."),
    AfterValidator(_printable),
]
_VmPattern = Annotated[
    str,
    Field(max_length=64, description="A VM's name; may hold * and ?."),
    _rule(_fits(r"[\w.*?-]+"), "a VM's name, with * and ? as wildcards"),
]
_GroupPattern = Annotated[
    str,
    Field(max_length=256, description="A group's name; may hold * and ?."),
    AfterValidator(_printable),
]
_TagPattern = Annotated[
    str,
    Field(max_length=512, description="A tag as name=value; the value may hold * and ?."),
    AfterValidator(_printable),
    _rule(_fits(r"[^=*?]+=[^=].*"), "a tag as name=value"),
]


class Input(BaseModel):
    """Base of all that comes from outside."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @classmethod
    def cross_faults(cls, values: Mapping[str, Any]) -> list[FieldFault]:
        """List what is wrong with ``values`` together; they are as they came, so anything may stand there."""
        return []


class SilenceRequest(Input):
    """Keep alerts, action or both from some VMs for a time. Every matcher that is given must fit."""

    MATCHERS: ClassVar[tuple[str, ...]] = ("vm", "group", "tag")

    vm: _VmPattern = ""
    group: _GroupPattern = ""
    tag: _TagPattern = ""
    all: StrictBool = Field(default=False, description="Every VM; then without vm, group and tag.")
    starts_at: WhenField | None = Field(default=None, description="From when; from now if not given.")
    until: WhenField
    stops: Stops = Stops.ALERTS
    by: By = ""
    why: Why

    @property
    def matcher(self) -> Matcher:
        """Which VMs are meant."""
        name, _, value = self.tag.partition("=")
        return Matcher(self.vm, self.group, (name.lower(), value) if name else None)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        for fault in self.cross_faults(self.model_dump()):
            raise ValueError(str(fault))
        return self

    @classmethod
    def cross_faults(cls, values: Mapping[str, Any]) -> list[FieldFault]:
        """Silencing everything must be said: neither by giving no matcher nor by one that is all wildcard (a
        script's empty variable before a ``*``) does it happen."""
        given = [name for name in cls.MATCHERS if values.get(name)]
        wild = all(isinstance(values[name], str) and not _narrows(name, values[name]) for name in given)
        if values.get("all") is True and given:
            return [FieldFault("all", f"must not stand beside {', '.join(given)}")]
        if values.get("all") is not True and wild:
            return [
                FieldFault("vm", "or group or tag must say which VMs are meant; all=true means every one")
            ]
        return []


def _narrows(name: str, pattern: str) -> bool:
    return name == "tag" or pattern.strip("*?") != ""


class RestartRequest(Input):
    """Restart one unit now, under the same safety as the watchdog's own restarts."""

    unit: Unit
    why: Why
    by: By = ""
    group: Group = ""
    vm_id: VmId = ""


class ThawRequest(Input):
    """Overrule every freeze of the fleet for a time."""

    until: WhenField
    why: Why
    by: By = ""


class NudgeRequest(Input):
    """A VM tells that something changed on it. Only its id is read; what else an agent says is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    vm_id: Annotated[str, Field(max_length=400), AfterValidator(str.lower), AfterValidator(_vm_id)]


class NoQuery(Input):
    """No parameters."""


class FleetQuery(Input):
    """How the fleet is shown."""

    format: Literal["html", "json"] = "html"


class VmQuery(Input):
    """Which VM of several with the same name."""

    group: Group = ""
    vm_id: VmId = ""


class HistoryQuery(VmQuery):
    """Which part of the history. Durations count back from now."""

    limit: int = Field(default=100, ge=1, le=MAX_HISTORY)
    since: WhenField | None = None
    until: WhenField | None = None


class ByQuery(Input):
    """Who asks, where there is no body to say it in."""

    by: By = ""
