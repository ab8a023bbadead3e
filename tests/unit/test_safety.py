"""The fleet as a whole: what freezes action, what lifts it, who is told, and the budget of restarts."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import NOW, at
from vm_health.model import Cause, Status
from vm_health.policy import MAX_SECONDS
from vm_health.safety import (
    FREEZE_CAUSES,
    FleetDecision,
    FleetState,
    SafetyPolicy,
    Senses,
    Slot,
    assess_senses,
    assess_turned_bad,
    budget,
    give_back,
    lift_orphans,
    safety_faults,
    take_slots,
    thaw,
)
from vm_health.state import FLEET_ID, NoticeKind

POLICY = SafetyPolicy()
STALE_AFTER = 300.0
SETTLES = POLICY.inventory_settles_seconds


def sense(
    state: FleetState,
    seconds: float = 0.0,
    scope: str = "fleet",
    policy: SafetyPolicy = POLICY,
    **seen: object,
) -> FleetDecision:
    senses = replace(Senses(scope), **seen)  # type: ignore[arg-type]
    return assess_senses(state, senses, policy, STALE_AFTER, at(seconds))


def turn(
    state: FleetState,
    turned_bad: int,
    bad: int,
    vm_count: int = 10,
    seconds: float = 0.0,
    scope: str = "fleet",
) -> FleetDecision:
    return assess_turned_bad(state, scope, turned_bad, bad, vm_count, POLICY, at(seconds))


def causes(state: FleetState) -> list[Cause]:
    return [freeze.cause for freeze in state.freezes]


def a_fleet(vm_count: int = 10, **fields: object) -> FleetState:
    return replace(FleetState(vm_count=vm_count, groups={"web": vm_count}), **fields)  # type: ignore[arg-type]


class TestInventory:
    @pytest.mark.parametrize(
        ("believed", "count", "frozen"),
        [
            (0, 0, False),
            (0, 100, False),
            (1, 0, True),
            (1, 1, False),
            (2, 1, True),
            (2, 0, True),
            (3, 2, False),
            (3, 1, True),
            (10, 6, False),
            (10, 5, True),
            (10, 0, True),
            (10, 11, False),
            (10, 1000, False),
        ],
    )
    def test_empty_or_halved_is_not_believed(self, believed: int, count: int, frozen: bool) -> None:
        state = sense(a_fleet(believed), vm_count=count, groups={"web": count}).state
        assert causes(state) == ([Cause.INVENTORY_SUSPECT] if frozen else [])
        assert state.vm_count == (believed if frozen else count)
        assert state.groups == {"web": believed if frozen else count}
        assert state.shrunk_since == (NOW if frozen else None)

    def test_an_unchanged_fleet_is_an_equal_state(self) -> None:
        """Nothing is written for it."""
        state = a_fleet(canary_was_seen=True)
        seen = {"vm_count": 10, "groups": {"web": 10}, "running": 9, "fresh": 9}
        decided = sense(state, 60, canary_age_seconds=70.0, canary_is_sent=True, **seen)
        assert decided == FleetDecision(state)

    def test_a_change_of_groups_alone_is_noticed(self) -> None:
        state = sense(a_fleet(10), vm_count=10, groups={"web": 4, "db": 6}).state
        assert state.groups == {"web": 4, "db": 6}

    def test_groups_that_were_not_counted_stay(self) -> None:
        assert sense(a_fleet(10), vm_count=9).state.groups == {"web": 10}

    def test_it_thaws_when_the_vms_are_back(self) -> None:
        state = sense(a_fleet(), 0, vm_count=0).state
        decided = sense(state, 120, vm_count=6)
        assert decided.state.freezes == ()
        assert (decided.state.vm_count, decided.state.shrunk_since) == (6, None)
        assert [event.kind for event in decided.events] == ["thawed"]

    def test_a_size_that_lasts_is_believed(self) -> None:
        state = sense(a_fleet(), 0, vm_count=3, groups={"web": 3}).state
        state = sense(state, SETTLES - 1, vm_count=3, groups={"web": 3}).state
        assert causes(state) == [Cause.INVENTORY_SUSPECT]
        state = sense(state, SETTLES, vm_count=3, groups={"web": 3}).state
        assert state.freezes == ()
        assert (state.vm_count, state.groups, state.shrunk_since) == (3, {"web": 3}, None)

    def test_another_drop_after_a_recovery_has_to_last_anew(self) -> None:
        state = sense(a_fleet(), 0, vm_count=0).state
        state = sense(state, SETTLES - 60, vm_count=10).state
        state = sense(state, SETTLES, vm_count=0).state
        assert causes(state) == [Cause.INVENTORY_SUSPECT]
        assert state.vm_count == 10

    def test_an_inventory_that_was_not_read_says_nothing(self) -> None:
        state = sense(a_fleet(), 0, vm_count=0).state
        assert sense(state, SETTLES * 2) == FleetDecision(state)


FAILING = {"telemetry_available": False, "telemetry_failing_seconds": STALE_AFTER}


class TestTelemetry:
    @pytest.mark.parametrize(
        ("seen", "reason"),
        [
            ({"running": 5, "fresh": 5}, ""),
            ({"running": 5, "fresh": 1}, ""),
            ({"running": 5, "fresh": 0}, "none of 5 running VMs has fresh telemetry"),
            ({"running": 2, "fresh": 0}, "none of 2 running VMs has fresh telemetry"),
            ({"running": 1, "fresh": 0}, ""),
            ({"running": 0, "fresh": 0}, ""),
            ({"running": 5, **FAILING}, "the telemetry query has failed or been partial for 300 s"),
            ({"running": 0, **FAILING}, "the telemetry query has failed or been partial for 300 s"),
            ({"running": 5, **FAILING, "telemetry_failing_seconds": STALE_AFTER - 1}, ""),
            ({"running": None, **FAILING}, ""),
        ],
    )
    def test_when_nobody_is_seen(self, seen: dict[str, object], reason: str) -> None:
        state = sense(a_fleet(), **seen).state
        assert state.frozen(NOW) == reason
        assert causes(state) == ([Cause.TELEMETRY_STALE_FOR_ALL] if reason else [])

    def test_it_thaws_with_the_first_fresh_snapshot(self) -> None:
        state = sense(a_fleet(), running=5).state
        assert sense(state, 60, running=5, fresh=1).state.freezes == ()

    def test_the_first_reason_stays(self) -> None:
        """Else the state would be written at every tick of a long outage."""
        state = sense(a_fleet(), running=5, **FAILING).state
        assert sense(state, 60, running=6, fresh=0) == FleetDecision(state)

    def test_a_query_that_fails_once_neither_freezes_nor_lifts(self) -> None:
        state = sense(a_fleet(), running=5).state
        assert sense(state, 60, running=5, telemetry_available=False) == FleetDecision(state)

    def test_an_evaluation_that_did_not_ask_lifts_nothing(self) -> None:
        state = sense(a_fleet(), running=5).state
        assert sense(state, 60) == FleetDecision(state)


class TestCanary:
    def seen_once(self) -> FleetState:
        return sense(a_fleet(), canary_is_sent=True, canary_age_seconds=30.0).state

    def test_before_it_was_ever_seen_it_proves_nothing(self) -> None:
        decided = sense(a_fleet(), canary_is_sent=True)
        assert decided == FleetDecision(a_fleet())

    def test_the_first_sight_is_remembered(self) -> None:
        state = self.seen_once()
        assert state.canary_was_seen
        assert state.freezes == ()

    @pytest.mark.parametrize(
        ("seen", "reason"),
        [
            ({"canary_age_seconds": STALE_AFTER}, ""),
            (
                {"canary_age_seconds": STALE_AFTER + 1},
                "own event did not come back through telemetry (the newest is 301 s old)",
            ),
            (
                {"canary_age_seconds": None},
                "own event did not come back through telemetry (none is there)",
            ),
            ({"canary_age_seconds": None, "telemetry_available": False}, ""),
            ({"canary_age_seconds": None, "canary_is_sent": False}, ""),
            ({"canary_age_seconds": 1.0, "egress_problem": "timed out"}, "own egress failed: timed out"),
            ({"canary_is_sent": False, "egress_problem": "timed out"}, "own egress failed: timed out"),
        ],
    )
    def test_what_fails_it(self, seen: dict[str, object], reason: str) -> None:
        state = sense(self.seen_once(), 600, **{"canary_is_sent": True, **seen}).state
        assert state.frozen(at(600)) == reason
        assert causes(state) == ([Cause.CANARY_FAILED] if reason else [])

    def test_an_event_so_old_when_first_seen_fails_at_once(self) -> None:
        state = sense(a_fleet(), canary_is_sent=True, canary_age_seconds=STALE_AFTER + 1).state
        assert causes(state) == [Cause.CANARY_FAILED]

    def test_it_thaws_when_the_event_comes_back(self) -> None:
        state = sense(self.seen_once(), 600, canary_is_sent=True).state
        assert sense(state, 660, canary_is_sent=True, canary_age_seconds=3.0).state.freezes == ()

    def test_want_of_telemetry_does_not_lift_it(self) -> None:
        state = sense(self.seen_once(), 600, canary_is_sent=True).state
        assert sense(state, 660, canary_is_sent=True, telemetry_available=False) == FleetDecision(state)

    def test_a_long_answer_is_cut(self) -> None:
        state = sense(a_fleet(), egress_problem="x" * 9_000).state
        assert len(state.frozen(NOW)) == 300


class TestMassFailure:
    @pytest.mark.parametrize(
        ("turned_bad", "vm_count", "frozen"),
        [
            (0, 10, False),
            (3, 10, False),  # 30 % is not more than 30 %
            (4, 10, True),
            (2, 2, False),  # too few to be a mass
            (2, 3, False),
            (3, 3, True),
            (300, 1000, False),
            (301, 1000, True),
        ],
    )
    def test_more_than_the_share_and_not_too_few(self, turned_bad: int, vm_count: int, frozen: bool) -> None:
        state = turn(a_fleet(vm_count), turned_bad, turned_bad, vm_count).state
        assert causes(state) == ([Cause.MASS_FAILURE] if frozen else [])

    def test_many_that_have_long_been_bad_are_no_mass_failure(self) -> None:
        assert turn(a_fleet(), 1, 9) == FleetDecision(a_fleet())

    @pytest.mark.parametrize(
        ("bad", "vm_count", "frozen"),
        [(9, 10, True), (4, 10, True), (3, 10, False), (2, 4, False), (3, 4, True), (0, 10, False)],
    )
    def test_it_lasts_until_the_share_of_bad_vms_is_back_under_the_limit(
        self, bad: int, vm_count: int, frozen: bool
    ) -> None:
        state = turn(a_fleet(), 5, 5).state
        after = turn(state, 0, bad, vm_count, seconds=600).state
        assert causes(after) == ([Cause.MASS_FAILURE] if frozen else [])

    def test_of_no_vms_nothing_can_be_said(self) -> None:
        state = turn(a_fleet(), 5, 5).state
        assert turn(state, 0, 0, 0) == FleetDecision(state)

    def test_the_reason_counts(self) -> None:
        assert turn(a_fleet(), 5, 6).state.frozen(NOW) == "5 of 10 VMs turned bad at once"


class TestTelling:
    def test_a_freeze_is_told_once_with_its_numbers(self) -> None:
        decided = turn(a_fleet(sequence=7), 5, 6)
        (freeze,) = decided.state.freezes
        (notice,) = decided.state.outbox
        (event,) = decided.events
        assert freeze.incident_id == "fleet-mass_failure-20261124T120000-7"
        assert decided.state.sequence == 8
        assert (notice.kind, notice.key) == (NoticeKind.FROZEN, f"{freeze.incident_id}:frozen")
        assert (notice.vm_id, notice.status, notice.cause) == (
            FLEET_ID,
            Status.CRITICAL,
            Cause.MASS_FAILURE,
        )
        assert notice.reason == "all action is stopped: 5 of 10 VMs turned bad at once"
        assert (event.kind, event.reason) == ("frozen", notice.reason)
        assert event.detail == {
            "cause": "mass_failure",
            "scope": "fleet",
            "incident_id": freeze.incident_id,
            "turned_bad": 5,
            "bad": 6,
            "vm_count": 10,
            "limit_percent": 30.0,
        }
        assert turn(decided.state, 6, 7, seconds=60) == FleetDecision(decided.state)

    def test_a_thaw_is_told_with_the_same_incident(self) -> None:
        frozen = turn(a_fleet(), 5, 5).state
        decided = turn(replace(frozen, outbox=()), 0, 0, seconds=90)
        (notice,) = decided.state.outbox
        assert notice.incident_id == frozen.freezes[0].incident_id
        assert (notice.kind, notice.key) == (NoticeKind.THAWED, f"{notice.incident_id}:thawed")
        assert (notice.status, notice.opened_at, notice.at) == (Status.HEALTHY, NOW, at(90))
        assert notice.reason == "over after 90 s: 5 of 10 VMs turned bad at once"
        assert [event.kind for event in decided.events] == ["thawed"]

    def test_notices_not_yet_sent_are_kept(self) -> None:
        state = turn(turn(a_fleet(), 5, 5).state, 0, 0, seconds=60).state
        assert [notice.kind for notice in state.outbox] == [NoticeKind.FROZEN, NoticeKind.THAWED]

    def test_a_cause_that_comes_again_is_another_incident(self) -> None:
        state = turn(turn(turn(a_fleet(), 5, 5).state, 0, 0).state, 5, 5).state
        assert len({notice.key for notice in state.outbox}) == 3

    def test_two_causes_are_two_incidents_and_both_are_said(self) -> None:
        state = sense(turn(a_fleet(), 5, 5).state, running=5).state
        assert len({freeze.incident_id for freeze in state.freezes}) == 2
        assert state.frozen(NOW) == (
            "5 of 10 VMs turned bad at once; none of 5 running VMs has fresh telemetry"
        )


class TestScopes:
    def frozen_twice(self) -> FleetState:
        state = sense(a_fleet(), 0, "shard 0 of 2", running=4).state
        return sense(state, 30, "shard 1 of 2", running=6).state

    def test_a_second_scope_joins_the_incident_in_silence(self) -> None:
        state = self.frozen_twice()
        assert len(state.freezes) == 2
        assert len({(freeze.incident_id, freeze.since) for freeze in state.freezes}) == 1
        assert len(state.outbox) == 1
        assert sense(state, 30, "shard 1 of 2", running=6) == FleetDecision(state)

    def test_a_shards_reason_names_it(self) -> None:
        assert self.frozen_twice().frozen(NOW) == (
            "shard 0 of 2: none of 4 running VMs has fresh telemetry;"
            " shard 1 of 2: none of 6 running VMs has fresh telemetry"
        )

    @pytest.mark.parametrize("first", [0, 1])
    def test_it_thaws_with_the_last_scope(self, first: int) -> None:
        decided = sense(self.frozen_twice(), 60, f"shard {first} of 2", running=5, fresh=5)
        assert len(decided.state.freezes) == 1
        assert decided.events == ()
        decided = sense(decided.state, 90, f"shard {1 - first} of 2", running=5, fresh=5)
        assert decided.state.freezes == ()
        assert [notice.kind for notice in decided.state.outbox] == [NoticeKind.FROZEN, NoticeKind.THAWED]
        assert decided.state.outbox[1].opened_at == NOW

    def test_a_scope_that_nobody_judges_any_more_is_let_go(self) -> None:
        """Else the freeze of "shard 1 of 2" would last for ever in a fleet of four shards."""
        state = self.frozen_twice()
        decided = lift_orphans(state, lambda freeze: freeze.scope == "shard 0 of 2", at(60))
        assert [freeze.scope for freeze in decided.state.freezes] == ["shard 0 of 2"]
        assert decided.events == ()
        decided = lift_orphans(state, lambda _: False, at(60))
        assert decided.state.freezes == ()
        (event,) = decided.events
        assert (event.kind, event.detail["orphan"]) == ("thawed", True)
        assert len(decided.state.outbox) == 2

    def test_nothing_is_let_go_that_is_judged(self) -> None:
        state = self.frozen_twice()
        assert lift_orphans(state, lambda _: True, at(60)) == FleetDecision(state)

    def test_two_freezes_of_one_scope_that_a_lost_race_has_left_end_together(self) -> None:
        state = turn(a_fleet(), 5, 5).state
        double = replace(state, freezes=(*state.freezes, replace(state.freezes[0], incident_id="theirs")))
        assert turn(double, 0, 0).state.freezes == ()


class TestOverruling:
    def test_a_person_overrules_every_freeze_for_a_time(self) -> None:
        state = turn(a_fleet(), 5, 5).state
        decided = thaw(state, at(600), "ops@example.com", NOW)
        assert decided.state.frozen(at(599)) == ""
        assert decided.state.frozen(at(600)) == "5 of 10 VMs turned bad at once"
        assert decided.state.thawed_by == "ops@example.com"
        (event,) = decided.events
        assert event.kind == "freeze_overruled"
        assert event.reason == (
            "ops@example.com overrules every freeze until 2026-11-24 12:10:00 UTC"
            " (5 of 10 VMs turned bad at once)"
        )
        assert event.detail["causes"] == ["mass_failure"]

    def test_a_freeze_that_comes_meanwhile_is_overruled_too_and_still_told(self) -> None:
        state = turn(thaw(a_fleet(), at(600), "ops", NOW).state, 5, 5).state
        assert state.frozen(at(1)) == ""
        assert state.frozen(at(601))
        assert [notice.kind for notice in state.outbox] == [NoticeKind.FROZEN]


maybe = st.sampled_from
senses_seen = st.builds(
    Senses,
    scope=maybe(["fleet", "shard 0 of 2", "shard 1 of 2"]),
    vm_count=maybe([None, 0, 4, 5, 9, 10, 40]),
    groups=maybe([None, {}, {"web": 5}, {"web": 5, "db": 5}]),
    running=maybe([None, 0, 1, 2, 7]),
    fresh=maybe([0, 1]),
    telemetry_available=st.booleans(),
    canary_age_seconds=maybe([None, 1.0, 299.0, 301.0]),
    canary_is_sent=st.booleans(),
    egress_problem=maybe(["", "", "refused"]),
)
waits = maybe([0.0, 60.0, 1799.0, 1800.0])
steps = st.lists(st.tuples(waits, senses_seen, st.integers(0, 8), st.integers(0, 8)), max_size=12)


@given(steps)
def test_over_any_story_scopes_are_kept_apart_and_the_same_input_changes_nothing(
    story: list[tuple[float, Senses, int, int]],
) -> None:
    state, seconds = FleetState(), 0.0
    for wait, senses, turned_bad, bad in story:
        seconds += wait
        look = partial(
            assess_senses, senses=senses, policy=POLICY, stale_after_seconds=STALE_AFTER, now=at(seconds)
        )
        count = partial(
            assess_turned_bad,
            scope=senses.scope,
            turned_bad=turned_bad,
            bad=bad,
            vm_count=10,
            policy=POLICY,
            now=at(seconds),
        )
        for assess in (look, count):
            before = [freeze for freeze in state.freezes if freeze.scope != senses.scope]
            decided = assess(state)
            after = [freeze for freeze in decided.state.freezes if freeze.scope != senses.scope]
            assert after == before
            assert assess(decided.state) == FleetDecision(decided.state)
            state = decided.state
        assert len({(freeze.cause, freeze.scope) for freeze in state.freezes}) == len(state.freezes)
        assert set(causes(state)) <= set(FREEZE_CAUSES)
    told = [notice.key for notice in state.outbox]
    assert len(told) == len(set(told))
    open_incidents = {notice.incident_id for notice in state.outbox if notice.kind is NoticeKind.FROZEN} - {
        notice.incident_id for notice in state.outbox if notice.kind is NoticeKind.THAWED
    }
    assert open_incidents == {freeze.incident_id for freeze in state.freezes}


class TestPolicy:
    @pytest.mark.parametrize(
        "policy", [SafetyPolicy(), SafetyPolicy(100.0, 1, MAX_SECONDS, 1, MAX_SECONDS), SafetyPolicy(0.1)]
    )
    def test_what_is_usable(self, policy: SafetyPolicy) -> None:
        assert safety_faults(policy) == []

    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({"mass_failure_percent": 0.0}, "mass_failure_percent must be above 0 and at most 100, is 0"),
            ({"mass_failure_percent": 101.0}, "mass_failure_percent must be above 0 and at most 100, is 101"),
            ({"mass_failure_min_vms": 0}, "mass_failure_min_vms must be 1 or more, is 0"),
            ({"stale_min_vms": 0}, "stale_min_vms must be 1 or more, is 0"),
            ({"mass_failure_window_seconds": 0.0}, "mass_failure_window_seconds must be above 0"),
            ({"inventory_settles_seconds": float("nan")}, "inventory_settles_seconds must be above 0"),
        ],
    )
    def test_what_is_unusable(self, fields: dict[str, float], named: str) -> None:
        (fault,) = safety_faults(replace(SafetyPolicy(), **fields))  # type: ignore[arg-type]
        assert fault.startswith(named)


@pytest.mark.parametrize(
    ("group_size", "percent", "vms"),
    [
        (0, 10, 1),
        (1, 10, 1),
        (10, 10, 1),
        (19, 10, 1),
        (20, 10, 2),
        (1000, 10, 100),
        (10, 0, 1),
        (10, 100, 10),
    ],
)
def test_a_budget_is_the_share_of_the_group_and_never_nothing(
    group_size: int, percent: float, vms: int
) -> None:
    assert budget(group_size, percent) == vms


class TestSlots:
    def test_they_go_to_the_first_who_ask(self) -> None:
        slots, holders = take_slots((), ["a", "b", "c"], 2, at(150), NOW)
        assert slots == (Slot("a", at(150)), Slot("b", at(150)))
        assert holders == {"a", "b"}

    def test_who_has_one_keeps_it_and_has_it_longer(self) -> None:
        slots, holders = take_slots([Slot("b", at(10))], ["a", "b"], 1, at(150), NOW)
        assert slots == (Slot("b", at(150)),)
        assert holders == {"b"}

    def test_a_kept_slot_is_not_shortened(self) -> None:
        slots, _ = take_slots([Slot("a", at(900))], ["a"], 1, at(150), NOW)
        assert slots == (Slot("a", at(900)),)

    def test_an_expired_one_is_free(self) -> None:
        slots, holders = take_slots([Slot("b", NOW)], ["a"], 1, at(150), NOW)
        assert slots == (Slot("a", at(150)),)
        assert holders == {"a"}

    def test_holders_are_only_those_who_asked(self) -> None:
        slots, holders = take_slots([Slot("b", at(10))], ["a"], 2, at(150), NOW)
        assert [slot.vm for slot in slots] == ["b", "a"]
        assert holders == {"a"}

    def test_given_back_is_free(self) -> None:
        slots = [Slot("a", at(10)), Slot("b", at(10)), Slot("c", NOW)]
        assert give_back(slots, ["a"], NOW) == (Slot("b", at(10)),)

    @given(
        st.lists(
            st.builds(Slot, maybe("abcdefgh"), maybe([at(-1), NOW, at(1), at(900)])), unique_by=lambda s: s.vm
        ),
        st.lists(maybe("abcdefgh")),
        st.integers(0, 5),
    )
    def test_never_more_than_the_limit_and_nobody_loses_one(
        self, slots: list[Slot], vms: list[str], limit: int
    ) -> None:
        held = {slot.vm for slot in slots if slot.until > NOW}
        after, holders = take_slots(slots, vms, limit, at(150), NOW)
        names = [slot.vm for slot in after]
        assert len(names) == len(set(names)) <= max(limit, len(held))
        assert held <= set(names) <= held | set(vms)
        assert holders == set(names) & set(vms)
        assert all(slot.until > NOW for slot in after)
        assert take_slots(after, vms, limit, at(150), NOW) == (after, holders)
