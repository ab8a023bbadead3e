"""What every StateStore keeps."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.builders import NOW, a_notice, a_vm_id, an_incident, at
from vm_health.errors import ConflictError
from vm_health.model import Status
from vm_health.names import vm_key
from vm_health.state import (
    FLEET_ID,
    CommandRef,
    Event,
    Lane,
    UnitState,
    VmAction,
    VmActionKind,
    VmState,
)
from vm_watchdog.ports import StateStore, TickRecord

_numbers = itertools.count(1)
PARTITIONS = 16

A_STATE = VmState(
    status=Status.CRITICAL,
    subjects=("web.service",),
    reason="web.service is down; Zürich 🌉",
    since=NOW,
    units={
        "web.service": UnitState(2, at(40), NOW, command=CommandRef("token-1"), held="frozen: no telemetry"),
        "db.service": UnitState(
            1, command=CommandRef("token-2", Lane.ACTION, "/subscriptions/1/operations/2")
        ),
    },
    incident=an_incident(told_at=at(1), seen=("abcd",), given_up=("db.service",)),
    sequence=3,
    next_look_at=at(5),
    endpoint="http://10.0.0.4:8080",
    was_reached=True,
    outbox=(a_notice(),),
    changes="0110",
    is_flapping=True,
    vm_actions=(VmAction(VmActionKind.RESTART, at(-600), "token-3"),),
    instance_id="4f3c",
    clock_offset_seconds=-12.5,
    excused_since=at(2),
    gone_since=at(3),
)


def critical(since: float, **fields: object) -> VmState:
    """A VM that is CRITICAL since a second."""
    return replace(VmState(status=Status.CRITICAL, since=at(since)), **fields)  # type: ignore[arg-type]


class StateStoreContract:
    """Derive and give the fixture ``store``."""

    @pytest.fixture
    def vm_id(self) -> str:
        """A VM that no other test has."""
        return a_vm_id(f"store-{next(_numbers)}")

    async def test_a_vm_that_was_never_saved_is_not_there(self, store: StateStore, vm_id: str) -> None:
        assert await store.load_one(vm_id) is None
        assert vm_id not in await store.load(0, 1)

    async def test_what_is_saved_comes_back(self, store: StateStore, vm_id: str) -> None:
        etag = await store.save(vm_id, A_STATE, None)
        one, every = await store.load_one(vm_id), await store.load(0, 1)
        assert one is not None
        assert one == every[vm_id]
        assert (one.state, one.etag) == (A_STATE, etag)

    async def test_a_state_much_longer_than_a_column_comes_back_and_shrinks_again(
        self, store: StateStore, vm_id: str
    ) -> None:
        names = [f"worker-with-a-long-name@{number:03}.service" for number in range(500)]
        state = replace(A_STATE, subjects=tuple(names), units=dict.fromkeys(names, UnitState(2, at(40), NOW)))
        etag = await store.save(vm_id, state, None)
        one = await store.load_one(vm_id)
        assert one is not None
        assert one.state == state
        assert (await store.load(0, 1))[vm_id].state == state
        await store.save(vm_id, A_STATE, etag)
        again = await store.load_one(vm_id)
        assert again is not None
        assert again.state == A_STATE

    async def test_a_change_under_its_etag(self, store: StateStore, vm_id: str) -> None:
        first = await store.save(vm_id, A_STATE, None)
        second = await store.save(vm_id, VmState(), first)
        assert second != first
        stored = await store.load_one(vm_id)
        assert stored is not None
        assert (stored.state, stored.etag) == (VmState(), second)

    async def test_an_etag_from_a_scan_is_good_for_a_change(self, store: StateStore, vm_id: str) -> None:
        await store.save(vm_id, A_STATE, None)
        scanned = (await store.load(0, 1))[vm_id]
        await store.save(vm_id, VmState(), scanned.etag)

    async def test_an_old_etag_loses_and_changes_nothing(self, store: StateStore, vm_id: str) -> None:
        old = await store.save(vm_id, A_STATE, None)
        await store.save(vm_id, replace(A_STATE, sequence=4), old)
        with pytest.raises(ConflictError):
            await store.save(vm_id, VmState(), old)
        stored = await store.load_one(vm_id)
        assert stored is not None
        assert stored.state.sequence == 4

    async def test_a_second_first_save_loses(self, store: StateStore, vm_id: str) -> None:
        await store.save(vm_id, A_STATE, None)
        with pytest.raises(ConflictError):
            await store.save(vm_id, VmState(), None)

    async def test_of_two_saves_at_once_one_loses(self, store: StateStore, vm_id: str) -> None:
        etag = await store.save(vm_id, A_STATE, None)
        saves = (store.save(vm_id, replace(A_STATE, sequence=number), etag) for number in (4, 5))
        outcomes = await asyncio.gather(*saves, return_exceptions=True)
        assert sorted(isinstance(outcome, ConflictError) for outcome in outcomes) == [False, True]

    async def test_a_vm_that_was_forgotten_is_not_there_and_may_come_back(
        self, store: StateStore, vm_id: str
    ) -> None:
        etag = await store.save(vm_id, A_STATE, None)
        await store.append_events(vm_id, [Event("gone", "no inventory shows it", at(0))])
        await store.delete(vm_id, etag)
        assert await store.load_one(vm_id) is None
        assert vm_id not in await store.load(0, 1)
        assert [event.kind for event in await store.read_events(vm_id, 9)] == ["gone"]
        await store.save(vm_id, VmState(), None)

    async def test_a_vm_that_somebody_changed_is_not_forgotten(self, store: StateStore, vm_id: str) -> None:
        old = await store.save(vm_id, A_STATE, None)
        await store.save(vm_id, VmState(), old)
        with pytest.raises(ConflictError):
            await store.delete(vm_id, old)
        assert await store.load_one(vm_id) is not None

    async def test_to_forget_twice_is_no_trouble_and_to_save_what_is_forgotten_loses(
        self, store: StateStore, vm_id: str
    ) -> None:
        etag = await store.save(vm_id, A_STATE, None)
        await store.delete(vm_id, etag)
        await store.delete(vm_id, etag)
        with pytest.raises(ConflictError):
            await store.save(vm_id, A_STATE, etag)

    @pytest.mark.parametrize("count", [1, 2, 4, 8, PARTITIONS])
    async def test_the_shards_hold_every_vm_once(self, store: StateStore, count: int) -> None:
        fleet = [a_vm_id(f"shard-{count}-{next(_numbers)}") for _ in range(24)]
        await asyncio.gather(*(store.save(name, VmState(), None) for name in fleet))
        shards = [await store.load(shard, count) for shard in range(count)]
        for vm_id in fleet:
            expected = int(vm_key(vm_id)[0], 16) * count // PARTITIONS
            assert [shard for shard, states in enumerate(shards) if vm_id in states] == [expected]

    async def test_bad_vms_are_counted_and_those_that_turned_so_lately(self, store: StateStore) -> None:
        day = timedelta(days=400)  # after everything that other tests wrote
        before = await store.count_bad(NOW + day)
        assert before.turned == 0
        states = [
            critical(0),
            critical(day.total_seconds() - 1),
            critical(day.total_seconds()),
            critical(day.total_seconds() + 5),
            critical(day.total_seconds() + 5, gone_since=at(0)),
            VmState(status=Status.WARNING, since=NOW + day),
        ]
        for state in states:
            await store.save(a_vm_id(f"bad-{next(_numbers)}"), state, None)
        after = await store.count_bad(NOW + day)
        assert (after.bad - before.bad, after.turned) == (4, 2)
        vm_id = a_vm_id(f"bad-{next(_numbers)}")
        etag = await store.save(vm_id, critical(0), None)
        assert (await store.count_bad(NOW + day)).bad == after.bad + 1
        await store.save(vm_id, VmState(status=Status.HEALTHY, since=at(9)), etag)
        assert (await store.count_bad(NOW + day)).bad == after.bad

    async def test_history_comes_newest_first_and_cut(self, store: StateStore, vm_id: str) -> None:
        assert await store.read_events(vm_id, 10) == []
        first = Event("transition", "down", at(0), {"unit": "web.service", "n": 1})
        await store.append_events(vm_id, [first])
        await store.append_events(
            vm_id, [Event("restart", "first", at(10)), Event("backoff", "then", at(10))]
        )
        await store.append_events(vm_id, [Event("restart_sent", "last", at(10))], offset=2)
        await store.append_events(vm_id, [])
        found = await store.read_events(vm_id, 10)
        assert [event.kind for event in found] == ["restart_sent", "backoff", "restart", "transition"]
        assert found[-1] == first
        assert [event.kind for event in await store.read_events(vm_id, 2)] == ["restart_sent", "backoff"]

    async def test_history_between_two_moments_both_included(self, store: StateStore, vm_id: str) -> None:
        events = [Event("transition", f"at {second}", at(second)) for second in range(5)]
        twin = Event("backoff", "at 1 too", at(1))
        await store.append_events(vm_id, [*events[:2], twin, *events[2:]])

        async def reasons(since: float | None = None, until: float | None = None) -> list[str]:
            found = await store.read_events(
                vm_id, 9, None if since is None else at(since), None if until is None else at(until)
            )
            return [event.reason for event in found]

        assert await reasons(since=3) == ["at 4", "at 3"]
        assert await reasons(until=1) == ["at 1 too", "at 1", "at 0"]
        assert await reasons(since=1, until=2) == ["at 2", "at 1 too", "at 1"]
        assert await reasons(since=1.000001, until=1.999999) == []

    async def test_events_written_twice_are_there_once(self, store: StateStore, vm_id: str) -> None:
        """As after a crash between the write and whatever came after it."""
        events = [Event("restart", "first", at(0)), Event("backoff", "then", at(0))]
        for _ in range(2):
            await store.append_events(vm_id, events)
        assert await store.read_events(vm_id, 9) == events[::-1]

    async def test_hundreds_of_events_of_one_moment_keep_their_order(
        self, store: StateStore, vm_id: str
    ) -> None:
        events = [Event("restart", f"unit {number}", at(0), {"n": number}) for number in range(1_100)]
        await store.append_events(vm_id, events)
        assert await store.read_events(vm_id, 5_000) == events[::-1]

    async def test_moments_keep_their_microseconds(self, store: StateStore, vm_id: str) -> None:
        moments = [NOW + timedelta(microseconds=number) for number in range(20)] + [at(0.1)]
        for moment in moments:
            await store.append_events(vm_id, [Event("transition", "x", moment)])
        assert [event.at for event in await store.read_events(vm_id, 99)] == moments[::-1]

    async def test_the_history_of_one_vm_is_not_anothers(self, store: StateStore, vm_id: str) -> None:
        await store.append_events(vm_id, [Event("transition", "x", at(0))])
        assert await store.read_events(vm_id + "-other", 9) == []

    async def test_the_fleet_has_a_history_of_its_own(self, store: StateStore) -> None:
        moment = at(next(_numbers) * 1_000)
        await store.append_events(FLEET_ID, [Event("frozen", "no telemetry", moment)])
        found = await store.read_events(FLEET_ID, 9, since=moment, until=moment)
        assert [event.kind for event in found] == ["frozen"]

    async def test_history_that_is_longer_than_a_column_can_still_be_read(
        self, store: StateStore, vm_id: str
    ) -> None:
        subjects = [f"worker-with-a-long-name@{number}.service" for number in range(500)]
        events = [Event("transition", "r" * 60_000, at(n), {"subjects": subjects}) for n in range(150)]
        await store.append_events(vm_id, events)
        found = await store.read_events(vm_id, 500)
        assert len(found) == 150
        assert found[0].reason.startswith("rrr")

    async def test_events_of_some_kinds_are_found_whoevers_they_are(
        self, store: StateStore, vm_id: str
    ) -> None:
        mark = f"{next(_numbers)}"
        kinds = {f"restart-{mark}", f"vm_action-{mark}"}
        other = vm_id + "-other"
        await store.append_events(vm_id, [Event(f"restart-{mark}", "too old", at(-1))])
        await store.append_events(vm_id, [Event(f"restart-{mark}", "a", at(0)), Event("backoff", "b", at(5))])
        await store.append_events(other, [Event(f"vm_action-{mark}", "c", at(3), {"n": 1})])
        await store.append_events(FLEET_ID, [Event(f"restart-{mark}", "d", at(9))])
        found = await store.find_events(kinds, at(0), 10)
        assert [(owner, event.reason) for owner, event in found] == [
            (FLEET_ID, "d"),
            (other, "c"),
            (vm_id, "a"),
        ]
        assert found[1][1].detail == {"n": 1}
        assert [event.reason for _, event in await store.find_events(kinds, at(0), 2)] == ["d", "c"]
        assert await store.find_events([], at(0), 10) == []
        many = [*kinds, *(f"kind-{number}" for number in range(30))]
        assert len(await store.find_events(many, at(0), 10)) == 3

    async def test_the_ticks_record(self, store: StateStore) -> None:
        record = TickRecord(at(0), at(1.5), 3, {"HEALTHY": 2, "CRITICAL": 1}, ("web-1: Zürich",))
        await store.save_tick(record)
        assert await store.load_tick() == record
        later = TickRecord(at(60), at(61), 0)
        await store.save_tick(later)
        assert await store.load_tick() == later
        assert "tick" not in await store.load(0, 1)

    async def test_a_tick_full_of_troubles_can_still_be_read(self, store: StateStore) -> None:
        """The record is what tells the outside that the watchdog lives: trouble must not break it."""
        troubles = tuple(f"vm-{number}: " + 'something "quoted" went wrong; ' * 40 for number in range(500))
        await store.save_tick(TickRecord(at(0), at(1), 500, {"UNKNOWN": 500}, troubles))
        record = await store.load_tick()
        assert record is not None
        assert (record.targets, record.statuses) == (500, {"UNKNOWN": 500})
        assert record.troubles[0].startswith("vm-0: something")
