"""States of VMs, their history and the tick's record in Azure Table Storage.

``vmstate``: partition = first hex digit of the VM's key, row = the key. The state is JSON, spread over as
many columns as it needs; beside it stand the few that queries filter on. How history lies is told in
``table_events``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from azure.core import MatchConditions
from azure.data.tables import UpdateMode

from vm_health.errors import ConflictError, NotFoundError, WireError
from vm_health.model import Status
from vm_health.names import vm_key
from vm_health.state import VmState
from vm_health.state_codec import decode_state, encode_state
from vm_watchdog.azure_errors import translated
from vm_watchdog.ports import BadCount, Stored, TickRecord
from vm_watchdog.table_events import TableHistory
from vm_watchdog.tables import META_PARTITION, STATE_TABLE, column_names, joined, spread

log = logging.getLogger("vm_watchdog.store")

_PARTITIONS = 16
_MAX_TROUBLES_CHARS = 16_000
_COLUMNS = ["VmId", *column_names("State")]


class TableStateStore(TableHistory):
    """Stores through azure-data-tables; every change names the ETag it was based on."""

    async def load(self, shard: int, shard_count: int) -> Mapping[str, Stored]:
        """Return the states of one shard by VM id: one range scan."""
        width = _PARTITIONS // shard_count
        first, last = f"{shard * width:x}", f"{(shard + 1) * width - 1:x}"
        with translated("reading states"):
            table = await self._tables.get(STATE_TABLE)
            rows = table.query_entities(
                "PartitionKey ge @first and PartitionKey le @last",
                parameters={"first": first, "last": last},
                select=_COLUMNS,
            )
            return {str(row["VmId"]): stored async for row in rows if (stored := _stored(row)) is not None}

    async def load_one(self, vm_id: str) -> Stored | None:
        """Return the state of one VM, None where there is none yet."""
        key = vm_key(vm_id)
        try:
            with translated("reading a state"):
                table = await self._tables.get(STATE_TABLE)
                return _stored(await table.get_entity(key[0], key))
        except NotFoundError:
            return None

    async def save(self, vm_id: str, state: VmState, etag: str | None) -> str:
        """Write a state under its ETag (None: it must be new) and return the new ETag."""
        row = _row(vm_id, state)
        try:
            with translated("writing a state"):
                table = await self._tables.get(STATE_TABLE)
                if etag is None:
                    written = await table.create_entity(row)
                else:
                    written = await table.update_entity(
                        row, UpdateMode.REPLACE, etag=etag, match_condition=MatchConditions.IfNotModified
                    )
        except NotFoundError as error:
            raise ConflictError("writing a state: somebody else forgot this VM meanwhile") from error
        return str(written["etag"])

    async def delete(self, vm_id: str, etag: str) -> None:
        """Forget a VM under its ETag; one that is forgotten already is no trouble."""
        key = vm_key(vm_id)
        with translated("deleting a state"):
            table = await self._tables.get(STATE_TABLE)
            await table.delete_entity(key[0], key, etag=etag, match_condition=MatchConditions.IfNotModified)

    async def count_bad(self, turned_since: datetime) -> BadCount:
        """Count the VMs that are CRITICAL: only their rows are sent, and of those one column."""
        with translated("counting bad VMs"):
            table = await self._tables.get(STATE_TABLE)
            rows = table.query_entities(
                "PartitionKey le 'f' and Status eq @status",
                parameters={"status": Status.CRITICAL.value},
                select=["BadSince"],
            )
            # A VM that is gone has no such column: it is no part of the fleet that is judged.
            turned_at = [row["BadSince"] async for row in rows if row.get("BadSince") is not None]
        return BadCount(len(turned_at), sum(1 for moment in turned_at if moment >= turned_since))

    async def save_tick(self, record: TickRecord) -> None:
        """Remember the last tick; the latest one wins."""
        with translated("writing the tick record"):
            table = await self._tables.get(STATE_TABLE)
            await table.upsert_entity(
                {
                    "PartitionKey": META_PARTITION,
                    "RowKey": "tick",
                    "StartedAt": record.started_at,
                    "FinishedAt": record.finished_at,
                    "Targets": record.targets,
                    "Statuses": json.dumps(dict(record.statuses)),
                    "Troubles": _troubles(record),
                },
                UpdateMode.REPLACE,
            )

    async def load_tick(self) -> TickRecord | None:
        """Return the last tick's record, None before the first."""
        try:
            with translated("reading the tick record"):
                table = await self._tables.get(STATE_TABLE)
                row = await table.get_entity(META_PARTITION, "tick")
        except NotFoundError:
            return None
        return TickRecord(
            row["StartedAt"],
            row["FinishedAt"],
            int(row["Targets"]),
            json.loads(str(row["Statuses"])),
            tuple(json.loads(str(row["Troubles"]))),
        )


def _row(vm_id: str, state: VmState) -> dict[str, Any]:
    key = vm_key(vm_id)
    row: dict[str, Any] = {
        "PartitionKey": key[0],
        "RowKey": key,
        "VmId": vm_id,
        "Status": state.status.value,
        "Cause": state.cause.value,
        **spread("State", encode_state(state)),
    }
    if state.status is Status.CRITICAL and state.since is not None and state.gone_since is None:
        row["BadSince"] = state.since
    return row


def _stored(row: Any) -> Stored | None:
    try:
        return Stored(decode_state(joined("State", row)), str(row.metadata["etag"]))
    except WireError as error:
        # Starting afresh would forget attempts already made. Leaving the row makes every look at this VM
        # lose the race for it, so nothing is done to the VM until a person has looked.
        problem = str(error)[:500]
        log.warning("unreadable state: no action on this VM", extra={"vm": row["VmId"], "problem": problem})
        return None


def _troubles(record: TickRecord) -> str:
    """Return as many troubles as fit their column, as JSON that can be read again: ``live`` depends on it."""
    kept = [trouble[:300] for trouble in record.troubles[:50]]
    while len(text := json.dumps(kept)) > _MAX_TROUBLES_CHARS:
        kept.pop()
    return text
