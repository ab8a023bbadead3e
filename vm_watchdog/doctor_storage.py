"""Proves that tables and queues can be made, written, read and deleted, on a table and a queue of its own.

Nothing of the watchdog's is touched, and what was made is deleted again, whatever happens in between.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from azure.core.exceptions import AzureError
from azure.data.tables import UpdateMode

from vm_watchdog.doctor import Finding, Need, Verdict

if TYPE_CHECKING:
    from azure.data.tables.aio import TableServiceClient
    from azure.storage.queue.aio import QueueServiceClient

CLEAN_UP_SECONDS = 10.0


def table_need(endpoint: str) -> Need:
    """Return the role that tables need."""
    return Need('the role "Storage Table Data Contributor"', f"the storage account of {_host(endpoint)}")


def queue_need(endpoint: str) -> Need:
    """Return the role that queues need."""
    return Need('the role "Storage Queue Data Contributor"', f"the storage account of {_host(endpoint)}")


async def try_tables(service: TableServiceClient) -> Finding:
    """Make a table, write, change, read and delete a row in it, and delete it."""
    name = f"watchdogdoctor{secrets.token_hex(8)}"
    row: dict[str, Any] = {"PartitionKey": "doctor", "RowKey": "1", "Value": 1}
    async with _cleaned_up(lambda: service.delete_table(name)):
        table = await service.create_table(name)
        await table.create_entity(row)
        await table.update_entity({**row, "Value": 2}, UpdateMode.REPLACE)
        found = await table.get_entity("doctor", "1")
        if found["Value"] != 2:
            return Finding(Verdict.FAIL, f"a row was written with 2 and read with {found['Value']!r}")
        await table.delete_entity("doctor", "1")
    return Finding(Verdict.OK, "a table made, a row written, changed, read and deleted, the table deleted")


async def try_queues(service: QueueServiceClient) -> Finding:
    """Make a queue, send, receive and delete a message in it, and delete it."""
    name = f"watchdog-doctor-{secrets.token_hex(8)}"
    async with _cleaned_up(lambda: service.delete_queue(name)):
        queue = await service.create_queue(name)
        await queue.send_message("doctor")
        message = await queue.receive_message(visibility_timeout=30)
        if message is None or message.content != "doctor":
            return Finding(Verdict.FAIL, "a message was sent and did not come back")
        await queue.delete_message(message)
    return Finding(Verdict.OK, "a queue made, a message sent, received and deleted, the queue deleted")


@asynccontextmanager
async def _cleaned_up(delete: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Delete afterwards what the block has made; a time-out of the check is no reason not to."""
    try:
        yield
    except BaseException:
        with suppress(AzureError, TimeoutError):
            await _within(delete())
        raise
    await _within(delete())


async def _within(work: Awaitable[object]) -> None:
    async with asyncio.timeout(CLEAN_UP_SECONDS):
        await work


def _host(endpoint: str) -> str:
    return urlsplit(endpoint).netloc
