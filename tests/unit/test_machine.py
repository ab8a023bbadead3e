"""The state machine of one VM: whole stories, second by second."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import (
    EXACT,
    NO_PROBE,
    UNREACHABLE,
    VM_ID,
    a_report,
    a_snapshot,
    a_unit,
    an_incident,
    answers,
    at,
    evidence,
)
from tests.story import Story, kinds, seconds
from vm_health.backoff import BackoffPolicy
from vm_health.incident import Telling, follow_incident
from vm_health.machine import step
from vm_health.model import Cause, PowerState, ProbeOutcome, ProbeResult, Status
from vm_health.names import is_token
from vm_health.policy import Policy, policy_faults
from vm_health.repairs import AGENT_UNIT
from vm_health.state import CommandRef, Lane, LookAgain, RestartUnit, UnitState, VmState


def healthy(policy: Policy | None = None) -> Story:
    """A VM that has been found healthy and reached at second -60."""
    story = Story(policy or EXACT)
    story.up(-60)
    return story


# --- the story of a kill ---------------------------------------------------------------------------------


def test_a_kill_from_detection_to_resolved() -> None:
    story = healthy()
    assert (story.state.status, story.told) == (Status.HEALTHY, [])

    seen = story.down(0)
    assert story.state.status is Status.CRITICAL
    assert story.told == ["fired"]
    assert seen.restarts == ()
    assert seen.look_again == LookAgain(at(10))
    assert "attempt 1 of 6 in 10 s" in seen.reason

    assert story.down(9.999).restarts == ()
    tried = story.down(10)
    assert [(restart.unit, restart.attempt) for restart in tried.restarts] == [("web.service", 1)]
    assert tried.look_again == LookAgain(at(15))

    first = story.up(15)
    assert story.state.status is Status.CRITICAL
    assert first.look_again == LookAgain(at(20))
    assert story.told == ["fired"]

    story.up(20)
    assert story.state.status is Status.HEALTHY
    assert story.told == ["fired", "resolved"]
    assert story.state.incident is None
    assert len(story.restarts) == 1


def test_what_people_are_told_of_a_kill() -> None:
    story = healthy()
    story.down(0)
    story.down(10)
    story.up(15)
    story.up(20)
    fired, resolved = story.notices
    assert fired.incident_id == resolved.incident_id
    assert (fired.status, fired.cause, fired.subjects) == (
        Status.CRITICAL,
        Cause.SERVICE_DOWN,
        ("web.service",),
    )
    assert "web.service is down" in fired.reason
    assert (resolved.status, resolved.cause, resolved.attempts) == (Status.HEALTHY, Cause.SERVICE_DOWN, 1)
    assert (seconds(resolved.opened_at), seconds(resolved.at)) == (0, 20)


def test_the_history_of_a_kill() -> None:
    story = healthy()
    story.down(0)
    story.down(10)
    story.up(15)
    story.up(20)
    story.up(700)
    assert kinds(story.events) == [
        "transition",
        "transition",
        "backoff",
        "restart",
        "transition",
        "backoff_reset",
    ]
    assert all(event.reason for event in story.events)
    restart = story.events[3]
    assert restart.detail["token"] == story.restarts[0].token
    assert "web.service is down" in restart.detail["evidence"]


def test_it_comes_back_by_itself_within_the_first_wait() -> None:
    """systemd's own Restart= did it: nothing is restarted, and the next fall waits 10 s again."""
    story = healthy()
    story.down(0)
    story.up(5)
    story.up(10)
    assert story.restarts == []
    assert story.told == ["fired", "resolved"]
    assert dict(story.state.units) == {}
    assert story.down(20).look_again == LookAgain(at(30))


# --- backoff, circuit, reset -----------------------------------------------------------------------------


def test_attempts_come_at_10_20_40_80_160_300_seconds_then_the_circuit_opens() -> None:
    story = healthy()
    story.follow(0, 2_000)
    assert story.attempt_times() == [10, 30, 70, 150, 310, 610]
    assert [restart.attempt for restart in story.restarts] == [1, 2, 3, 4, 5, 6]
    assert story.told == ["fired", "gave_up"]
    gave_up = story.notices[-1]
    assert (gave_up.attempts, seconds(gave_up.at)) == (6, 910)
    assert story.state.units["web.service"].circuit_open
    assert kinds(story.events).count("circuit_open") == 1


def test_after_the_circuit_opened_people_still_hear_that_it_is_up() -> None:
    story = healthy()
    story.follow(0, 1_000)
    story.up(1_100)
    story.up(1_105)
    assert story.told == ["fired", "gave_up", "resolved"]


def test_no_attempt_is_announced_that_never_comes() -> None:
    story = healthy()
    story.follow(0, 1_000)
    story.up(1_010)  # by hand
    story.down(1_015)
    story.follow(1_016, 2_000)
    assert len(story.restarts) == 6
    assert not [decision.reason for decision in story.decisions if "attempt 7" in decision.reason]


def test_an_opened_circuit_restarts_nothing_however_often_it_is_looked_at() -> None:
    story = healthy()
    story.follow(0, 1_000)
    for moment in range(1_000, 90_000, 600):
        assert story.down(moment).restarts == ()


def test_a_unit_that_falls_again_before_it_was_stable_goes_on_where_it_was() -> None:
    story = healthy()
    story.down(0)
    story.down(10)
    story.up(15)
    story.up(20)
    assert story.down(100).look_again == LookAgain(at(120))
    assert story.down(119).restarts == ()
    assert [restart.attempt for restart in story.down(120).restarts] == [2]


@pytest.mark.parametrize(("up_until", "wait"), [(614.9, 20), (615, 10)])
def test_ten_stable_minutes_start_the_waits_over(up_until: float, wait: float) -> None:
    """Up since the look at 15."""
    story = healthy()
    story.down(0)
    story.down(10)
    story.up(15)
    for moment in (75, 300, up_until):
        story.up(moment)
    again = story.down(700)
    assert again.look_again == LookAgain(at(700 + wait))


def test_time_spent_switched_off_is_not_stable_time() -> None:
    story = healthy()
    story.down(0)
    story.down(10)
    story.up(15)
    story.power(20, PowerState.DEALLOCATED)
    story.up(1_000)
    assert "backoff_reset" not in kinds(story.events)
    assert story.down(1_060).look_again == LookAgain(at(1_080))


@pytest.mark.parametrize("age", [10.0, 10.001, 60.0])
def test_a_report_older_than_the_attempt_triggers_no_other(age: float) -> None:
    story = healthy()
    story.down(0)
    story.down(10)
    for moment in (40, 50, 60, 120):
        old = step(
            story.state,
            evidence(
                snapshot=a_snapshot(a_report(down="web.service"), age=moment - 10 + 0.1, now=at(moment))
            ),
            story.policy,
            at(moment),
        )
        assert old.restarts == ()
        assert "older than the last attempt" in old.reason
        assert old.look_again is not None
    assert story.down(60, age=60 - 10 + age - 10).restarts == ()
    assert [restart.attempt for restart in story.down(61).restarts] == [2]


def test_a_report_older_than_the_attempt_does_not_count_as_recovery() -> None:
    story = healthy()
    story.down(0)
    story.down(10)
    story.up(12, age=5)
    assert story.state.units["web.service"].up_since is None
    assert story.state.units["web.service"].not_before == at(30)


def test_jitter_moves_the_moment_and_both_sides_agree_on_it() -> None:
    policy = Policy(backoff=BackoffPolicy(jitter_fraction=0.1))
    moments = set()
    for name in ("web-1", "web-2", "web-3"):
        found = evidence(probe=answers(a_report(down="web.service")), vm_id=VM_ID.replace("web-1", name))
        once, again = (step(VmState(), found, policy, at(0)) for _ in range(2))
        assert once == again
        assert once.look_again is not None
        moments.add(seconds(once.look_again.at))
    assert len(moments) == 3
    assert all(9 <= moment <= 11 for moment in moments)


# --- who may be restarted --------------------------------------------------------------------------------


def test_observe_mode_restarts_nothing_counts_nothing_and_says_once_what_it_would_have_done() -> None:
    story = healthy(replace(EXACT, may_act=False))
    story.follow(0, 2_000)
    assert story.restarts == []
    assert kinds(story.events).count("restart") == 0
    assert story.attempt_times("would_restart") == [10]
    assert story.told == ["fired"], "nothing was tried, so nobody is told that trying has failed"
    unit = story.state.units["web.service"]
    assert (unit.attempts, unit.command, unit.circuit_open) == (0, None, False)
    assert unit.held.startswith("observe: ")


@pytest.mark.parametrize("load_state", ["not-found", "masked", "bad-setting", "error"])
def test_a_unit_that_is_not_loaded_is_told_and_never_restarted(load_state: str) -> None:
    story = healthy()
    for moment in (0, 10, 60, 600):
        report = a_report(units=[a_unit(down=True, load_state=load_state)])
        decision = story.look(moment, evidence(probe=answers(report)))
        assert decision.restarts == ()
        assert decision.look_again is None
    assert story.told == ["fired"]


def test_of_two_units_down_only_the_loaded_one_is_restarted() -> None:
    units = [a_unit("gone.service", down=True, load_state="not-found"), a_unit("web.service", down=True)]
    story = healthy()
    for moment in (0, 10):
        story.look(moment, evidence(probe=answers(a_report(units=units))))
    assert [restart.unit for restart in story.restarts] == ["web.service"]


def test_two_units_have_their_own_waits_and_tokens() -> None:
    story = healthy()
    story.down(0, "web.service")
    story.down(5, "web.service", "db.service")
    assert [restart.unit for restart in story.down(10, "web.service", "db.service").restarts] == [
        "web.service"
    ]
    assert [restart.unit for restart in story.down(15, "web.service", "db.service").restarts] == [
        "db.service"
    ]
    story.down(30, "web.service", "db.service")
    both = story.down(40, "web.service", "db.service")
    assert [restart.unit for restart in both.restarts] == ["db.service"]
    tokens = [restart.token for restart in story.restarts]
    assert len(set(tokens)) == len(tokens) == 4
    assert all(map(is_token, tokens))


def test_two_units_restarted_in_one_look_have_two_tokens() -> None:
    story = healthy()
    story.down(0, "web.service", "db.service")
    restarts = story.down(10, "web.service", "db.service").restarts
    assert [restart.unit for restart in restarts] == ["web.service", "db.service"]
    assert len({restart.token for restart in restarts}) == 2


def test_one_units_recovery_does_not_stop_the_others_repair() -> None:
    story = healthy()
    story.down(0, "web.service", "db.service")
    story.down(10, "web.service", "db.service")
    decision = story.look(30, evidence(probe=answers(a_report(up="web.service", down="db.service"))))
    assert [(restart.unit, restart.attempt) for restart in decision.restarts] == [("db.service", 2)]
    assert story.state.units["web.service"].not_before is None


@pytest.mark.parametrize(
    "found",
    [
        evidence(PowerState.STOPPED, probe=answers(a_report(down="web.service"))),
        evidence(PowerState.STARTING, probe=answers(a_report(down="web.service"))),
        evidence(PowerState.UNKNOWN, probe=answers(a_report(down="web.service"))),
        evidence(),
        evidence(telemetry=False),
        evidence(probe=UNREACHABLE),
        evidence(probe=answers()),
        evidence(probe=answers(a_report(down="web.service", age=301))),
        evidence(snapshot=a_snapshot(a_report(down="web.service"), age=301 - 10)),
    ],
    ids=[
        "stopped",
        "starting",
        "power?",
        "nothing",
        "no query",
        "silent once",
        "up",
        "old sample",
        "old snapshot",
    ],
)
def test_a_due_attempt_needs_power_and_fresh_evidence(found: object) -> None:
    story = healthy()
    story.down(0)
    assert story.look(10, found).restarts == ()  # type: ignore[arg-type]


# --- stopped, maintenance, unknown -----------------------------------------------------------------------


def test_a_stopped_vm_cancels_what_was_planned_and_resolves() -> None:
    story = healthy()
    story.down(0)
    story.power(5, PowerState.STOPPED)
    assert story.state.status is Status.STOPPED
    assert story.told == ["fired", "resolved"]
    assert story.state.units["web.service"].not_before is None
    assert story.power(10, PowerState.STOPPED).restarts == ()
    story.power(11, PowerState.RUNNING)
    assert story.down(100).look_again == LookAgain(at(110))
    assert story.restarts == []


def test_maintenance_leaves_the_incident_open_and_restarts_nothing() -> None:
    story = healthy()
    story.down(0)
    for moment in (10, 60, 600):
        assert story.power(moment, PowerState.STARTING).restarts == ()
    assert story.state.status is Status.MAINTENANCE
    assert story.told == ["fired"]
    assert story.state.incident is not None
    story.up(700)
    story.up(705)
    assert story.told == ["fired", "resolved"]


def test_missing_data_never_resolves() -> None:
    story = healthy()
    story.down(0)
    for moment in range(5, 100, 5):
        story.blind(moment)
    assert story.state.status is Status.UNKNOWN
    assert story.state.incident is not None
    assert story.told == ["fired"]
    story.up(100)
    story.up(105)
    assert story.told == ["fired", "resolved"]


def test_power_unknown_never_resolves() -> None:
    story = healthy()
    story.down(0)
    for moment in range(5, 60, 5):
        assert story.power(moment, PowerState.UNKNOWN).restarts == ()
    assert story.state.incident is not None


# --- soft and hard ---------------------------------------------------------------------------------------


def warning(story: Story, moment: float, disk: float = 85) -> None:
    story.look(moment, evidence(probe=answers(a_report(disk=disk)), snapshot=a_snapshot(now=at(moment))))


def test_a_warning_counts_at_the_second_look() -> None:
    story = healthy()
    warning(story, 0)
    assert (story.state.status, story.state.soft_status, story.told) == (Status.HEALTHY, Status.WARNING, [])
    warning(story, 60)
    assert (story.state.status, story.told) == (Status.WARNING, ["fired"])
    assert story.state.since == at(60)


def test_a_warning_seen_once_is_forgotten() -> None:
    story = healthy()
    for moment in range(0, 600, 120):
        warning(story, moment)
        story.up(moment + 60)
    assert story.told == []
    assert story.state.soft_looks == 0


def test_looks_that_disagree_do_not_add_up() -> None:
    story = healthy()
    warning(story, 0)
    story.look(60, evidence(probe=answers(a_report(memory=95)), snapshot=a_snapshot(now=at(60))))
    assert story.state.status is Status.HEALTHY


@pytest.mark.parametrize(("confirm_down", "confirm_up"), [(1, 1), (2, 2), (3, 4)])
def test_confirmations_are_settings(confirm_down: int, confirm_up: int) -> None:
    story = healthy(replace(EXACT, confirm_down=confirm_down, confirm_up=confirm_up))
    for look in range(1, confirm_down + 1):
        assert story.state.status is Status.HEALTHY
        warning(story, look * 60)
    assert story.state.status is Status.WARNING
    for look in range(1, confirm_up + 1):
        assert story.state.status is Status.WARNING
        story.up(1_000 + look * 60)
    assert story.state.status is Status.HEALTHY


def test_the_first_look_ever() -> None:
    """Healthy at once and silently; down at once and aloud; doubtful at the second look."""
    assert (new := Story()).up(0).state.status is Status.HEALTHY
    assert new.told == []
    (new := Story()).down(0)
    assert new.told == ["fired"]
    new = Story()
    new.blind(0)
    assert (new.told, new.state.since) == ([], None)
    new.blind(60)
    assert new.state.status is Status.UNKNOWN
    assert new.told == [], "a query that fails is the fleet's matter, told once and not once a VM"
    new = Story()
    for moment in (0, 60):
        new.look(moment, evidence(probe=NO_PROBE))
    assert new.told == [], "a VM that has just appeared may still be starting its agent"
    new.look(120, evidence(probe=NO_PROBE))
    assert (new.told, new.state.cause) == (["fired"], Cause.NO_SECOND_WITNESS)


def test_a_status_that_stays_keeps_its_since_and_renews_its_reason() -> None:
    story = healthy()
    warning(story, 0, disk=85)
    warning(story, 60, disk=86)
    warning(story, 120, disk=87)
    assert story.state.since == at(60)
    assert "87.0 %" in story.state.reason
    assert story.told == ["fired"]


# --- a silent VM -----------------------------------------------------------------------------------------


def test_a_silent_vm_needs_three_looks_and_then_its_agent_is_restarted() -> None:
    story = healthy()
    for moment in (0, 60):
        story.silent(moment)
        assert (story.state.status, story.told) == (Status.HEALTHY, [])
    third = story.silent(120)
    assert story.state.cause is Cause.VM_SILENT
    assert story.told == ["fired"]
    assert third.look_again == LookAgain(at(130))
    assert [restart.unit for restart in story.silent(130).restarts] == [AGENT_UNIT]
    assert AGENT_UNIT == "vm-agent.service"


def test_a_silent_vm_that_comes_back_resolves_and_starts_over() -> None:
    story = healthy()
    for moment in (0, 60, 120, 130):
        story.silent(moment)
    story.up(140)
    story.up(145)
    assert story.told == ["fired", "resolved"]
    story.up(145 + 600)
    assert dict(story.state.units) == {}


def test_a_vm_that_was_never_reached_is_not_silent() -> None:
    """No route from the function: one witness is missing, so nothing is done."""
    story = Story()
    for moment in range(0, 600, 60):
        assert story.silent(moment).restarts == ()
    assert (story.state.status, story.state.cause) == (Status.UNKNOWN, Cause.NO_SECOND_WITNESS)
    assert "never reached" in story.state.reason


def test_a_vm_that_was_never_reached_is_healthy_by_its_telemetry() -> None:
    story = Story()
    for moment in (0, 60):
        story.look(moment, evidence(probe=UNREACHABLE, snapshot=a_snapshot(now=at(moment))))
    assert story.state.status is Status.HEALTHY


@pytest.mark.parametrize("outcome", [ProbeOutcome.OK, ProbeOutcome.UNHEALTHY])
def test_any_answer_is_a_route(outcome: ProbeOutcome) -> None:
    decision = step(VmState(), evidence(probe=ProbeResult(outcome, "", a_report())), Policy(), at(0))
    assert decision.state.was_reached


def test_the_endpoint_of_a_report_is_remembered() -> None:
    story = healthy()
    story.look(0, evidence(snapshot=a_snapshot(a_report(endpoint="http://10.0.0.4:8080"))))
    story.look(60, evidence())
    assert story.state.endpoint == "http://10.0.0.4:8080"


def test_silence_while_a_unit_is_down_does_not_restart_the_unit_on_old_news() -> None:
    story = healthy()
    story.down(0)
    for moment in (10, 15, 20):
        story.silent(moment)
    restarted = {restart.unit for moment in range(30, 600, 10) for restart in story.silent(moment).restarts}
    assert restarted == {AGENT_UNIT}


# --- looking again ---------------------------------------------------------------------------------------


def test_a_look_is_not_asked_for_twice() -> None:
    story = healthy()
    assert story.down(0).look_again == LookAgain(at(10))
    for moment in (1, 5, 9.5):
        assert story.down(moment).look_again is None


def test_a_look_that_was_missed_is_asked_for_again() -> None:
    story = healthy()
    story.down(0)
    story.down(10)
    assert story.state.next_look_at == at(15)
    assert story.down(20).look_again == LookAgain(at(30))


def test_an_earlier_look_is_asked_for_even_while_a_later_one_is_pending() -> None:
    story = healthy()
    for moment in (0, 10, 30, 70):
        story.down(moment)
    assert story.down(75).look_again == LookAgain(at(150))
    assert story.up(80).look_again == LookAgain(at(85))


def test_a_quiet_vm_asks_for_nothing() -> None:
    story = healthy()
    for moment in (0, 60, 120):
        decision = story.up(moment)
        assert (decision.look_again, decision.restarts, decision.events) == (None, (), ())


# --- notices ---------------------------------------------------------------------------------------------


def test_the_same_look_decided_twice_says_the_same() -> None:
    """A crash between saving and sending: the next instance must repeat itself to the letter."""
    story = healthy()
    found = evidence(probe=answers(a_report(down="web.service")))
    assert step(story.state, found, story.policy, at(0)) == step(story.state, found, story.policy, at(0))


def test_what_was_saved_but_not_sent_stays_in_the_outbox() -> None:
    story = healthy()
    unsent = step(
        story.state, evidence(probe=answers(a_report(down="web.service"))), story.policy, at(0)
    ).state
    later = step(unsent, evidence(probe=answers(a_report(down="web.service"))), story.policy, at(3)).state
    assert [notice.key for notice in later.outbox] == [notice.key for notice in unsent.outbox]


def test_keys_differ_between_incidents_and_kinds() -> None:
    story = healthy(replace(EXACT, flapping_high_percent=0, flapping_low_percent=0))
    for start in (0, 1_000, 2_000):
        story.down(start)
        story.up(start + 3)
        story.up(start + 6)
    assert story.told == ["fired", "resolved"] * 3
    assert len({notice.key for notice in story.notices}) == 6
    assert len({notice.incident_id for notice in story.notices}) == 3


def test_a_second_unit_in_an_open_incident_fires_again_and_once() -> None:
    story = healthy()
    story.down(0, "web.service")
    for moment in (5, 7, 9):
        story.down(moment, "web.service", "db.service")
    assert story.told == ["fired", "fired"]
    first, second = story.notices
    assert first.incident_id == second.incident_id
    assert first.key != second.key
    assert set(second.subjects) == {"web.service", "db.service"}


def test_the_same_units_taking_turns_do_not_fire_forever() -> None:
    story = healthy()
    for moment in range(0, 60, 6):
        story.down(moment, "web.service")
        story.down(moment + 3, "db.service")
    assert story.told == ["fired", "fired"]


def test_a_warning_that_gets_worse_fires_again() -> None:
    story = healthy()
    warning(story, 0)
    warning(story, 60)
    story.down(120)
    assert story.told == ["fired", "fired"]
    assert [notice.status for notice in story.notices] == [Status.WARNING, Status.CRITICAL]
    assert len({notice.incident_id for notice in story.notices}) == 1


def test_a_critical_that_becomes_a_warning_neither_fires_nor_resolves() -> None:
    story = healthy()
    story.down(0)
    for moment in (5, 65, 125):
        warning(story, moment)
    assert story.state.status is Status.WARNING
    assert story.told == ["fired"]


def test_giving_up_in_the_look_that_opens_the_incident_is_told_too() -> None:
    state = VmState(Status.CRITICAL, Cause.SERVICE_DOWN, ("web.service",), "down", since=at(0))
    told = follow_incident(state, state, Telling(VM_ID, at(0), 6, ("web.service",)))
    assert told.incident is not None
    assert [notice.kind for notice in told.outbox] == ["fired", "gave_up"]
    assert len({notice.key for notice in told.outbox}) == 2


def test_an_incident_that_nobody_was_told_of_is_not_resolved() -> None:
    state = VmState(Status.HEALTHY, since=at(0))
    assert follow_incident(state, state, Telling(VM_ID, at(0))) == state
    untold = replace(state, incident=an_incident(told_at=None))
    assert follow_incident(untold, untold, Telling(VM_ID, at(0))) == state


def test_maintenance_keeps_the_incident_as_it_is() -> None:
    state = VmState(Status.MAINTENANCE, since=at(0), incident=an_incident())
    assert follow_incident(state, state, Telling(VM_ID, at(0))) == state


# --- policy ----------------------------------------------------------------------------------------------


def test_the_default_policy_is_usable() -> None:
    assert policy_faults(Policy()) == []


@pytest.mark.parametrize(
    "name",
    ["confirm_down", "confirm_up", "confirm_silent", "max_attempts"],
)
def test_counts_of_zero_are_faults(name: str) -> None:
    (fault,) = policy_faults(replace(Policy(), **{name: 0}))
    assert fault.startswith(f"{name} must be 1 or more")


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 1e300])
@pytest.mark.parametrize("name", ["snapshot_max_age_seconds", "stable_after_seconds", "verify_after_seconds"])
def test_seconds_that_no_clock_can_add_are_faults(name: str, value: float) -> None:
    (fault,) = policy_faults(replace(Policy(), **{name: value}))
    assert fault.startswith(f"{name} must be above 0")


def test_a_pending_command_is_remembered_by_its_token() -> None:
    story = healthy()
    story.down(0)
    story.down(10)
    (restart,) = story.restarts
    assert restart == RestartUnit("web.service", 1, restart.token)
    assert story.state.units["web.service"] == UnitState(
        attempts=1, not_before=at(30), last_attempt_at=at(10), command=CommandRef(restart.token, Lane.NONE)
    )


def test_no_probe_and_fresh_telemetry_is_enough_to_restart() -> None:
    """Power and snapshot are two witnesses."""
    story = healthy()
    for moment in (0, 10):
        snapshot = a_snapshot(a_report(down="web.service"), age=1, received_age=0, now=at(moment))
        decision = story.look(moment, evidence(probe=NO_PROBE, snapshot=snapshot))
    assert len(decision.restarts) == 1
