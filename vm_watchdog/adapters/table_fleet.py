"""The fleet's state and the slots of its groups in Azure Table Storage, in the table ``vmstate``.

Partition "meta", row "fleet"; partition "slots", row = hash of the group's name. Both sort after the VMs'
partitions. What can't be read is an error and never taken for a fresh start: that would forget a freeze.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from azure.core import MatchConditions
from azure.data.tables import UpdateMode

from vm_health.errors import ConflictError, NotFoundError, PermanentError, WireError
from vm_health.fleet import FleetState, Slot
from vm_health.fleet_codec import decode_fleet, decode_slots, encode_fleet, encode_slots
from vm_health.names import vm_key
from vm_watchdog.azure_errors import translated
from vm_watchdog.tables import META_PARTITION, STATE_TABLE, Tables, joined, spread

if TYPE_CHECKING:
    from azure.data.tables.aio import TableServiceClient

_FLEET_ROW = "fleet"
_SLOTS_PARTITION = "slots"


class TableFleetStore:
    """Stores through azure-data-tables; every change names the ETag it was based on."""

    def __init__(self, service: TableServiceClient) -> None:
        self._tables = Tables(service)

    async def load_fleet(self) -> tuple[FleetState, str | None]:
        """Return the fleet's state and its ETag; a fresh one and None before the first save."""
        row = await self._read("the fleet's state", META_PARTITION, _FLEET_ROW)
        if row is None:
            return FleetState(), None
        try:
            return decode_fleet(joined("State", row)), str(row.metadata["etag"])
        except WireError as error:
            raise PermanentError(f"the fleet's state is unreadable: {error}") from error

    async def save_fleet(self, state: FleetState, etag: str | None) -> str:
        """Write it under its ETag (None: it must be new) and return the new ETag."""
        row = {
            "PartitionKey": META_PARTITION,
            "RowKey": _FLEET_ROW,
            "Freezes": ", ".join(sorted({freeze.cause.value for freeze in state.freezes})),
            **spread("State", encode_fleet(state)),
        }
        return await self._write("the fleet's state", row, etag)

    async def load_slots(self, group: str) -> tuple[Sequence[Slot], str | None]:
        """Return who is in restart in a group, and the ETag; nobody and None before the first save."""
        row = await self._read("restart slots", _SLOTS_PARTITION, _group_key(group))
        if row is None:
            return (), None
        try:
            return decode_slots(joined("Slots", row)), str(row.metadata["etag"])
        except WireError as error:
            raise PermanentError(f"the restart slots of group {group} are unreadable: {error}") from error

    async def save_slots(self, group: str, slots: Sequence[Slot], etag: str | None) -> str:
        """Write it under its ETag (None: it must be new) and return the new ETag."""
        row = {
            "PartitionKey": _SLOTS_PARTITION,
            "RowKey": _group_key(group),
            "Group": group,
            **spread("Slots", encode_slots(slots)),
        }
        return await self._write("restart slots", row, etag)

    async def _read(self, what: str, partition: str, row: str) -> Any:
        try:
            with translated(f"reading {what}"):
                table = await self._tables.get(STATE_TABLE)
                return await table.get_entity(partition, row)
        except NotFoundError:
            return None

    async def _write(self, what: str, row: dict[str, str], etag: str | None) -> str:
        try:
            with translated(f"writing {what}"):
                table = await self._tables.get(STATE_TABLE)
                if etag is None:
                    return str((await table.create_entity(row))["etag"])
                condition = MatchConditions.IfNotModified
                written = await table.update_entity(
                    row, UpdateMode.REPLACE, etag=etag, match_condition=condition
                )
                return str(written["etag"])
        except NotFoundError as error:
            raise ConflictError(f"writing {what}: the row is gone") from error


def _group_key(group: str) -> str:
    return vm_key(group)
