"""The tables, as one instance reaches them: every call is a point to be held, to fail or to die at.

What the instance is shown and what it does is written into the chronicle.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from tests.properties.chronicle import FleetSaved, Saved, SlotsSaved
from vm_health.fleet import FleetState, Slot
from vm_health.names import vm_key
from vm_health.silence import Silence
from vm_health.state import (
    Event,
    VmState,
)
from vm_watchdog.ports import BadCount, Stored, TickRecord

if TYPE_CHECKING:
    from tests.properties.instance import Instance


class Port:
    def __init__(self, me: Instance) -> None:
        self.me = me
        self.world = me.world
        self.cloud = me.world.cloud

    async def point(self, *, may_fail: bool = True) -> None:
        await self.me.process.point(may_fail=may_fail)


class SimStore(Port):
    async def load(self, shard: int, shard_count: int) -> dict[str, Stored]:
        await self.point()
        found = dict(await self.world.store.load(shard, shard_count))
        self.me.rows |= {vm_id: one.state for vm_id, one in found.items()}
        return found

    async def load_one(self, vm_id: str) -> Stored | None:
        await self.point()
        found = await self.world.store.load_one(vm_id)
        if found is not None:
            self.me.rows[vm_id] = found.state
        return found

    async def save(self, vm_id: str, state: VmState, etag: str | None) -> str:
        await self.point()
        fresh = await self.world.store.save(vm_id, state, etag)
        self._note(vm_id, state)
        self.me.rows[vm_id] = state
        self.me.process.after()
        return fresh

    async def delete(self, vm_id: str, etag: str) -> None:
        await self.point()
        await self.world.store.delete(vm_id, etag)
        self._note(vm_id, None)
        self.me.process.after()

    def _note(self, vm_id: str, state: VmState | None) -> None:
        world = self.world
        before = world.rows.get(vm_id)
        shown = self.me.shown(vm_id)
        if state is None:
            world.rows.pop(vm_id, None)
        else:
            shown = replace(shown, clock_offset_seconds=state.clock_offset_seconds)
            world.rows[vm_id] = state
        world.chronicle.entries.append(Saved(world.clock.now, shown, before, state))

    async def count_bad(self, turned_since: datetime) -> BadCount:
        await self.point()
        return await self.world.store.count_bad(turned_since)

    async def append_events(self, vm_id: str, events: Sequence[Event], offset: int = 0) -> None:
        if not events:
            return
        await self.point()
        await self.world.store.append_events(vm_id, events, offset)
        for event in events:
            self.world.note_event(event)
        self.me.process.after()

    async def read_events(
        self, vm_id: str, limit: int, since: datetime | None = None, until: datetime | None = None
    ) -> Sequence[Event]:
        return await self.world.store.read_events(vm_id, limit, since, until)

    async def find_events(
        self, kinds: Collection[str], since: datetime, limit: int
    ) -> Sequence[tuple[str, Event]]:
        return await self.world.store.find_events(kinds, since, limit)

    async def save_tick(self, record: TickRecord) -> None:
        await self.point()
        await self.world.store.save_tick(record)
        self.me.has_failed = bool(record.troubles)

    async def load_tick(self) -> TickRecord | None:
        return await self.world.store.load_tick()


class SimFleet(Port):
    async def load_fleet(self) -> tuple[FleetState, str | None]:
        await self.point()
        found = await self.world.fleet.load_fleet()
        self.me.fleet = found[0]
        if self.me.first_fleet is None:
            self.me.first_fleet = found[0]
        return found

    async def save_fleet(self, state: FleetState, etag: str | None) -> str:
        await self.point()
        fresh = await self.world.fleet.save_fleet(state, etag)
        world = self.world
        world.chronicle.entries.append(FleetSaved(world.clock.now, world.fleet_row, state))
        self.me.fleet = world.fleet_row = state
        self.me.process.after()
        return fresh

    async def load_slots(self, group: str) -> tuple[Sequence[Slot], str | None]:
        await self.point()
        return await self.world.fleet.load_slots(group)

    async def save_slots(self, group: str, slots: Sequence[Slot], etag: str | None) -> str:
        await self.point()
        fresh = await self.world.fleet.save_slots(group, slots, etag)
        world, me = self.world, self.me
        before = world.slots.get(group, ())
        world.slots[group] = tuple(slots)
        shown = {vm_key(vm_id): me.shown(vm_id) for vm_id in me.targets}
        rows, running = dict(world.rows), frozenset(self.cloud.running.keys() & world.wished)
        world.chronicle.entries.append(
            SlotsSaved(world.clock.now, me.now, group, before, tuple(slots), me.fleet, shown, rows, running)
        )
        me.process.after()
        return fresh


class SimSilences(Port):
    async def list_silences(self) -> Sequence[Silence]:
        await self.point()
        self.me.silences = await self.world.silences.list_silences()
        return self.me.silences

    async def add_silence(self, silence: Silence) -> None:
        await self.world.silences.add_silence(silence)

    async def end_silence(self, silence_id: str, at: datetime) -> Silence | None:
        return await self.world.silences.end_silence(silence_id, at)
