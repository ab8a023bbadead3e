"""Silences and maintenance: one object that keeps alerts, action or both from some VMs for a time.

It says who wants that, until when and why. Pure: what is in force at ``now`` is computed, never stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase

MAX_DURATION = timedelta(days=90)
MAX_TEXT_CHARS = 300
MAX_PATTERN_CHARS = 256  # the longest tag value that Azure takes


class Stops(StrEnum):
    """What a silence stops. Both together is maintenance: the VM counts as MAINTENANCE meanwhile."""

    ALERTS = "alerts"
    ACTION = "action"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Subject:
    """What a VM is known by: name, group (tag ``watchdog-group``, else resource group), tags (their names in
    lower case)."""

    name: str
    group: str
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Matcher:
    """Which VMs are meant: every given part must fit; names and groups may hold ``*`` and ``?``.

    ``tag`` is a name and a value pattern. An empty matcher fits every VM.
    """

    vm: str = ""
    group: str = ""
    tag: tuple[str, str] | None = None

    def fits(self, subject: Subject) -> bool:
        """Tell whether ``subject`` is meant; names are compared without regard to case, as ARM does."""
        if self.vm and not fnmatchcase(subject.name.lower(), self.vm.lower()):
            return False
        if self.group and not fnmatchcase(subject.group.lower(), self.group.lower()):
            return False
        if self.tag is None:
            return True
        value = subject.tags.get(self.tag[0].lower())
        return value is not None and fnmatchcase(value.lower(), self.tag[1].lower())

    def __str__(self) -> str:
        parts = [f"vm {self.vm}" if self.vm else "", f"group {self.group}" if self.group else ""]
        parts.append(f"tag {self.tag[0]}={self.tag[1]}" if self.tag else "")
        return ", ".join(part for part in parts if part) or "every VM"


@dataclass(frozen=True, slots=True)
class Silence:
    """``stops`` holds for the VMs that ``match`` fits, from ``starts_at`` until ``ends_at``."""

    id: str
    match: Matcher
    starts_at: datetime
    ends_at: datetime
    stops: Stops
    created_by: str
    why: str

    def is_active(self, now: datetime) -> bool:
        """Tell whether ``now`` lies within it."""
        return self.starts_at <= now < self.ends_at

    def __str__(self) -> str:
        return f"{self.why} (by {self.created_by}, until {self.ends_at:%Y-%m-%d %H:%M} UTC)"


@dataclass(frozen=True, slots=True)
class Quiet:
    """What is stopped for one VM now, and by which silence; None: nothing is."""

    alerts: Silence | None = None
    action: Silence | None = None
    maintenance: Silence | None = None


NOT_QUIET = Quiet()


def quiet(silences: Iterable[Silence], subject: Subject, now: datetime) -> Quiet:
    """Return what ``silences`` stop for ``subject`` at ``now``; of several, the one that ends last counts."""
    standing = [silence for silence in silences if silence.is_active(now) and silence.match.fits(subject)]
    if not standing:
        return NOT_QUIET
    alerts = action = maintenance = None
    for silence in sorted(standing, key=lambda one: one.ends_at):
        alerts = silence if silence.stops is not Stops.ACTION else alerts
        action = silence if silence.stops is not Stops.ALERTS else action
        maintenance = silence if silence.stops is Stops.BOTH else maintenance
    return Quiet(alerts, action, maintenance)


def silence_faults(silence: Silence) -> list[str]:
    """List what is unusable in ``silence``, one sentence each."""
    faults = []
    for name in ("created_by", "why"):
        text = getattr(silence, name)
        if not text.strip() or len(text) > MAX_TEXT_CHARS:
            faults.append(f"{name} must be 1 to {MAX_TEXT_CHARS} characters, has {len(text)}")
        elif not text.isprintable():
            faults.append(f"{name} must be one line of printable text, is {text!r}")
    for pattern in (silence.match.vm, silence.match.group, *(silence.match.tag or ())):
        if len(pattern) > MAX_PATTERN_CHARS:
            faults.append(
                f"match must hold at most {MAX_PATTERN_CHARS} characters a part, has {len(pattern)}"
            )
    if not silence.starts_at < silence.ends_at:
        faults.append(f"ends_at must be after starts_at, was {silence.ends_at.isoformat()}")
    elif silence.ends_at - silence.starts_at > MAX_DURATION:
        faults.append(f"a silence may last {MAX_DURATION.days} days at most; longer is an opt-out by tag")
    return faults
