"""What keeps a due attempt from being made, and what people hear meanwhile."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import EXACT, a_report, answers, at, evidence
from tests.story import Story, kinds
from vm_health.model import Evidence
from vm_health.state import Hold

FROZEN = Hold("frozen", "all action is frozen: half of the fleet is down")
SILENCED = Hold("silenced", "action is silenced: release")
BUDGET = Hold("budget", "1 of 10 VMs may be in restart at once")


def down() -> Evidence:
    return evidence(probe=answers(a_report(down="web.service")))


def a_vm_down_at_0() -> Story:
    story = Story(EXACT)
    story.up(-60)
    story.look(0, down())
    return story


@pytest.mark.parametrize("hold", [FROZEN, SILENCED, BUDGET], ids=lambda hold: hold.kind)
def test_a_held_attempt_is_not_made_not_counted_and_told_once_in_history(hold: Hold) -> None:
    story = a_vm_down_at_0()
    decisions = [story.look(moment, down(), hold) for moment in (10, 25, 60, 120)]
    assert story.restarts == []
    assert all(decision.wants_action for decision in decisions)
    assert kinds(story.events).count("held") == 1
    unit = story.state.units["web.service"]
    assert (unit.attempts, unit.not_before, unit.command) == (0, at(10), None)
    assert unit.held == f"{hold.kind}: {hold.reason}"
    assert hold.reason in decisions[-1].reason


def test_when_the_hold_ends_the_attempt_is_made_at_once_and_is_the_first() -> None:
    story = a_vm_down_at_0()
    story.look(10, down(), FROZEN)
    (restart,) = story.look(300, down()).restarts
    assert restart.attempt == 1
    assert story.state.units["web.service"].not_before == at(320)
    assert story.state.units["web.service"].held == ""


def test_another_hold_is_another_line_of_history() -> None:
    story = a_vm_down_at_0()
    story.look(10, down(), FROZEN)
    story.look(70, down(), SILENCED)
    story.look(80, down(), SILENCED)
    held = [event.detail["held_by"] for event in story.events if event.kind == "held"]
    assert held == ["frozen", "silenced"]


def test_a_vm_without_a_slot_looks_again_soon_and_a_frozen_one_at_the_next_tick() -> None:
    story = a_vm_down_at_0()
    looks = story.look(10, down(), BUDGET).look_again
    assert looks is not None
    assert looks.at == at(25)
    story = a_vm_down_at_0()
    assert story.look(10, down(), FROZEN).look_again is None


def test_a_hold_does_not_keep_the_backoff_from_running_or_the_unit_from_recovering() -> None:
    story = Story(EXACT)
    story.up(-60)
    story.look(0, down(), FROZEN)
    assert story.state.units["web.service"].not_before == at(10)
    story.up(5)
    story.up(6)
    assert story.state.units == {}


def test_the_circuit_opens_while_held_for_that_is_no_action() -> None:
    story = a_vm_down_at_0()
    story.follow(10, 320)
    assert len(story.restarts) == 5
    story.policy = replace(EXACT, max_attempts=5)
    story.look(700, down(), FROZEN)
    assert story.state.units["web.service"].circuit_open
    assert "gave_up" in story.told


# --- silenced alerts -------------------------------------------------------------------------------------


def test_what_happens_in_a_silence_is_told_after_it_if_it_is_still_true() -> None:
    story = Story(EXACT)
    story.up(-60)
    story.look(0, down(), is_silenced=True)
    story.look(600, down(), is_silenced=True)
    assert story.told == []
    assert story.state.incident is not None
    story.look(660, down())
    assert story.told == ["fired"]
    assert story.notices[0].opened_at == at(0)


def test_what_came_and_went_in_a_silence_is_never_told() -> None:
    story = Story(EXACT)
    story.up(-60)
    story.look(0, down(), is_silenced=True)
    for moment in (5, 10):
        story.look(moment, evidence(probe=answers(), telemetry=False), is_silenced=True)
    story.up(60)
    assert story.told == []
    assert story.state.incident is None


def test_a_resolution_of_what_was_told_before_is_told_in_a_silence_too() -> None:
    story = a_vm_down_at_0()
    for moment in (5, 10):
        report = a_report()
        story.look(moment, evidence(probe=answers(report), telemetry=False), is_silenced=True)
    assert story.told == ["fired", "resolved"]


def test_giving_up_in_a_silence_is_told_after_it() -> None:
    story = Story(replace(EXACT, max_attempts=1))
    story.up(-60)
    for moment in (0, 10, 30, 90):
        story.look(moment, down(), is_silenced=True)
    assert story.told == []
    story.look(150, down())
    assert story.told == ["fired", "gave_up"]
    story.look(210, down())
    assert story.told == ["fired", "gave_up"]


# --- reminders -------------------------------------------------------------------------------------------


def test_an_incident_is_told_again_every_four_hours() -> None:
    story = Story(replace(EXACT, max_attempts=1))
    story.up(-60)
    for minute in range(9 * 60):
        story.look(minute * 60, down())
    assert story.told == ["fired", "gave_up", "reminder", "reminder"]
    keys = [notice.key for notice in story.notices]
    assert len(set(keys)) == len(keys)
    first, second = (notice.at for notice in story.notices if notice.kind == "reminder")
    assert (second - first).total_seconds() == 4 * 3600


def test_a_new_cause_of_the_same_severity_is_news_and_its_return_is_not() -> None:
    story = a_vm_down_at_0()
    full = evidence(probe=answers(a_report(disk=95)))
    for moment in (60, 120):
        story.look(moment, full)
    assert [notice.cause for notice in story.notices] == ["service_down", "disk_usage"]
    for moment in (180, 240):
        story.look(moment, down())
    for moment in (300, 360):
        story.look(moment, full)
    assert story.told == ["fired", "fired"]
