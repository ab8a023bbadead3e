"""States, history and the tick's record in Azure Table Storage.

``vmstate``: partition = first hex digit of the VM's key, row = the key, one JSON column. ``events``:
partition = the VM's key, row = reversed time, so that the newest comes first.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from azure.core import MatchConditions
from azure.data.tables import UpdateMode

from vm_health.errors import NotFoundError, WireError
from vm_health.names import vm_key
from vm_health.state import Event, VmState
from vm_health.state_codec import decode_state, encode_state
from vm_watchdog.azure_errors import translated
from vm_watchdog.ports import Stored, TickRecord

if TYPE_CHECKING:
    from azure.data.tables.aio import TableClient, TableServiceClient

log = logging.getLogger("vm_watchdog.store")

STATE_TABLE = "vmstate"
EVENT_TABLE = "events"
_META = "meta"  # sorts after the partitions "0"…"f", so that no shard's range holds it
_PARTITIONS = 16
_LAST_MICROSECOND = 10**17
_MAX_TEXT_CHARS = 16_000  # a column holds 32 Ki UTF-16 units, and a character may take two


class TableStateStore:
    """Stores through azure-data-tables; every change names the ETag it was based on."""

    def __init__(self, service: TableServiceClient) -> None:
        self._service = service
        self._tables: dict[str, TableClient] = {}

    async def load(self, shard: int, shard_count: int) -> Mapping[str, Stored]:
        """Return the states of one shard by VM id: one range scan."""
        width = _PARTITIONS // shard_count
        first, last = f"{shard * width:x}", f"{(shard + 1) * width - 1:x}"
        with translated("reading states"):
            table = await self._table(STATE_TABLE)
            rows = table.query_entities(
                "PartitionKey ge @first and PartitionKey le @last",
                parameters={"first": first, "last": last},
                select=["VmId", "State"],
            )
            return {str(row["VmId"]): stored async for row in rows if (stored := _stored(row)) is not None}

    async def load_one(self, vm_id: str) -> Stored | None:
        """Return the state of one VM, None where there is none yet."""
        key = vm_key(vm_id)
        try:
            with translated("reading a state"):
                table = await self._table(STATE_TABLE)
                return _stored(await table.get_entity(key[0], key))
        except NotFoundError:
            return None

    async def save(self, vm_id: str, state: VmState, etag: str | None) -> str:
        """Write a state under its ETag (None: it must be new) and return the new ETag."""
        key = vm_key(vm_id)
        row = {
            "PartitionKey": key[0],
            "RowKey": key,
            "VmId": vm_id,
            "Status": state.status.value,
            "Cause": state.cause.value,
            "State": encode_state(state),
        }
        with translated("writing a state"):
            table = await self._table(STATE_TABLE)
            if etag is None:
                written = await table.create_entity(row)
            else:
                written = await table.update_entity(
                    row, UpdateMode.REPLACE, etag=etag, match_condition=MatchConditions.IfNotModified
                )
        return str(written["etag"])

    async def append_events(self, vm_id: str, events: Sequence[Event], offset: int = 0) -> None:
        """Add to a VM's history, after ``offset`` events of the same moment."""
        if not events:
            return
        with translated("writing history"):
            table = await self._table(EVENT_TABLE)
            for index, event in enumerate(events, start=offset):
                await table.upsert_entity(
                    {
                        "PartitionKey": vm_key(vm_id),
                        "RowKey": _row_key(event.at, index),
                        "VmId": vm_id,
                        "Kind": event.kind,
                        "Reason": event.reason[:_MAX_TEXT_CHARS],
                        "At": event.at,
                        "Detail": _detail(event),
                    }
                )

    async def read_events(self, vm_id: str, limit: int) -> Sequence[Event]:
        """Return the newest ``limit`` events of a VM, newest first."""
        found: list[Event] = []
        with translated("reading history"):
            table = await self._table(EVENT_TABLE)
            rows = table.query_entities(
                "PartitionKey eq @key", parameters={"key": vm_key(vm_id)}, results_per_page=limit
            )
            async for row in rows:
                found.append(
                    Event(str(row["Kind"]), str(row["Reason"]), row["At"], json.loads(str(row["Detail"])))
                )
                if len(found) >= limit:
                    break
        return found

    async def save_tick(self, record: TickRecord) -> None:
        """Remember the last tick; the latest one wins."""
        with translated("writing the tick record"):
            table = await self._table(STATE_TABLE)
            await table.upsert_entity(
                {
                    "PartitionKey": _META,
                    "RowKey": "tick",
                    "StartedAt": record.started_at,
                    "FinishedAt": record.finished_at,
                    "Targets": record.targets,
                    "Statuses": json.dumps(dict(record.statuses)),
                    "Troubles": _troubles(record),
                }
            )

    async def load_tick(self) -> TickRecord | None:
        """Return the last tick's record, None before the first."""
        try:
            with translated("reading the tick record"):
                table = await self._table(STATE_TABLE)
                row = await table.get_entity(_META, "tick")
        except NotFoundError:
            return None
        return TickRecord(
            row["StartedAt"],
            row["FinishedAt"],
            int(row["Targets"]),
            json.loads(str(row["Statuses"])),
            tuple(json.loads(str(row["Troubles"]))),
        )

    async def _table(self, name: str) -> TableClient:
        if name not in self._tables:
            self._tables[name] = await self._service.create_table_if_not_exists(name)
        return self._tables[name]


def _stored(row: Any) -> Stored | None:
    try:
        return Stored(decode_state(str(row["State"])), str(row.metadata["etag"]))
    except WireError as error:
        # Starting afresh would forget attempts already made. Leaving the row makes every look at this VM
        # lose the race for it, so nothing is done to the VM until a person has looked.
        problem = str(error)[:500]
        log.warning("unreadable state: no action on this VM", extra={"vm": row["VmId"], "problem": problem})
        return None


def _detail(event: Event) -> str:
    """Return an event's detail as JSON that fits its column, replaced by its beginning where it does not."""
    text = json.dumps(dict(event.detail), default=str)
    return text if len(text) <= _MAX_TEXT_CHARS else json.dumps({"cut": text[:1_000]})


def _troubles(record: TickRecord) -> str:
    """Return as many troubles as fit their column, as JSON that can be read again: ``live`` depends on it."""
    kept = [trouble[:300] for trouble in record.troubles[:50]]
    while len(text := json.dumps(kept)) > _MAX_TEXT_CHARS:
        kept.pop()
    return text


def _row_key(moment: datetime, index: int) -> str:
    micros = int(moment.timestamp() * 1_000_000)
    return f"{_LAST_MICROSECOND - micros:017d}-{999 - index:03d}"
