"""The watchdog and the agent's own repair: one at a time, and never neither."""

from __future__ import annotations

import pytest

from tests.builders import a_report, answers, at, evidence
from tests.story import Story
from vm_health.model import RepairSample, Status

UNIT = "web.service"


def look(story: Story, seconds: float, *, next_at: float | None, circuit_open: bool = False) -> None:
    not_before = None if next_at is None else at(seconds + next_at)
    repair = RepairSample(UNIT, 1, not_before, circuit_open)
    story.look(seconds, evidence(probe=answers(a_report(down=UNIT, repairs=(repair,)))))


def restarts(story: Story) -> int:
    return sum(len(decision.restarts) for decision in story.decisions)


def test_the_watchdog_holds_back_while_the_agent_is_at_it_and_people_hear_all_the_same() -> None:
    story = Story()
    for seconds in range(0, 300, 15):
        look(story, seconds, next_at=20)
    assert restarts(story) == 0
    assert story.state.status is Status.CRITICAL
    assert story.state.incident is not None
    assert "the VM's own agent is at it: attempt 2" in story.decisions[-1].reason


def test_when_the_agent_gave_up_the_watchdog_begins_with_its_first_wait() -> None:
    story = Story()
    look(story, 0, next_at=20)
    look(story, 60, next_at=None, circuit_open=True)
    look(story, 69, next_at=None, circuit_open=True)
    assert restarts(story) == 0
    look(story, 70, next_at=None, circuit_open=True)
    assert restarts(story) == 1


@pytest.mark.parametrize("next_at", [-61.0, 601.0, None], ids=["overdue", "too far ahead", "no plan"])
def test_a_plan_that_is_none_holds_nobody_back(next_at: float | None) -> None:
    story = Story()
    look(story, 0, next_at=next_at)
    look(story, 10, next_at=next_at)
    assert restarts(story) == 1
