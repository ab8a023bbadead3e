"""What every FleetStore keeps."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

import pytest

from tests.builders import a_notice, at
from vm_health.errors import ConflictError
from vm_health.fleet import FleetState, Freeze, Slot
from vm_health.model import Cause
from vm_health.names import vm_key
from vm_watchdog.ports import FleetStore

_numbers = itertools.count(1)

A_FLEET = FleetState(
    vm_count=120,
    shrunk_since=at(-5),
    groups={"rg-web": 100, "rg-datenbank-zürich": 20},
    freezes=(
        Freeze(Cause.MASS_FAILURE, "40 of 120 VMs turned bad", at(0), "fleet-1", "shard 3 of 8"),
        Freeze(Cause.CANARY_FAILED, "no own event came back", at(1), "fleet-2"),
    ),
    canary_was_seen=True,
    thawed_until=at(600),
    thawed_by="anna",
    sequence=4,
    outbox=(a_notice(),),
)


class FleetStoreContract:
    """Derive and give the fixture ``fleet``: a store in which nothing was saved yet."""

    @pytest.fixture
    def group(self) -> str:
        """A group that no other test has; a resource group's name may hold dots and brackets."""
        return f"rg-(web).{next(_numbers)}"

    async def test_a_new_fleet_is_empty_and_free(self, fleet: FleetStore) -> None:
        assert await fleet.load_fleet() == (FleetState(), None)

    async def test_the_fleet_comes_back_as_it_was_saved(self, fleet: FleetStore) -> None:
        first = await fleet.save_fleet(A_FLEET, None)
        assert await fleet.load_fleet() == (A_FLEET, first)
        second = await fleet.save_fleet(FleetState(vm_count=3), first)
        assert second != first
        assert await fleet.load_fleet() == (FleetState(vm_count=3), second)

    async def test_an_old_etag_loses_and_changes_nothing(self, fleet: FleetStore) -> None:
        old = await fleet.save_fleet(A_FLEET, None)
        await fleet.save_fleet(replace(A_FLEET, sequence=5), old)
        for etag in (old, None):
            with pytest.raises(ConflictError):
                await fleet.save_fleet(FleetState(), etag)
        assert (await fleet.load_fleet())[0].sequence == 5

    async def test_a_fleet_of_thousands_of_groups_fits_and_keeps_the_large_ones(
        self, fleet: FleetStore
    ) -> None:
        groups = {f"resource-group-with-a-long-name-{number:05}": 1 for number in range(9_000)}
        state = replace(A_FLEET, groups=groups | {"large": 1_000})
        await fleet.save_fleet(state, None)
        found, _ = await fleet.load_fleet()
        assert found.groups["large"] == 1_000
        assert len(found.groups) >= 1_000
        assert replace(found, groups={}) == replace(state, groups={})

    async def test_slots_come_back_and_change_under_their_etag(self, fleet: FleetStore, group: str) -> None:
        slots = (Slot(vm_key("a"), at(150)), Slot(vm_key("b"), at(151)))
        assert await fleet.load_slots(group) == ((), None)
        first = await fleet.save_slots(group, slots, None)
        assert await fleet.load_slots(group) == (slots, first)
        second = await fleet.save_slots(group, (), first)
        assert await fleet.load_slots(group) == ((), second)
        for etag in (first, None):
            with pytest.raises(ConflictError):
                await fleet.save_slots(group, slots, etag)

    async def test_of_two_that_take_slots_at_once_one_loses(self, fleet: FleetStore, group: str) -> None:
        takers = (fleet.save_slots(group, (Slot(vm_key(name), at(150)),), None) for name in ("a", "b"))
        outcomes = await asyncio.gather(*takers, return_exceptions=True)
        assert sorted(isinstance(outcome, ConflictError) for outcome in outcomes) == [False, True]
        assert len((await fleet.load_slots(group))[0]) == 1

    async def test_groups_have_slots_of_their_own(self, fleet: FleetStore, group: str) -> None:
        await fleet.save_slots(group, (Slot(vm_key("a"), at(150)),), None)
        assert await fleet.load_slots(group + "-other") == ((), None)

    async def test_hundreds_of_vms_in_restart_fit(self, fleet: FleetStore, group: str) -> None:
        slots = tuple(Slot(vm_key(str(number)), at(number)) for number in range(1_000))
        await fleet.save_slots(group, slots, None)
        assert (await fleet.load_slots(group))[0] == slots
