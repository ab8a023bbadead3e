"""What the table adapters share: tables made at first use, and texts that are longer than a column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azure.data.tables.aio import TableClient, TableServiceClient

STATE_TABLE = "vmstate"
EVENT_TABLE = "events"
SILENCE_TABLE = "silences"
META_PARTITION = "meta"  # in STATE_TABLE; sorts after the VMs' "0"…"f", so that no shard's range holds it

COLUMN_CHARS = 30_000  # a string property holds 64 KiB of UTF-16, two bytes for an ASCII character
MAX_COLUMNS = 16


class Tables:
    """The tables of one storage account, each made when it is first asked for."""

    def __init__(self, service: TableServiceClient) -> None:
        self._service = service
        self._tables: dict[str, TableClient] = {}

    async def get(self, name: str) -> TableClient:
        """Return a table's client."""
        if name not in self._tables:
            self._tables[name] = await self._service.create_table_if_not_exists(name)
        return self._tables[name]


def spread(column: str, text: str) -> dict[str, str]:
    """Cut an ASCII text of any length over ``column``, ``column2``, ``column3``…

    Raises:
        ValueError: it is not ASCII, or longer than MAX_COLUMNS hold; encoders see to both.
    """
    if not text.isascii() or len(text) > MAX_COLUMNS * COLUMN_CHARS:
        raise ValueError(f"{column} must be at most {MAX_COLUMNS * COLUMN_CHARS} ASCII characters")
    parts = [text[start : start + COLUMN_CHARS] for start in range(0, len(text), COLUMN_CHARS)] or [""]
    return dict(zip(column_names(column), parts, strict=False))


def joined(column: str, row: Mapping[str, Any]) -> str:
    """Return the text that :func:`spread` cut; empty where there is none."""
    first = row.get(column)
    if first is None:
        return ""
    second = row.get(f"{column}2")
    if second is None:  # nearly always
        return str(first)
    parts = [str(first), str(second)]
    for number in range(3, MAX_COLUMNS + 1):
        part = row.get(f"{column}{number}")
        if part is None:
            break
        parts.append(str(part))
    return "".join(parts)


def column_names(column: str) -> list[str]:
    """Return the names of all columns that a text may be spread over."""
    return [column, *(f"{column}{number}" for number in range(2, MAX_COLUMNS + 1))]
