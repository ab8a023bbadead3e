"""What holds over any sequence of evidence: the promises, searched for a counter-example."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import NO_PROBE, NOW, UNREACHABLE, VM_ID, a_report, a_snapshot, answers, evidence
from vm_health.backoff import BackoffPolicy, delay
from vm_health.machine import step
from vm_health.model import Cause, Evidence, PowerState, Status
from vm_health.names import is_token
from vm_health.policy import Policy
from vm_health.repairs import AGENT_UNIT
from vm_health.state import Decision, NoticeKind, VmState
from vm_health.state_codec import decode_state, encode_state
from vm_health.verdict import judge

UNITS = ("web.service", "db.service")
POLICIES = (
    Policy(),
    Policy(backoff=BackoffPolicy((5.0, 7.0), 0.1), max_attempts=2, stable_after_seconds=60, confirm_silent=1),
    Policy(confirm_down=1, confirm_up=1, confirm_silent=1, max_attempts=3),
)


@dataclass(frozen=True)
class Look:
    """One step of a random story, before it is placed in time."""

    wait: float
    power: PowerState
    down: frozenset[str]
    probe: str
    probe_age: float
    snapshot_age: float | None
    telemetry: bool

    def evidence(self, now: datetime) -> Evidence:
        taken_at = now - timedelta(seconds=self.probe_age)
        report = a_report(up=UNITS, down=sorted(self.down), age=self.probe_age, taken_at=taken_at)
        probe = {"answers": answers(report), "dead": UNREACHABLE, "none": NO_PROBE}[self.probe]
        snapshot = None
        if self.snapshot_age is not None:
            snapshot = a_snapshot(report, age=self.snapshot_age, received_age=self.snapshot_age, now=now)
        return evidence(self.power, probe, snapshot, telemetry=self.telemetry)


ages = st.sampled_from([0.0, 1.0, 12.0, 45.0, 299.0, 400.0])
mostly_running = st.sampled_from([PowerState.RUNNING] * 8 + list(PowerState))
looks = st.builds(
    Look,
    wait=st.sampled_from([0.0, 0.5, 3.0, 5.0, 10.0, 20.0, 40.0, 60.0, 300.0, 700.0]),
    power=mostly_running,
    down=st.sampled_from([frozenset[str](), frozenset(UNITS[:1]), frozenset(UNITS)]),
    probe=st.sampled_from(["answers", "answers", "dead", "none"]),
    probe_age=ages,
    snapshot_age=st.none() | ages,
    telemetry=st.sampled_from([True, True, True, False]),
)
stories = st.lists(looks, min_size=1, max_size=40)


@dataclass(frozen=True)
class Played:
    """One look of a played story."""

    now: datetime
    found: Evidence
    before: VmState
    decision: Decision

    @property
    def heard(self) -> Evidence:
        """The evidence without what says nothing: telemetry from before the VM was last off, and an endpoint
        that has never answered."""
        off_at, snapshot, found = self.decision.state.off_at, self.found.snapshot, self.found
        if not self.decision.state.was_reached and found.probe is UNREACHABLE:
            found = replace(found, probe=NO_PROBE)
        if snapshot is None or off_at is None or snapshot.taken_at > off_at:
            return found
        return replace(found, snapshot=None)


def play(story: list[Look], policy: Policy) -> list[Played]:
    """Run a story; what the outbox holds counts as sent after each look."""
    state, now, played = VmState(), NOW, []
    for look in story:
        now += timedelta(seconds=look.wait)
        found = look.evidence(now)
        decision = step(state, found, policy, now)
        played.append(Played(now, found, state, decision))
        state = decode_state(encode_state(decision.state))
        assert state == decision.state, "what is remembered must survive the table"
        state = replace(state, outbox=())
    return played


def check_step_is_deterministic(played: list[Played], policy: Policy) -> None:
    for look in played:
        assert step(look.before, look.found, policy, look.now) == look.decision


def check_no_restart_on_one_witness_or_on_old_news(played: list[Played], policy: Policy) -> None:
    for look in played:
        for restart in look.decision.restarts:
            assert look.found.power is PowerState.RUNNING
            seen = judge(look.heard, policy, look.now).observation
            if restart.unit == AGENT_UNIT:
                assert seen is None
                assert look.before.was_reached
                assert look.found.telemetry_available
                continue
            assert seen is not None
            assert (look.now - seen.observed_at).total_seconds() <= policy.snapshot_max_age_seconds
            assert [unit.is_up for unit in seen.report.sample.units if unit.name == restart.unit] == [False]
            last = look.before.units[restart.unit].last_attempt_at
            assert last is None or seen.observed_at > last


def check_attempts_keep_their_distance_and_their_number(played: list[Played], policy: Policy) -> None:
    last: dict[str, tuple[datetime, int]] = {}
    band = 1 - policy.backoff.jitter_fraction
    for look in played:
        for name in set(last) - set(look.decision.state.units):  # it was stable and starts over
            del last[name]
        assert len({restart.unit for restart in look.decision.restarts}) == len(look.decision.restarts)
        for restart in look.decision.restarts:
            before, attempts = last.get(restart.unit, (None, 0))
            assert restart.attempt == attempts + 1 <= policy.max_attempts
            if before is not None:
                wait = delay(restart.attempt, policy.backoff) * band
                assert (look.now - before).total_seconds() >= wait - 1e-6
            last[restart.unit] = (look.now, restart.attempt)


def check_every_restart_has_a_token_of_its_own(played: list[Played], _policy: Policy) -> None:
    tokens = [restart.token for look in played for restart in look.decision.restarts]
    assert len(set(tokens)) == len(tokens)
    assert all(map(is_token, tokens))


def check_incidents_fire_first_resolve_last_and_repeat_no_key(played: list[Played], _policy: Policy) -> None:
    told = [notice for look in played for notice in look.decision.state.outbox]
    assert len({notice.key for notice in told}) == len(told)
    by_incident: dict[str, list[NoticeKind]] = defaultdict(list)
    for notice in told:
        assert notice.vm_id == VM_ID
        assert notice.reason
        by_incident[notice.incident_id].append(notice.kind)
    for kinds in by_incident.values():
        assert kinds[0] in (NoticeKind.FIRED, NoticeKind.FLAPPING)
        assert NoticeKind.RESOLVED not in kinds[:-1]


def check_an_incident_ends_only_on_evidence(played: list[Played], policy: Policy) -> None:
    for look in played:
        ended = look.before.incident is not None and look.decision.state.incident is None
        assert ended == (NoticeKind.RESOLVED in [notice.kind for notice in look.decision.state.outbox])
        if ended:
            verdict, back_at = judge(look.heard, policy, look.now), look.decision.state.back_at
            if verdict.cause is Cause.TELEMETRY_DELAYED and back_at is not None:
                # Its endpoint says that it is fine, and it has run again for too short a time for telemetry.
                assert (look.now - back_at).total_seconds() <= policy.snapshot_max_age_seconds
                continue
            assert verdict.status in (Status.HEALTHY, Status.STOPPED)


def check_looks_asked_for_lie_ahead_and_are_asked_for_once(played: list[Played], _policy: Policy) -> None:
    asked: list[datetime] = []
    for look in played:
        again = look.decision.look_again
        if again is not None:
            assert again.at > look.now
            assert again.at not in asked
            asked.append(again.at)


def check_no_planned_attempt_is_slept_through(played: list[Played], _policy: Policy) -> None:
    for look in played:
        state = look.decision.state
        if state.cause is not Cause.SERVICE_DOWN or state.soft_status is not None:
            continue
        for name in state.subjects:
            planned = state.units[name].not_before
            if planned is not None and planned > look.now:
                assert state.next_look_at is not None
                assert look.now < state.next_look_at <= planned


def check_every_decision_says_why(played: list[Played], _policy: Policy) -> None:
    for look in played:
        assert look.decision.reason
        assert look.decision.state.reason
        assert all(event.reason and event.at == look.now for event in look.decision.events)


CHECKS: tuple[Callable[[list[Played], Policy], None], ...] = (
    check_step_is_deterministic,
    check_no_restart_on_one_witness_or_on_old_news,
    check_attempts_keep_their_distance_and_their_number,
    check_every_restart_has_a_token_of_its_own,
    check_incidents_fire_first_resolve_last_and_repeat_no_key,
    check_an_incident_ends_only_on_evidence,
    check_looks_asked_for_lie_ahead_and_are_asked_for_once,
    check_no_planned_attempt_is_slept_through,
    check_every_decision_says_why,
)


@given(stories, st.sampled_from(POLICIES))
@settings(max_examples=40)
def test_promises(story: list[Look], policy: Policy) -> None:
    """Playing a story costs most of the time, so that every promise is held against the same ones."""
    played = play(story, policy)
    for check in CHECKS:
        check(played, policy)


@given(stories)
def test_observing_restarts_nothing(story: list[Look]) -> None:
    for look in play(story, Policy(may_act=False)):
        assert look.decision.restarts == ()
        assert "restart" not in [event.kind for event in look.decision.events]


@pytest.mark.parametrize("policy", POLICIES)
def test_the_stories_do_restart_resolve_and_give_up(policy: Policy) -> None:
    """What no story ever reaches, no property can refute: one long story per policy reaches it all."""
    down = Look(10.0, PowerState.RUNNING, frozenset(UNITS), "answers", 0.0, None, True)
    up = replace(down, down=frozenset())
    dead = replace(down, probe="dead")
    off = replace(down, power=PowerState.STOPPED)
    story = [up, *[down] * 95, up, up, *[down] * 3, off, *[up] * 65, *[dead] * 6]
    played = play(story, policy)
    for check in CHECKS:
        check(played, policy)
    told = {notice.kind for look in played for notice in look.decision.state.outbox}
    restarted = {restart.unit for look in played for restart in look.decision.restarts}
    assert told >= {NoticeKind.FIRED, NoticeKind.GAVE_UP, NoticeKind.RESOLVED}
    assert restarted == {*UNITS, AGENT_UNIT}
