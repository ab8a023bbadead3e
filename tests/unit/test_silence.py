"""Silences: whom they fit, what they stop, and what is no silence."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from tests.builders import NOW, at
from vm_health.silence import (
    MAX_DURATION,
    MAX_PATTERN_CHARS,
    MAX_TEXT_CHARS,
    NOT_QUIET,
    Matcher,
    Quiet,
    Silence,
    Stops,
    Subject,
    quiet,
    silence_faults,
)

WEB = Subject("web-1", "shop", {"env": "prod", "watchdog-group": "shop"})


EVERY_VM = Matcher()
IN_AN_HOUR = at(3600)


def a_silence(
    match: Matcher = EVERY_VM,
    stops: Stops = Stops.BOTH,
    starts_at: datetime = NOW,
    ends_at: datetime = IN_AN_HOUR,
    name: str = "s-1",
) -> Silence:
    return Silence(name, match, starts_at, ends_at, stops, "ops@example.com", "moving racks")


@pytest.mark.parametrize(
    ("match", "fits"),
    [
        (Matcher(), True),
        (Matcher(vm="web-1"), True),
        (Matcher(vm="WEB-1"), True),
        (Matcher(vm="web-?"), True),
        (Matcher(vm="web"), False),
        (Matcher(vm="*-1"), True),
        (Matcher(vm="web-[0-4]"), True),
        (Matcher(group="shop"), True),
        (Matcher(group="Sh*"), True),
        (Matcher(group="shops"), False),
        (Matcher(tag=("env", "prod")), True),
        (Matcher(tag=("ENV", "PR*")), True),
        (Matcher(tag=("env", "test")), False),
        (Matcher(tag=("owner", "*")), False),
        (Matcher(vm="web-*", group="shop", tag=("env", "prod")), True),
        (Matcher(vm="db-*", group="shop", tag=("env", "prod")), False),
        (Matcher(vm="web-*", group="db", tag=("env", "prod")), False),
        (Matcher(vm="web-*", group="shop", tag=("env", "test")), False),
    ],
)
def test_every_given_part_must_fit_whatever_its_case(match: Matcher, fits: bool) -> None:
    assert match.fits(WEB) is fits


@pytest.mark.parametrize(
    ("match", "text"),
    [
        (Matcher(), "every VM"),
        (Matcher("db-*", "shop", ("env", "prod")), "vm db-*, group shop, tag env=prod"),
        (Matcher(group="shop"), "group shop"),
    ],
)
def test_a_matcher_says_whom_it_means(match: Matcher, text: str) -> None:
    assert str(match) == text


@pytest.mark.parametrize(
    ("seconds", "active"), [(-1, False), (0, True), (3599, True), (3600, False), (3601, False)]
)
def test_a_silence_holds_from_its_start_to_just_before_its_end(seconds: float, active: bool) -> None:
    assert a_silence().is_active(at(seconds)) is active


def test_a_silence_says_who_until_when_and_why() -> None:
    assert str(a_silence()) == "moving racks (by ops@example.com, until 2026-11-24 13:00 UTC)"


@pytest.mark.parametrize(
    ("stops", "alerts", "action", "maintenance"),
    [
        (Stops.ALERTS, True, False, False),
        (Stops.ACTION, False, True, False),
        (Stops.BOTH, True, True, True),
    ],
)
def test_what_each_kind_stops(stops: Stops, alerts: bool, action: bool, maintenance: bool) -> None:
    silence = a_silence(stops=stops)
    wanted = Quiet(silence if alerts else None, silence if action else None, silence if maintenance else None)
    assert quiet([silence], WEB, NOW) == wanted


def test_alerts_and_action_from_two_silences_are_no_maintenance() -> None:
    alerts, action = a_silence(stops=Stops.ALERTS), a_silence(stops=Stops.ACTION, name="s-2")
    assert quiet([alerts, action], WEB, NOW) == Quiet(alerts, action, None)


def test_of_several_the_one_that_ends_last_counts() -> None:
    short, long = a_silence(ends_at=at(60)), a_silence(ends_at=at(600), name="s-2")
    for order in ([short, long], [long, short]):
        assert quiet(order, WEB, NOW) == Quiet(long, long, long)


@pytest.mark.parametrize(
    "silence",
    [a_silence(Matcher(vm="db-*")), a_silence(starts_at=at(1)), a_silence(starts_at=at(-9), ends_at=NOW)],
)
def test_one_of_others_or_of_another_time_stops_nothing(silence: Silence) -> None:
    assert quiet([silence], WEB, NOW) is NOT_QUIET


def test_no_silence_stops_nothing() -> None:
    assert quiet([], WEB, NOW) is NOT_QUIET


@pytest.mark.parametrize(
    "silence",
    [
        a_silence(ends_at=NOW + MAX_DURATION),
        a_silence(Matcher(vm="x" * MAX_PATTERN_CHARS)),
        replace(a_silence(), why="x" * MAX_TEXT_CHARS, created_by="x"),
    ],
)
def test_a_good_silence_has_no_faults(silence: Silence) -> None:
    assert silence_faults(silence) == []


@pytest.mark.parametrize(
    ("silence", "named"),
    [
        (replace(a_silence(), why="  "), "why must be 1 to 300 characters, has 2"),
        (replace(a_silence(), created_by="x" * 301), "created_by must be 1 to 300 characters, has 301"),
        (replace(a_silence(), why="a\nb"), "why must be one line of printable text, is 'a\\nb'"),
        (a_silence(ends_at=NOW), "ends_at must be after starts_at, was 2026-11-24T12:00:00+00:00"),
        (
            a_silence(ends_at=NOW + MAX_DURATION + timedelta(seconds=1)),
            "a silence may last 90 days at most; longer is an opt-out by tag",
        ),
        (
            a_silence(Matcher(tag=("env", "x" * (MAX_PATTERN_CHARS + 1)))),
            "match must hold at most 256 characters a part, has 257",
        ),
    ],
)
def test_what_is_no_silence(silence: Silence, named: str) -> None:
    assert silence_faults(silence) == [named]
