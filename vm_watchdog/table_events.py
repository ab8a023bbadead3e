"""History in Azure Table Storage, the half of the state store that only grows.

``events``: partition = the VM's key, row = reversed time, so that the newest comes first. A row is written
once for a moment and a position in it: writing it again changes nothing.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from vm_health.json_parts import readable
from vm_health.names import vm_key
from vm_health.state import Event
from vm_watchdog.azure_errors import translated
from vm_watchdog.tables import EVENT_TABLE, Tables

if TYPE_CHECKING:
    from azure.data.tables.aio import TableServiceClient

BATCH_ROWS = 100  # the service's limit for a transaction; it may also have 4 MiB at most
MAX_REASON_CHARS = 4_096
MAX_DETAIL_CHARS = 16_000  # with the reason at three bytes a character: 100 rows stay under 4 MiB
MAX_KINDS_ASKED = 10  # the service takes 15 comparisons in a filter

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MICROSECOND = 10**17
_LAST_INDEX = 99_999
_AFTER_INDEX = "~"  # sorts after every index of the same moment
_COLUMNS = ["Kind", "Reason", "At", "Detail"]


class TableHistory:
    """Keeps events through azure-data-tables."""

    def __init__(self, service: TableServiceClient) -> None:
        self._tables = Tables(service)

    async def append_events(self, vm_id: str, events: Sequence[Event], offset: int = 0) -> None:
        """Add to a VM's history, after ``offset`` events of the same moment: one transaction a hundred."""
        if not events:
            return
        key = vm_key(vm_id)
        rows = [("upsert", _row(vm_id, key, event, index)) for index, event in enumerate(events, offset)]
        with translated("writing history"):
            table = await self._tables.get(EVENT_TABLE)
            for batch in _batches(rows):
                await table.submit_transaction(batch)

    async def read_events(
        self, vm_id: str, limit: int, since: datetime | None = None, until: datetime | None = None
    ) -> Sequence[Event]:
        """Return the newest ``limit`` events of a VM from ``since`` to ``until``, newest first."""
        conditions, values = ["PartitionKey eq @key"], {"key": vm_key(vm_id)}
        if until is not None:
            conditions.append("RowKey ge @first")
            values["first"] = _moment_key(until)
        if since is not None:
            conditions.append("RowKey le @last")
            values["last"] = _moment_key(since) + _AFTER_INDEX
        found: list[Event] = []
        with translated("reading history"):
            table = await self._tables.get(EVENT_TABLE)
            rows = table.query_entities(
                " and ".join(conditions),
                parameters=values,
                select=_COLUMNS,
                results_per_page=min(limit, 1_000),
            )
            async for row in rows:
                if len(found) >= limit:
                    break
                found.append(_event(row))
        return found

    async def find_events(
        self, kinds: Collection[str], since: datetime, limit: int
    ) -> Sequence[tuple[str, Event]]:
        """Return the newest ``limit`` events of some kinds of all VMs, newest first: a scan of the table."""
        conditions, values = ["RowKey le @last"], {"last": _moment_key(since) + _AFTER_INDEX}
        if len(kinds) <= MAX_KINDS_ASKED:
            names = {f"kind{number}": kind for number, kind in enumerate(sorted(kinds))}
            # The SDK replaces whole words: a bracket must not touch a name.
            conditions.append("( " + " or ".join(f"Kind eq @{name}" for name in names) + " )")
            values |= names
        if not kinds:
            return []
        with translated("searching history"):
            table = await self._tables.get(EVENT_TABLE)
            rows = table.query_entities(
                " and ".join(conditions),
                parameters=values,
                select=[*_COLUMNS, "VmId", "PartitionKey", "RowKey"],
            )
            matching = [row async for row in rows if row["Kind"] in kinds]
        newest = heapq.nsmallest(limit, matching, key=lambda row: (row["RowKey"], row["PartitionKey"]))
        return [(str(row["VmId"]), _event(row)) for row in newest]


def _row(vm_id: str, key: str, event: Event, index: int) -> dict[str, Any]:
    return {
        "PartitionKey": key,
        "RowKey": f"{_moment_key(event.at)}-{_LAST_INDEX - index:05d}",
        "VmId": vm_id,
        "Kind": event.kind,
        "Reason": readable(event.reason, MAX_REASON_CHARS),
        "At": event.at,
        "Detail": _detail(event),
    }


def _event(row: Any) -> Event:
    return Event(str(row["Kind"]), str(row["Reason"]), row["At"], json.loads(str(row["Detail"])))


def _detail(event: Event) -> str:
    """Return an event's detail as JSON that fits its column, replaced by its beginning where it does not."""
    text = json.dumps(dict(event.detail), default=str)
    return text if len(text) <= MAX_DETAIL_CHARS else json.dumps({"cut": text[:1_000]})


def _moment_key(moment: datetime) -> str:
    # In whole microseconds throughout: as floats, two neighbours could become one row.
    return f"{_LAST_MICROSECOND - (moment - _EPOCH) // timedelta(microseconds=1):017d}"


def _batches(rows: Sequence[tuple[str, dict[str, Any]]]) -> Iterator[Sequence[tuple[str, dict[str, Any]]]]:
    for start in range(0, len(rows), BATCH_ROWS):
        yield rows[start : start + BATCH_ROWS]
