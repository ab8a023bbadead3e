"""The rungs above restarting a unit: the whole VM, then people."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import EXACT, UNREACHABLE, a_report, answers, at, evidence
from tests.story import Story, kinds, seconds
from vm_health.backoff import BackoffPolicy
from vm_health.model import Evidence
from vm_health.policy import Policy
from vm_health.state import Hold, VmActionKind

# One attempt, and its circuit opens 20 s later: the ladder begins at second 30.
ONE_TRY = replace(EXACT, max_attempts=1, reminder_seconds=1e6)
BOTH = replace(ONE_TRY, ladder=(VmActionKind.RESTART, VmActionKind.REDEPLOY))
RESTART_ONLY = replace(ONE_TRY, ladder=(VmActionKind.RESTART,))


def down(vm: str = "web.service") -> Evidence:
    return evidence(probe=answers(a_report(down=vm)))


def a_vm_down_at_0(policy: Policy) -> Story:
    story = Story(policy)
    story.up(-60)
    story.look(0, down())
    return story


def actions(story: Story) -> list[tuple[str, float]]:
    return [
        (decision.vm_action.kind.value, seconds(decision.vm_action.at))
        for decision in story.decisions
        if decision.vm_action is not None
    ]


def keep_down(story: Story, start: int, end: int, every: int = 60) -> None:
    for moment in range(start, end, every):
        story.look(moment, down())


def test_without_a_ladder_people_come_when_the_circuit_opens() -> None:
    story = a_vm_down_at_0(ONE_TRY)
    keep_down(story, 10, 3_600, 10)
    assert actions(story) == []
    assert story.told == ["fired", "gave_up"]
    assert [seconds(notice.at) for notice in story.notices] == [0, 30]


def test_the_vm_is_restarted_once_and_people_come_when_that_has_not_helped() -> None:
    story = a_vm_down_at_0(RESTART_ONLY)
    keep_down(story, 10, 7_200, 10)
    assert actions(story) == [("vm-restart", 30.0)]
    assert story.told == ["fired", "gave_up"]
    assert seconds(story.notices[1].at) == 330, "five minutes are given to it"
    assert kinds(story.events).count("vm_action") == 1


def test_the_next_rung_waits_for_its_hour_and_people_hear_that_meanwhile() -> None:
    story = a_vm_down_at_0(BOTH)
    keep_down(story, 10, 2 * 3_600, 10)
    assert actions(story) == [("vm-restart", 30.0), ("redeploy", 3_630.0)]
    assert story.told == ["fired", "gave_up"]


def test_two_a_day_at_most_over_all_incidents() -> None:
    story = Story(replace(RESTART_ONLY, flapping_high_percent=0, flapping_low_percent=0))
    story.up(-60)
    for start in (0, 4_000, 8_000, 90_000):
        for moment in range(start, start + 1_000, 10):
            story.look(moment, down())
        for moment in range(start + 1_000, start + 2_000, 60):
            story.up(moment)
    assert actions(story) == [("vm-restart", 30.0), ("vm-restart", 4_030.0), ("vm-restart", 90_030.0)]


def test_a_vm_restart_that_helps_ends_it_all() -> None:
    story = a_vm_down_at_0(RESTART_ONLY)
    keep_down(story, 10, 60, 10)
    for moment in range(120, 1_000, 60):
        story.up(moment)
    assert story.state.units == {}
    assert story.told == ["fired", "resolved"]


def test_telemetry_from_before_the_vm_was_restarted_says_nothing_of_it() -> None:
    story = a_vm_down_at_0(RESTART_ONLY)
    keep_down(story, 10, 40, 10)
    assert story.state.off_at == at(30)


def test_a_silent_vm_is_restarted_after_its_agents_circuit_has_opened() -> None:
    policy = replace(RESTART_ONLY, backoff=BackoffPolicy((10.0,), 0.0))
    story = Story(policy)
    story.up(-60)
    for moment in range(0, 600, 10):
        story.look(moment, evidence(probe=UNREACHABLE))
    assert [restart.unit for restart in story.restarts] == ["vm-agent.service"]
    assert [kind for kind, _ in actions(story)] == ["vm-restart"]


@pytest.mark.parametrize(
    ("hold", "kind"),
    [
        (Hold("frozen", "frozen"), "held"),
        (Hold("budget", "1 of 3"), "held"),
        (Hold("observe", "only observing"), "would_vm_action"),
    ],
    ids=["frozen", "budget", "observe"],
)
def test_a_hold_keeps_the_vm_from_being_restarted_and_is_told_once(hold: Hold, kind: str) -> None:
    story = a_vm_down_at_0(RESTART_ONLY)
    story.look(10, down())
    for moment in (30, 60, 90):
        decision = story.look(moment, down(), hold)
        assert decision.vm_action is None
        assert decision.wants_action
    assert kinds(story.events).count(kind) == 1
    assert story.state.vm_actions == ()
    story.look(120, down())
    assert actions(story) == [("vm-restart", 120.0)]


def test_two_units_without_help_bring_one_vm_restart() -> None:
    story = Story(RESTART_ONLY)
    story.up(-60)
    for moment in range(0, 300, 10):
        report = a_report(down=("web.service", "db.service"))
        story.look(moment, evidence(probe=answers(report)))
    assert actions(story) == [("vm-restart", 30.0)]
