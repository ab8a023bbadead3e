"""Maintenance windows on the calendar, and the VM's own tag."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import NOW, at
from vm_health.silence import MAX_DURATION, Matcher, Stops, Subject, quiet, silence_faults
from vm_health.windows import (
    TAG_MAINTENANCE_UNTIL,
    MaintenanceWindow,
    TagSilence,
    tag_silence,
    window_faults,
)
from vm_watchdog import ports

SUNDAY = datetime(2026, 11, 22, tzinfo=UTC)
SUN, MON = 6, 0


def a_window(
    days: frozenset[int] = frozenset({SUN}),
    at_minute: int = 120,
    minutes: int = 120,
    name: str = "patching",
    why: str = "weekly patching",
) -> MaintenanceWindow:
    return MaintenanceWindow(name, Matcher(group="web"), at_minute, minutes, why, days)


def hours(number: float) -> timedelta:
    return timedelta(hours=number)


@pytest.mark.parametrize(
    ("window", "after_midnight_of_sunday", "active"),
    [
        (a_window(), hours(1.99), False),
        (a_window(), hours(2), True),
        (a_window(), hours(3.99), True),
        (a_window(), hours(4), False),
        (a_window(), hours(26), False),  # monday
        (a_window(), hours(24 * 7 + 2), True),
        (a_window(frozenset()), hours(26), True),
        (a_window(frozenset({SUN, MON})), hours(26), True),
        (a_window(at_minute=23 * 60), hours(24.5), True),  # across midnight, into monday
        (a_window(at_minute=23 * 60), hours(25), False),
        (a_window(at_minute=23 * 60), hours(0.5), False),  # saturday's evening is no start
        (a_window(frozenset({4}), 20 * 60, 60 * 60), hours(6), True),  # friday 20:00 for 60 hours
        (a_window(frozenset({4}), 20 * 60, 60 * 60), hours(32), False),
    ],
)
def test_when_a_window_is_open(
    window: MaintenanceWindow, after_midnight_of_sunday: timedelta, active: bool
) -> None:
    now = SUNDAY + after_midnight_of_sunday
    assert (window.silence_at(now) is not None) is active


def test_an_open_window_is_a_silence_with_a_name_and_an_end() -> None:
    silence = a_window(at_minute=23 * 60).silence_at(SUNDAY + hours(24.5))
    assert silence is not None
    assert silence.id == "window-patching"
    assert (silence.starts_at, silence.ends_at) == (SUNDAY + hours(23), SUNDAY + hours(25))
    assert str(silence) == "weekly patching (by the policy, until 2026-11-23 01:00 UTC)"
    assert silence.stops is Stops.BOTH
    assert quiet([silence], Subject("web-1", "web"), SUNDAY + hours(24.5)).maintenance == silence


def test_the_clock_of_a_window_is_utc_whatever_the_zone_of_now() -> None:
    now = (SUNDAY + hours(2.5)).astimezone(timezone(timedelta(hours=9)))
    assert a_window().silence_at(now) == a_window().silence_at(SUNDAY + hours(2.5)) is not None


def test_of_overlapping_starts_the_later_one_counts() -> None:
    window = a_window(frozenset({SUN, MON}), 0, 36 * 60)
    silence = window.silence_at(SUNDAY + hours(30))
    assert silence is not None
    assert silence.ends_at == SUNDAY + hours(24 + 36)


windows = st.builds(
    a_window,
    st.frozensets(st.integers(0, 6)),
    st.integers(0, 1439),
    st.integers(1, 10_079),
).filter(lambda window: not window_faults(window))


@given(windows, st.integers(0, 14 * 1440))
def test_a_window_is_open_exactly_in_the_minutes_that_it_names(
    window: MaintenanceWindow, minute: int
) -> None:
    now = SUNDAY + timedelta(minutes=minute)
    starts = (now - timedelta(minutes=back) for back in range(window.minutes))
    wanted = any(
        start.hour * 60 + start.minute == window.at_minute
        and (not window.days or start.weekday() in window.days)
        for start in starts
    )
    silence = window.silence_at(now)
    assert (silence is not None) is wanted
    assert silence is None or silence.is_active(now)


@given(windows)
def test_a_window_without_faults_is_closed_at_some_time_of_the_week(window: MaintenanceWindow) -> None:
    last_start = max(window.days or {6})
    ends = [
        SUNDAY + timedelta(days=1 + day, minutes=window.at_minute + window.minutes)
        for day in window.days or {last_start}
    ]
    assert any(window.silence_at(end) is None for end in ends)


@pytest.mark.parametrize(
    "window",
    [
        a_window(at_minute=0, minutes=1),
        a_window(at_minute=1439, minutes=10_079, name="x" * 63),
        a_window(frozenset(range(7)), minutes=1439),
    ],
)
def test_what_is_a_window(window: MaintenanceWindow) -> None:
    assert window_faults(window) == []


@pytest.mark.parametrize(
    ("window", "named"),
    [
        (a_window(name="a b"), "name must be 1 to 63 letters, digits, _ . or -, is 'a b'"),
        (a_window(at_minute=1440), "at must lie within the day, is minute 1440"),
        (a_window(frozenset({7})), "days must be weekdays from 0 to 6, are [7]"),
        (a_window(minutes=0), "minutes must be 1 to 10079, is 0"),
        (a_window(minutes=10_080), "minutes must be 1 to 10079, is 10080"),
        (a_window(frozenset(), minutes=1440), "minutes must be 1 to 1439, is 1440"),
        (a_window(frozenset({0, 2, 5}), minutes=3 * 1440), "minutes must be 1 to 4319, is 4320"),
        (a_window(why=" "), "why must be 1 to 300 characters"),
    ],
)
def test_what_is_no_window(window: MaintenanceWindow, named: str) -> None:
    (fault,) = window_faults(window)
    assert fault.startswith(named)


def tagged(text: str, name: str = "web-1", group: str = "web") -> Subject:
    return Subject(name, group, {TAG_MAINTENANCE_UNTIL: text})


@pytest.mark.parametrize(
    ("text", "until"),
    [
        ("2026-11-24T18:00Z", at(6 * 3600)),
        ("2026-11-24T18:00:00+00:00", at(6 * 3600)),
        (" 2026-11-24T20:00+02:00 ", at(6 * 3600)),
        ("2026-11-24", at(12 * 3600)),
        ("2026-11-30", at(6.5 * 86_400)),
    ],
)
def test_a_tag_silences_its_vm_until_then(text: str, until: datetime) -> None:
    subject = tagged(text)
    silence = tag_silence(subject, NOW).silence
    assert silence is not None
    assert silence.ends_at == until
    assert silence_faults(silence) == []
    assert quiet([silence], subject, NOW).maintenance == silence
    assert not silence.match.fits(tagged(text, "web-2"))
    assert not silence.match.fits(tagged(text, group="db"))


def test_a_tags_silence_is_the_same_at_every_look() -> None:
    subject = tagged("2026-11-24T18:00Z")
    assert tag_silence(subject, NOW) == tag_silence(subject, at(60))


def test_a_pattern_in_a_groups_name_fits_only_itself() -> None:
    """A tag's author must not silence other VMs by way of ``watchdog-group = *``."""
    silence = tag_silence(tagged("2026-11-25", group="w[e]*?"), NOW).silence
    assert silence is not None
    assert silence.match.fits(tagged("", group="W[E]*?"))
    assert not silence.match.fits(tagged("", group="web"))
    assert not silence.match.fits(tagged("", group="wexy"))


@pytest.mark.parametrize("text", ["2026-11-24T12:00Z", "2026-11-23", "2001-01-01T00:00:00+01:00"])
def test_a_tag_of_the_past_means_nothing(text: str) -> None:
    assert tag_silence(tagged(text), NOW) == TagSilence()


def test_no_tag_means_nothing() -> None:
    assert tag_silence(Subject("web-1", "web"), NOW) == TagSilence()


@pytest.mark.parametrize(
    "text",
    ["", "tomorrow", "2026-11-24T18:00", "2026-13-01", "24.11.2026", "9999-12-31", "0001-01-01T00:00+23:00"],
)
def test_a_tag_that_cannot_be_read_is_a_fault_and_no_silence(text: str) -> None:
    found = tag_silence(tagged(text), NOW)
    assert found.silence is None
    assert found.fault == (
        "tag watchdog-maintenance-until must be an ISO 8601 time with an offset such as 2026-11-24T18:00Z,"
        f" or a date, is {text!r}: not silenced"
    )


def test_a_tag_too_far_ahead_is_a_fault_and_no_silence() -> None:
    limit = NOW + MAX_DURATION
    assert tag_silence(tagged(limit.isoformat()), NOW).silence is not None
    found = tag_silence(tagged((limit + timedelta(seconds=1)).isoformat()), NOW)
    assert found.silence is None
    assert found.fault.startswith(
        "tag watchdog-maintenance-until must be at most 90 days ahead, is '2027-02-22"
    )


@given(st.text(max_size=300))
def test_whatever_a_tag_holds_is_a_silence_nothing_or_one_short_fault(text: str) -> None:
    found = tag_silence(tagged(text), NOW)
    assert len(found.fault) < 700
    assert not (found.fault and found.silence)


def test_the_tag_has_one_name() -> None:
    assert ports.TAG_MAINTENANCE_UNTIL == TAG_MAINTENANCE_UNTIL
