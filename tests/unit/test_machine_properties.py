"""What holds over any sequence of evidence: the promises, searched for a counter-example."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import NO_PROBE, NOW, UNREACHABLE, VM_ID, a_report, a_snapshot, answers, evidence
from vm_health.backoff import BackoffPolicy, delay
from vm_health.machine import AGENT_UNIT, step
from vm_health.model import Evidence, PowerState, Status
from vm_health.names import is_token
from vm_health.policy import Policy
from vm_health.state import Decision, Notice, NoticeKind, VmState
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
        report = a_report(up=UNITS, down=sorted(self.down), age=self.probe_age)
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
stories = st.lists(looks, min_size=1, max_size=60)
policies = st.sampled_from(POLICIES)


@dataclass(frozen=True)
class Played:
    """One look of a played story."""

    now: datetime
    found: Evidence
    before: VmState
    decision: Decision


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
        state = VmState(**{name: getattr(state, name) for name in VmState.__slots__ if name != "outbox"})
    return played


def notices(played: list[Played]) -> list[Notice]:
    return [notice for look in played for notice in look.decision.state.outbox]


@given(stories, policies)
def test_step_is_deterministic(story: list[Look], policy: Policy) -> None:
    for look in play(story, policy):
        assert step(look.before, look.found, policy, look.now) == look.decision


@given(stories, policies)
@settings(max_examples=120)
def test_no_restart_on_one_witness_or_on_old_news(story: list[Look], policy: Policy) -> None:
    for look in play(story, policy):
        for restart in look.decision.restarts:
            assert look.found.power is PowerState.RUNNING
            seen = judge(look.found, policy, look.now).observation
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


@given(stories, policies)
@settings(max_examples=120)
def test_attempts_keep_their_distance_and_their_number(story: list[Look], policy: Policy) -> None:
    last: dict[str, tuple[datetime, int]] = {}
    band = 1 - policy.backoff.jitter_fraction
    for look in play(story, policy):
        for name in list(last):
            if name not in look.decision.state.units:  # stable: it starts over
                del last[name]
        assert len({restart.unit for restart in look.decision.restarts}) == len(look.decision.restarts)
        for restart in look.decision.restarts:
            before, attempts = last.get(restart.unit, (None, 0))
            assert restart.attempt == attempts + 1 <= policy.max_attempts
            if before is not None:
                wait = delay(restart.attempt, policy.backoff) * band
                assert (look.now - before).total_seconds() >= wait - 1e-6
            last[restart.unit] = (look.now, restart.attempt)


@given(stories, policies)
def test_every_restart_has_a_token_of_its_own(story: list[Look], policy: Policy) -> None:
    tokens = [restart.token for look in play(story, policy) for restart in look.decision.restarts]
    assert len(set(tokens)) == len(tokens)
    assert all(map(is_token, tokens))


@given(stories)
def test_observing_restarts_nothing(story: list[Look]) -> None:
    for look in play(story, Policy(may_act=False)):
        assert look.decision.restarts == ()
        assert "restart" not in [event.kind for event in look.decision.events]


@given(stories, policies)
@settings(max_examples=120)
def test_incidents_fire_first_resolve_last_and_repeat_no_key(story: list[Look], policy: Policy) -> None:
    told = notices(play(story, policy))
    assert len({notice.key for notice in told}) == len(told)
    by_incident: dict[str, list[NoticeKind]] = defaultdict(list)
    for notice in told:
        assert notice.vm_id == VM_ID
        assert notice.reason
        by_incident[notice.incident_id].append(notice.kind)
    for kinds in by_incident.values():
        assert kinds[0] is NoticeKind.FIRED
        assert NoticeKind.RESOLVED not in kinds[:-1]


@given(stories, policies)
def test_an_incident_ends_only_on_evidence(story: list[Look], policy: Policy) -> None:
    for look in play(story, policy):
        ended = look.before.incident is not None and look.decision.state.incident is None
        assert ended == (NoticeKind.RESOLVED in [notice.kind for notice in look.decision.state.outbox])
        if ended:
            verdict = judge(look.found, policy, look.now)
            assert verdict.status in (Status.HEALTHY, Status.STOPPED)


@given(stories, policies)
def test_looks_asked_for_lie_ahead_and_are_asked_for_once(story: list[Look], policy: Policy) -> None:
    asked: list[datetime] = []
    for look in play(story, policy):
        again = look.decision.look_again
        if again is not None:
            assert again.at > look.now
            assert again.at not in asked
            asked.append(again.at)


@given(stories, policies)
def test_a_unit_that_may_be_restarted_is_never_forgotten(story: list[Look], policy: Policy) -> None:
    """While a planned attempt lies ahead, a look is on its way for it."""
    for look in play(story, policy):
        state = look.decision.state
        if state.status is not Status.CRITICAL or judge(look.found, policy, look.now).status is not Status.CRITICAL:
            continue
        planned = [unit.not_before for unit in state.units.values() if unit.not_before and not unit.up_since]
        ahead = [moment for moment in planned if moment > look.now]
        if ahead and state.cause is judge(look.found, policy, look.now).cause and look.decision.reason:
            assert state.next_look_at is not None


@given(stories, policies)
def test_every_decision_says_why(story: list[Look], policy: Policy) -> None:
    for look in play(story, policy):
        assert look.decision.reason
        assert look.decision.state.reason
        assert all(event.reason and event.at == look.now for event in look.decision.events)
