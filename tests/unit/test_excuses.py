"""When a VM is left alone: maintenance, deployments, Azure's own work, start-up; and who this machine is."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.builders import (
    EXACT,
    UNREACHABLE,
    a_report,
    a_snapshot,
    a_unit,
    answers,
    at,
    evidence,
)
from tests.story import Story, kinds
from vm_health.model import (
    Cause,
    DeployLock,
    Evidence,
    HealthReport,
    HeartbeatSample,
    PowerState,
    ScheduledEvent,
    Status,
)
from vm_health.state import CommandRef, UnitState


def a_watched_vm() -> Story:
    story = Story(EXACT)
    story.up(-60)
    return story


def excused(report: HealthReport, **sample: object) -> HealthReport:
    return replace(report, sample=replace(report.sample, **sample))  # type: ignore[arg-type]


def test_maintenance_keeps_the_status_from_being_judged_and_cancels_what_was_planned() -> None:
    story = a_watched_vm()
    story.down(0)
    found = evidence(probe=answers(a_report(down="web.service")))
    kept = replace(found, maintenance="release (by alice, until 14:00 UTC)")
    decision = story.look(10, kept)
    assert decision.restarts == ()
    assert story.state.status is Status.MAINTENANCE
    assert "by alice" in story.state.reason
    assert story.state.units["web.service"].not_before is None
    story.look(60, found)
    assert story.state.units["web.service"].not_before == at(70), "after it the wait starts over"


def test_a_stopped_vm_is_stopped_in_maintenance_too_and_says_who_did_it() -> None:
    story = a_watched_vm()
    off = evidence(PowerState.DEALLOCATED)
    story.look(0, replace(off, maintenance="release", stopped_by="bob@contoso.com at 12:00 UTC"))
    assert story.state.status is Status.STOPPED
    assert "stopped by bob@contoso.com" in story.state.reason
    assert story.told == []


def test_azures_updating_is_maintenance_unless_it_is_the_watchdogs_own_command() -> None:
    story = a_watched_vm()
    updating = replace(evidence(probe=answers(a_report(down="web.service"))), is_updating=True)
    story.look(0, updating)
    assert (story.state.status, story.state.cause) == (Status.MAINTENANCE, Cause.VM_UPDATING)
    story = a_watched_vm()
    story.down(0)
    story.down(10)
    assert isinstance(story.state.units["web.service"].command, CommandRef)
    story.look(30, updating)
    assert story.state.status is Status.CRITICAL
    assert len(story.restarts) == 2


LOCKED = DeployLock(at(3_000), "release 1.2")
STARTED = ScheduledEvent("e-1", "Reboot", "Started")


@pytest.mark.parametrize(
    ("sample", "cause"),
    [
        ({"deploy_lock": LOCKED}, Cause.DEPLOY_LOCK),
        ({"scheduled_events": (STARTED,)}, Cause.SCHEDULED_EVENT),
        (
            {"scheduled_events": (replace(STARTED, status="Scheduled", not_before=at(-1)),)},
            Cause.SCHEDULED_EVENT,
        ),
    ],
    ids=["deploy lock", "event started", "event due"],
)
def test_what_the_vm_itself_excuses_is_maintenance(sample: dict[str, object], cause: Cause) -> None:
    story = a_watched_vm()
    report = excused(a_report(down="web.service"), **sample)
    story.look(0, evidence(probe=answers(report)))
    assert (story.state.status, story.state.cause) == (Status.MAINTENANCE, cause)
    assert story.told == []
    assert story.state.units == {}


@pytest.mark.parametrize(
    "sample",
    [
        {"deploy_lock": DeployLock(at(-1))},
        {"scheduled_events": (replace(STARTED, status="Scheduled", not_before=at(900)),)},
    ],
    ids=["lock expired", "event later"],
)
def test_what_is_over_or_not_yet_excuses_nothing(sample: dict[str, object]) -> None:
    story = a_watched_vm()
    story.look(0, evidence(probe=answers(excused(a_report(down="web.service"), **sample))))
    assert story.state.status is Status.CRITICAL


def test_a_vm_can_not_excuse_itself_for_ever() -> None:
    """A forgotten lock, or a VM that somebody has taken over, must not stay out of sight."""
    story = a_watched_vm()
    lock = DeployLock(at(10**6), "for ever")
    found = evidence(probe=answers(excused(a_report(down="web.service"), deploy_lock=lock)))
    for moment in range(0, 3_600, 60):
        story.look(moment, found)
        assert story.state.status is Status.MAINTENANCE
    story.look(3_600, found)
    assert story.state.status is Status.CRITICAL
    assert story.told == ["fired"]
    for moment in range(3_660, 9_000, 60):
        story.look(moment, found)
    assert story.state.status is Status.CRITICAL
    story.look(9_060, evidence(probe=answers(a_report(down="web.service"))))
    assert story.state.excused_since is None, "the next lock counts again"


# --- start-up --------------------------------------------------------------------------------------------


def starting(started: float, now: float) -> Evidence:
    unit = a_unit(active_state="activating", sub_state="start", main_pid=4711, started_at=at(started))
    return evidence(probe=answers(a_report(units=[unit], taken_at=at(now))))


def test_a_unit_inside_its_start_up_grace_is_neither_down_nor_up() -> None:
    story = a_watched_vm()
    story.look(0, starting(-5, 0))
    assert (story.state.status, story.told, story.state.units) == (Status.HEALTHY, [], {})
    story.look(60, starting(-5, 60))
    assert story.state.status is Status.CRITICAL


def test_a_restarted_unit_that_is_still_starting_is_not_restarted_again() -> None:
    """Waits are shorter than many starts: an attempt inside the grace would only begin the start again."""
    story = a_watched_vm()
    story.down(0)
    story.down(10)
    for moment in (15, 30, 50, 65):
        decision = story.look(moment, starting(10, moment))
        assert decision.restarts == ()
        assert story.state.status is Status.CRITICAL, "starting does not resolve either"
    assert story.told == ["fired"]
    assert [restart.attempt for restart in story.look(75, starting(10, 75)).restarts] == [2]


# --- hung services ---------------------------------------------------------------------------------------


def hung() -> Evidence:
    report = a_report()
    beat = HeartbeatSample("/run/web/heartbeat", 900.0, unit="web.service")
    return evidence(probe=answers(excused(report, heartbeats=(beat,))))


def test_a_stale_heartbeat_is_a_warning_and_restarts_nothing() -> None:
    story = a_watched_vm()
    for moment in range(0, 600, 60):
        story.look(moment, hung())
    assert (story.state.status, story.state.cause) == (Status.WARNING, Cause.HEARTBEAT_STALE)
    assert story.restarts == []


def test_a_stale_heartbeat_restarts_its_unit_where_the_policy_says_so() -> None:
    story = a_watched_vm()
    story.policy = replace(EXACT, restart_on_stale_heartbeat=True)
    story.look(0, hung())
    (restart,) = story.look(10, hung()).restarts
    assert restart.unit == "web.service"
    for moment in (15, 20):
        story.up(moment)
    assert story.state.status is Status.HEALTHY


# --- clocks ----------------------------------------------------------------------------------------------


def with_clock(behind: float, moment: float, *, probed: bool, **report: object) -> Evidence:
    """A VM whose clock is ``behind`` seconds behind, seen at ``moment``; telemetry took 5 s to arrive."""
    found = a_report(taken_at=at(moment - behind), **report)  # type: ignore[arg-type]
    snapshot = a_snapshot(found, age=behind + 10, received_age=5, now=at(moment))
    return evidence(probe=answers(found) if probed else UNREACHABLE, snapshot=snapshot)


def test_a_clock_that_is_behind_is_learned_from_the_endpoint_and_put_right() -> None:
    story = a_watched_vm()
    story.look(0, with_clock(900, 0, probed=True))
    assert story.state.clock_offset_seconds == 900
    assert story.state.status is Status.HEALTHY
    for moment in (60, 120, 180):
        story.look(moment, with_clock(900, moment, probed=False))
    assert story.state.cause is Cause.ENDPOINT_UNREACHABLE, "telemetry is fresh, whatever its clock says"


def test_a_clock_that_is_unknown_makes_telemetry_stale_and_the_reason_says_what_it_may_be() -> None:
    story = a_watched_vm()
    decision = story.look(60, with_clock(900, 60, probed=False))
    assert "held up, or the VM's clock is behind" in decision.reason


def test_telemetry_that_was_held_up_on_the_vm_is_old_though_it_has_just_arrived() -> None:
    story = a_watched_vm()
    old = a_snapshot(a_report(down="web.service"), age=3_600, received_age=1, now=at(0))
    story.look(0, evidence(snapshot=old, probe=answers(a_report())))
    assert story.state.status is Status.HEALTHY
    assert story.state.soft_cause is Cause.TELEMETRY_DELAYED


def test_a_clock_far_ahead_does_not_make_old_news_new() -> None:
    story = a_watched_vm()
    ahead = a_snapshot(a_report(down="web.service"), age=-86_400, received_age=3_600, now=at(0))
    assert story.look(0, evidence(snapshot=ahead, probe=UNREACHABLE)).restarts == ()
    assert "vm_silent" in str(story.state.soft_cause)


def test_a_clock_put_right_again_is_noticed_and_small_offsets_are_never_written_down() -> None:
    story = a_watched_vm()
    story.look(0, with_clock(900, 0, probed=True))
    story.look(60, with_clock(0, 60, probed=True))
    assert story.state.clock_offset_seconds == 0
    before = story.state
    story.look(120, with_clock(20, 120, probed=True))
    assert story.state == before


# --- which machine this is -------------------------------------------------------------------------------


def test_a_rebuilt_vm_starts_over() -> None:
    story = a_watched_vm()
    story.look(0, replace(evidence(probe=answers(a_report(down="web.service"))), instance_id="one"))
    story.look(10, replace(evidence(probe=answers(a_report(down="web.service"))), instance_id="one"))
    assert story.state.units["web.service"].attempts == 1
    decision = story.look(60, replace(evidence(probe=UNREACHABLE), instance_id="two"))
    assert "rebuilt" in kinds(decision.events)
    assert story.state.units == {}
    assert not story.state.was_reached, "a new machine may have another address"
    assert story.state.off_at == at(60)


def test_telemetry_of_the_machine_before_says_nothing_of_the_new_one() -> None:
    story = a_watched_vm()
    story.look(0, replace(evidence(probe=answers()), instance_id="one"))
    old = a_snapshot(a_report(down="web.service"), age=5, received_age=4, now=at(60))
    decision = story.look(60, replace(evidence(snapshot=old), instance_id="two"))
    assert decision.state.units == {}
    assert story.state.status is not Status.CRITICAL


def test_telemetry_from_before_the_vm_was_switched_off_is_no_evidence() -> None:
    story = a_watched_vm()
    story.power(0, PowerState.DEALLOCATED)
    old = a_snapshot(a_report(down="web.service"), age=61, received_age=60, now=at(60))
    decision = story.look(60, evidence(snapshot=old))
    assert decision.state.units == {}
    new = a_snapshot(a_report(down="web.service"), age=20, received_age=19, now=at(120))
    assert "web.service" in story.look(120, evidence(snapshot=new)).state.units


@pytest.mark.parametrize("off", [PowerState.DEALLOCATED, PowerState.STARTING])
def test_a_vm_that_has_come_back_is_given_time_to_have_its_telemetry_arrive(off: PowerState) -> None:
    """Ingestion takes minutes: after each restart of a VM people would be told of telemetry that is late."""
    story = a_watched_vm()
    story.power(0, off)
    for moment in range(86_400, 86_400 + 301, 60):
        story.look(moment, evidence(probe=answers()))
        assert story.state.status is Status.HEALTHY or moment == 86_400, story.state.reason
    assert story.told == []
    for moment in (86_761, 86_821):
        story.look(moment, evidence(probe=answers()))
    assert story.state.cause is Cause.TELEMETRY_DELAYED


def test_a_vm_that_was_seen_to_come_back_while_bad_is_fine_by_its_endpoint_alone() -> None:
    story = a_watched_vm()
    story.down(0)
    story.power(60, PowerState.STARTING)
    story.look(120, evidence(probe=answers()))
    story.look(180, evidence(probe=answers()))
    assert story.state.cause is Cause.OK
    assert story.told == ["fired", "resolved"]


def test_a_unit_that_left_the_configuration_is_forgotten_after_a_while() -> None:
    story = a_watched_vm()
    story.down(0)
    story.down(10)
    for moment in range(60, 800, 60):
        story.look(moment, evidence(probe=answers(a_report(up="other.service"))))
    assert story.state.units == {}


def test_a_unit_that_could_not_be_read_is_not_taken_for_gone() -> None:
    from vm_health.model import CollectorFailure  # noqa: PLC0415

    story = a_watched_vm()
    story.state = replace(story.state, units={"web.service": UnitState(attempts=6, circuit_open=True)})
    report = a_report(units=(), failures=[CollectorFailure("units", "no bus")])
    for moment in range(60, 1_000, 60):
        story.look(moment, evidence(probe=answers(report)))
    assert story.state.units["web.service"].circuit_open


# --- flapping --------------------------------------------------------------------------------------------


def test_a_vm_that_goes_up_and_down_is_told_once_as_flapping_and_left_alone() -> None:
    story = a_watched_vm()
    moment = 0
    while not story.state.is_flapping:
        story.down(moment)
        for later in (moment + 60, moment + 120):
            story.up(later)
        moment += 180
    assert moment < 20 * 60
    told = story.told.count("flapping")
    assert told == 1
    assert "flapping_start" in kinds(story.events)
    before = len(story.restarts)
    for later in range(moment, moment + 240, 60):
        story.down(later)
    assert len(story.restarts) == before
    assert story.told.count("flapping") == 1
    assert story.told[-1] == "flapping"


def test_when_flapping_ends_people_hear_how_it_is() -> None:
    story = a_watched_vm()
    story.state = replace(story.state, changes="1" * 12, is_flapping=True)
    for minute in range(20):
        story.up(minute * 60)
    assert not story.state.is_flapping
    assert "flapping_end" in kinds(story.events)
    assert story.told == ["flapping", "resolved"], "it had not been told of before"
    story.up(20 * 60)
    assert story.state.changes == ""


def test_a_quiet_vm_in_trouble_is_not_written_at_every_look() -> None:
    story = a_watched_vm()
    full = [
        evidence(probe=answers(a_report(disk=85 + tick / 100, taken_at=at(tick * 60)))) for tick in range(60)
    ]
    for tick, found in enumerate(full[:30]):
        story.look(tick * 60, found)
    settled = story.state
    for tick, found in enumerate(full[30:], start=30):
        assert story.look(tick * 60, found).state == settled
    assert story.state.since is not None
    assert story.state.since < at(0) + timedelta(seconds=120)
