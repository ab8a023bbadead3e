"""Maintenance that is planned: windows that come back every week, and a VM's own tag. Both become silences.

Pure: what is in force at ``now`` is computed from the calendar (UTC), nothing is remembered.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from vm_health.silence import MAX_DURATION, Matcher, Silence, Stops, Subject, silence_faults

TAG_MAINTENANCE_UNTIL = "watchdog-maintenance-until"
MAX_SHOWN_CHARS = 60
_DAY_MINUTES = 1440
_WEEK_DAYS = 7
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True)
class MaintenanceWindow:
    """A silence that comes back.

    Args:
        days: weekdays on which it starts, Monday is 0; empty is every day.
        at_minute: when it starts, in minutes after midnight UTC.
        minutes: how long it lasts; it may cross midnight.
        created_by: where it is written down.
    """

    name: str
    match: Matcher
    at_minute: int
    minutes: int
    why: str
    days: frozenset[int] = frozenset()
    stops: Stops = Stops.BOTH
    created_by: str = "the policy"

    def silence_at(self, now: datetime) -> Silence | None:
        """Return the silence that this window means at ``now``, None outside of it."""
        now = now.astimezone(UTC)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        for back in range(_WEEK_DAYS + 1):  # the newest start first: of overlapping ones, it ends last
            starts_at = midnight + timedelta(days=-back, minutes=self.at_minute)
            silence = Silence(
                f"window-{self.name}",
                self.match,
                starts_at,
                starts_at + timedelta(minutes=self.minutes),
                self.stops,
                self.created_by,
                self.why,
            )
            if (not self.days or starts_at.weekday() in self.days) and silence.is_active(now):
                return silence
        return None


def window_faults(window: MaintenanceWindow) -> list[str]:
    """List what is unusable in ``window``, one sentence each."""
    faults = []
    if not _NAME.fullmatch(window.name):
        faults.append(f"name must be 1 to 63 letters, digits, _ . or -, is {window.name[:MAX_SHOWN_CHARS]!r}")
    if not 0 <= window.at_minute < _DAY_MINUTES:
        faults.append(f"at must lie within the day, is minute {window.at_minute}")
    if not window.days <= frozenset(range(_WEEK_DAYS)):
        faults.append(f"days must be weekdays from 0 to 6, are {sorted(window.days)}")
    longest = _longest_gap(window.days) * _DAY_MINUTES
    if not 0 < window.minutes < longest:
        faults.append(
            f"minutes must be 1 to {longest - 1}, is {window.minutes}:"
            " a window that never ends is an opt-out by tag"
        )
        return faults
    start = datetime(2000, 1, 1, tzinfo=UTC)
    example = Silence(
        window.name,
        window.match,
        start,
        start + timedelta(minutes=window.minutes),
        window.stops,
        window.created_by,
        window.why,
    )
    return faults + silence_faults(example)


@dataclass(frozen=True, slots=True)
class TagSilence:
    """What the tag ``watchdog-maintenance-until`` of one VM means now: a silence, nothing, or a fault."""

    silence: Silence | None = None
    fault: str = ""


_NO_TAG = TagSilence()


def tag_silence(subject: Subject, now: datetime) -> TagSilence:
    """Read the tag of ``subject``: an ISO 8601 time with an offset, or a date (to the end of that day, UTC).

    A time that has passed means nothing. One that can't be read or lies too far ahead is a fault, and the VM
    is not silenced: a slip of the pen must not leave it unwatched. The silence is meant for this VM alone.
    """
    text = subject.tags.get(TAG_MAINTENANCE_UNTIL)
    if text is None:
        return _NO_TAG
    until = _moment(text.strip())
    if until is None:
        return _tag_fault("an ISO 8601 time with an offset such as 2026-11-24T18:00Z, or a date", text)
    if until - now > MAX_DURATION:
        return _tag_fault(f"at most {MAX_DURATION.days} days ahead", text)
    if until <= now:
        return _NO_TAG
    # The start is not known. This one is the same at every look, and within what a silence may last.
    silence = Silence(
        f"tag-{subject.name.lower()}",
        Matcher(vm=_literal(subject.name), group=_literal(subject.group)),
        until - MAX_DURATION,
        until,
        Stops.BOTH,
        f"tag {TAG_MAINTENANCE_UNTIL}",
        "maintenance by the VM's own tag",
    )
    return TagSilence(silence)


def _moment(text: str) -> datetime | None:
    try:
        if _DATE.fullmatch(text):
            return datetime.fromisoformat(text).replace(tzinfo=UTC) + timedelta(days=1)
        found = datetime.fromisoformat(text)
        return None if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _tag_fault(must: str, text: str) -> TagSilence:
    return TagSilence(
        fault=f"tag {TAG_MAINTENANCE_UNTIL} must be {must}, is {text[:MAX_SHOWN_CHARS]!r}: not silenced"
    )


def _literal(text: str) -> str:
    """Return the pattern that fits exactly ``text``, whatever a tag's author put into it."""
    return re.sub(r"([*?\[])", r"[\1]", text)


def _longest_gap(days: frozenset[int]) -> int:
    """Return the most days from one start to the next."""
    starts = sorted(days or range(_WEEK_DAYS))
    return max(
        after - before for before, after in zip(starts, [*starts[1:], starts[0] + _WEEK_DAYS], strict=True)
    )
