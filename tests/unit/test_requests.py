"""What changes a VM's state besides a look: answers of Azure, people's requests, disappearance."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import EXACT, VM_ID, a_report, an_incident, answers, at, evidence
from tests.story import Story, kinds
from vm_health.model import Cause, Status
from vm_health.requests import (
    Request,
    is_hung,
    on_absence,
    on_outcome,
    on_request,
    on_result,
)
from vm_health.state import (
    CommandRef,
    CommandResult,
    Lane,
    RestartUnit,
    StartKind,
    StartOutcome,
    UnitState,
    VmState,
)


def a_restart() -> tuple[VmState, RestartUnit]:
    """A state whose first attempt has just been decided, at second 10."""
    story = Story(EXACT)
    story.up(-60)
    story.down(0)
    decision = story.down(10)
    return decision.state, decision.restarts[0]


def test_a_started_command_is_remembered_with_its_lane() -> None:
    state, restart = a_restart()
    outcome = StartOutcome(StartKind.STARTED, "sent", Lane.ACTION, operation="/subscriptions/x/operations/1")
    after, event = on_outcome(state, restart, outcome, at(11))
    expected = CommandRef(restart.token, Lane.ACTION, "/subscriptions/x/operations/1")
    assert after.units["web.service"].command == expected
    assert (event.kind, event.detail["lane"]) == ("restart_sent", "action")


@pytest.mark.parametrize("kind", [kind for kind in StartKind if kind is not StartKind.STARTED])
def test_where_azure_refuses_nothing_is_waited_for_and_the_reason_is_kept(kind: StartKind) -> None:
    state, restart = a_restart()
    after, event = on_outcome(state, restart, StartOutcome(kind, "no, because"), at(11))
    unit = after.units["web.service"]
    assert (unit.command, unit.attempts, unit.not_before) == (None, 1, at(30))
    assert unit.held == "refused: no, because"
    assert (event.kind, event.detail["outcome"]) == ("restart_refused", kind)


@pytest.mark.parametrize(("asked", "due"), [(5, 30), (60, 71), (600, 611)])
def test_a_retry_after_moves_the_next_attempt_back_and_never_forth(asked: float, due: float) -> None:
    state, restart = a_restart()
    outcome = StartOutcome(StartKind.THROTTLED, "slowly", retry_after_seconds=asked)
    after, _ = on_outcome(state, restart, outcome, at(11))
    assert after.units["web.service"].not_before == at(due)


def test_the_reason_of_the_last_refusal_stands_where_the_circuit_opens() -> None:
    story = Story(replace(EXACT, max_attempts=1))
    story.up(-60)
    story.down(0)
    decision = story.down(10)
    outcome = StartOutcome(StartKind.BUSY, "another command is running")
    story.state, _ = on_outcome(story.state, decision.restarts[0], outcome, at(10))
    (event,) = [event for event in story.down(30).events if event.kind == "circuit_open"]
    assert "another command is running" in event.reason


def test_an_answer_for_an_older_token_changes_nothing() -> None:
    state, restart = a_restart()
    stale = replace(restart, token="older")
    after, _ = on_outcome(state, stale, StartOutcome(StartKind.FAILED, "no"), at(11))
    assert after == state


def test_a_result_ends_the_waiting_and_tells_what_the_vm_said() -> None:
    state, _ = a_restart()
    for succeeded, kind in ((True, "restart_done"), (False, "restart_failed")):
        after, event = on_result(state, "web.service", CommandResult(succeeded, "as said"), at(20))
        assert after.units["web.service"].command is None
        assert (event.kind, event.reason) == (kind, "web.service: as said")
    _, event = on_result(state, "web.service", CommandResult(False, "ended"), at(20), is_hung=True)
    assert event.kind == "restart_hung"


def test_a_command_hangs_after_five_minutes() -> None:
    state, _ = a_restart()
    unit = state.units["web.service"]
    assert not is_hung(unit, EXACT, at(310))
    assert is_hung(unit, EXACT, at(311))
    assert not is_hung(replace(unit, command=None), EXACT, at(10_000))


def test_a_persons_request_restarts_once_and_starts_the_backoff_over() -> None:
    state = VmState(Status.CRITICAL, Cause.SERVICE_DOWN, ("web.service",), since=at(0))
    tired = UnitState(attempts=6, circuit_open=True, last_attempt_at=at(0))
    state = replace(state, units={"web.service": tired, "db.service": tired})
    request = Request("web.service", "alice", "deployed a fix")
    decision = on_request(state, VM_ID, request, EXACT, at(100))
    assert [restart.unit for restart in decision.restarts] == ["web.service"]
    unit = decision.state.units["web.service"]
    assert (unit.attempts, unit.circuit_open, unit.not_before) == (1, False, at(120))
    assert decision.state.units["db.service"] == tired
    (event,) = decision.events
    assert event.kind == "requested"
    assert (event.detail["by"], event.detail["why"]) == ("alice", "deployed a fix")


def test_a_vm_that_is_gone_is_waited_for_then_resolved_then_forgotten() -> None:
    state = VmState(
        Status.CRITICAL,
        Cause.SERVICE_DOWN,
        ("web.service",),
        since=at(0),
        units={"web.service": UnitState(attempts=1)},
        incident=an_incident(told_at=at(0)),
    )
    first = on_absence(state, VM_ID, EXACT, at(100))
    assert first is not None
    assert (first.state.gone_since, first.state.outbox, first.events) == (at(100), (), ())
    waiting = on_absence(first.state, VM_ID, EXACT, at(699))
    assert waiting is not None
    assert waiting.state == first.state
    gone = on_absence(first.state, VM_ID, EXACT, at(700))
    assert gone is not None
    assert kinds(gone.events) == ["gone"]
    assert [notice.kind for notice in gone.state.outbox] == ["resolved"]
    assert gone.state.units == {}
    assert on_absence(gone.state, VM_ID, EXACT, at(760)) is None


def test_a_vm_that_comes_back_is_no_longer_gone() -> None:
    story = Story(EXACT)
    story.up(0)
    absent = on_absence(story.state, VM_ID, EXACT, at(60))
    assert absent is not None
    story.state = absent.state
    story.look(120, evidence(probe=answers(a_report()), telemetry=False))
    assert story.state.gone_since is None
