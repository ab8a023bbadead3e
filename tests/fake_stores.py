"""In-memory stores: states, the fleet, silences. Rows are text with ETags, as the tables hold them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import TypeVar

from vm_health.errors import ConflictError, WatchdogError
from vm_health.fleet import FleetState, Slot
from vm_health.fleet_codec import (
    decode_fleet,
    decode_silence,
    decode_slots,
    encode_fleet,
    encode_silence,
    encode_slots,
)
from vm_health.model import Status
from vm_health.names import vm_key
from vm_health.silence import Silence
from vm_health.state import Event, VmState
from vm_health.state_codec import decode_state, encode_state
from vm_watchdog.ports import BadCount, Stored, TickRecord

T = TypeVar("T")

PARTITIONS = 16

# What stands in a row can't change: it is read once, however often a test asks.
_read_state = lru_cache(4_096)(decode_state)
_read_fleet = lru_cache(1_024)(decode_fleet)


class Crash(Exception):  # noqa: N818 - it is not an error that anybody handles
    """The process ends here."""


class Journal:
    """Every effect in order; ``crash_at`` is the start of the entry that is not reached any more."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self.crash_at = ""

    def add(self, entry: str) -> None:
        """Write down an effect that is about to happen."""
        if self.crash_at and entry.startswith(self.crash_at):
            raise Crash(entry)
        self.entries.append(entry)

    def take(self) -> list[str]:
        """Return what was written since the last time."""
        taken, self.entries = self.entries, []
        return taken


class Rows:
    """Text by key, each with an ETag that every write changes."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[str, str]] = {}
        self._writes = 0

    def get(self, key: str) -> tuple[str, str] | None:
        """Return text and ETag."""
        return self._rows.get(key)

    def items(self) -> list[tuple[str, tuple[str, str]]]:
        """Return all keys with text and ETag."""
        return list(self._rows.items())

    def check(self, key: str, etag: str | None) -> None:
        """Refuse a write that is based on anything but the row as it is."""
        row = self._rows.get(key)
        if (None if row is None else row[1]) != etag:
            raise ConflictError("somebody else was first")

    def put(self, key: str, text: str, etag: str | None) -> str:
        """Write under an ETag (None: it must be new) and return the new one."""
        self.check(key, etag)
        self._writes += 1
        self._rows[key] = (text, str(self._writes))
        return str(self._writes)

    def drop(self, key: str, etag: str) -> None:
        """Delete under an ETag; what is not there any more is no trouble."""
        if key in self._rows:
            self.check(key, etag)
            del self._rows[key]

    def touch(self, key: str) -> None:
        """Write a row again, as another instance would."""
        text, etag = self._rows[key]
        self.put(key, text, etag)


class FakeStore:
    """States, history and the tick's record; ``error`` is raised instead of an answer to a read."""

    def __init__(self, journal: Journal | None = None) -> None:
        self._journal = journal or Journal()
        self._rows = Rows()
        self._events: dict[str, dict[tuple[datetime, int], Event]] = {}
        self._tick: TickRecord | None = None
        self.error: WatchdogError | None = None

    async def load(self, shard: int, shard_count: int) -> Mapping[str, Stored]:
        self._check()
        width = PARTITIONS // shard_count
        partitions = range(shard * width, (shard + 1) * width)
        return {
            vm_id: Stored(_read_state(text), etag)
            for vm_id, (text, etag) in self._rows.items()
            if int(vm_key(vm_id)[0], 16) in partitions
        }

    async def load_one(self, vm_id: str) -> Stored | None:
        self._check()
        row = self._rows.get(vm_id)
        return None if row is None else Stored(_read_state(row[0]), row[1])

    async def save(self, vm_id: str, state: VmState, etag: str | None) -> str:
        text = encode_state(state)
        self._journal.add(
            f"save with {len(state.outbox)} notices" if state.outbox else "save, nothing to send"
        )
        return self._rows.put(vm_id, text, etag)

    async def delete(self, vm_id: str, etag: str) -> None:
        self._journal.add("delete")
        self._rows.drop(vm_id, etag)

    def touch(self, vm_id: str) -> None:
        """Write the row again, as another instance would."""
        self._rows.touch(vm_id)

    async def count_bad(self, turned_since: datetime) -> BadCount:
        self._check()
        states = [_read_state(text) for _, (text, _) in self._rows.items()]
        bad = [one for one in states if one.status is Status.CRITICAL and one.gone_since is None]
        turned = [one for one in bad if one.since is not None and one.since >= turned_since]
        return BadCount(len(bad), len(turned))

    async def append_events(self, vm_id: str, events: Sequence[Event], offset: int = 0) -> None:
        if not events:
            return
        self._journal.add("events " + ", ".join(event.kind for event in events))
        history = self._events.setdefault(vm_id, {})
        for index, event in enumerate(events, start=offset):
            detail = json.loads(json.dumps(dict(event.detail), default=str))
            history[event.at, index] = replace(event, detail=detail)

    async def read_events(
        self, vm_id: str, limit: int, since: datetime | None = None, until: datetime | None = None
    ) -> Sequence[Event]:
        self._check()
        history = sorted(self._events.get(vm_id, {}).items(), key=lambda item: item[0], reverse=True)
        found = [
            event
            for (moment, _), event in history
            if (since is None or moment >= since) and (until is None or moment <= until)
        ]
        return found[:limit]

    async def find_events(
        self, kinds: Collection[str], since: datetime, limit: int
    ) -> Sequence[tuple[str, Event]]:
        self._check()
        found = [
            (key, vm_id, event)
            for vm_id, history in self._events.items()
            for key, event in history.items()
            if event.kind in kinds and event.at >= since
        ]
        found.sort(key=lambda item: (item[0], item[1]), reverse=True)
        return [(vm_id, event) for _, vm_id, event in found[:limit]]

    async def save_tick(self, record: TickRecord) -> None:
        self._journal.add("tick record")
        self._tick = record

    async def load_tick(self) -> TickRecord | None:
        self._check()
        return self._tick

    def _check(self) -> None:
        if self.error is not None:
            raise self.error


class FakeFleetStore:
    """The fleet's state and the slots of groups; ``error`` is raised instead of an answer to a read."""

    def __init__(self, journal: Journal | None = None) -> None:
        self._journal = journal or Journal()
        self._fleet = Rows()
        self._slots = Rows()
        self.error: WatchdogError | None = None

    async def load_fleet(self) -> tuple[FleetState, str | None]:
        self._check()
        row = self._fleet.get("fleet")
        return (FleetState(), None) if row is None else (_read_fleet(row[0]), row[1])

    async def save_fleet(self, state: FleetState, etag: str | None) -> str:
        text = encode_fleet(state)
        self._journal.add(f"fleet with {len(state.outbox)} notices" if state.outbox else "fleet")
        return self._fleet.put("fleet", text, etag)

    async def load_slots(self, group: str) -> tuple[Sequence[Slot], str | None]:
        self._check()
        row = self._slots.get(group)
        return ((), None) if row is None else (decode_slots(row[0]), row[1])

    async def save_slots(self, group: str, slots: Sequence[Slot], etag: str | None) -> str:
        text = encode_slots(slots)
        self._journal.add(f"slots of {group}: {len(slots)}")
        return self._slots.put(group, text, etag)

    def touch_fleet(self) -> None:
        """Write the fleet's row again, as another instance would."""
        self._fleet.touch("fleet")

    def touch_slots(self, group: str) -> None:
        """Write a group's row again, as another instance would."""
        self._slots.touch(group)

    def _check(self) -> None:
        if self.error is not None:
            raise self.error


class FakeSilenceStore:
    """Silences by id; ``error`` is raised instead of an answer to a read."""

    def __init__(self) -> None:
        self._rows = Rows()
        self.error: WatchdogError | None = None

    async def list_silences(self) -> Sequence[Silence]:
        if self.error is not None:
            raise self.error
        return [decode_silence(text) for _, (text, _) in self._rows.items()]

    async def add_silence(self, silence: Silence) -> None:
        self._rows.put(silence.id, encode_silence(silence), None)

    async def end_silence(self, silence_id: str, at: datetime) -> Silence | None:
        row = self._rows.get(silence_id)
        silence = None if row is None else decode_silence(row[0])
        if row is None or silence is None or silence.ends_at <= at:
            return None
        ended = replace(silence, ends_at=at)
        self._rows.put(silence_id, encode_silence(ended), row[1])
        return ended
