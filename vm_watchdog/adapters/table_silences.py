"""Silences in Azure Table Storage. ``silences``: partition "silence", row = the silence's id.

Beside the JSON stand the columns that a person looks for; they are written and never read.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from azure.core import MatchConditions
from azure.data.tables import UpdateMode

from vm_health.errors import NotFoundError, PermanentError, WireError
from vm_health.fleet_codec import decode_silence, encode_silence
from vm_health.silence import Silence
from vm_watchdog.azure_errors import translated
from vm_watchdog.tables import SILENCE_TABLE, Tables

if TYPE_CHECKING:
    from azure.data.tables.aio import TableServiceClient

log = logging.getLogger("vm_watchdog.silences")

_PARTITION = "silence"
_ID = re.compile(r"[\w.@:-]{1,128}", re.ASCII)  # a row's key holds no / \ # ?


class TableSilenceStore:
    """Stores through azure-data-tables."""

    def __init__(self, service: TableServiceClient) -> None:
        self._tables = Tables(service)

    async def list_silences(self) -> Sequence[Silence]:
        """Return every silence that can be read; one that can't is told in the log each time."""
        with translated("reading silences"):
            table = await self._tables.get(SILENCE_TABLE)
            rows = table.query_entities("PartitionKey eq @key", parameters={"key": _PARTITION})
            return [silence async for row in rows if (silence := _silence(row)) is not None]

    async def add_silence(self, silence: Silence) -> None:
        """Remember it; ConflictError where there is one with this id."""
        if not _ID.fullmatch(silence.id):
            raise PermanentError(
                f"a silence's id must be 1 to 128 of A-Z a-z 0-9 _ . @ : -, is {silence.id!r}"
            )
        with translated("writing a silence"):
            table = await self._tables.get(SILENCE_TABLE)
            await table.create_entity(_row(silence))

    async def end_silence(self, silence_id: str, at: datetime) -> Silence | None:
        """Let it end at ``at``; return it as it then stands, None where there is none or it ended before."""
        if not _ID.fullmatch(silence_id):
            return None
        try:
            with translated("ending a silence"):
                table = await self._tables.get(SILENCE_TABLE)
                row = await table.get_entity(_PARTITION, silence_id)
                silence = _silence(row)
                if silence is None or silence.ends_at <= at:
                    return None
                ended = replace(silence, ends_at=at)
                await table.update_entity(
                    _row(ended),
                    UpdateMode.REPLACE,
                    etag=row.metadata["etag"],
                    match_condition=MatchConditions.IfNotModified,
                )
                return ended
        except NotFoundError:
            return None


def _row(silence: Silence) -> dict[str, Any]:
    return {
        "PartitionKey": _PARTITION,
        "RowKey": silence.id,
        "Silence": encode_silence(silence),
        "Match": str(silence.match)[:1_000],
        "Stops": silence.stops.value,
        "StartsAt": silence.starts_at,
        "EndsAt": silence.ends_at,
        "CreatedBy": silence.created_by,
        "Why": silence.why,
    }


def _silence(row: Any) -> Silence | None:
    try:
        return decode_silence(str(row.get("Silence", "")))
    except WireError as error:
        problem = str(error)[:500]
        log.warning("unreadable silence: it stops nothing", extra={"id": row["RowKey"], "problem": problem})
        return None
