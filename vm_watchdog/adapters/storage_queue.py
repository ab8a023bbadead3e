"""Work on Azure Storage queues: base64 text, as the Functions host reads and writes it; delays by visibility.

Both ends: what the watchdog sends, and what a host without Azure Functions takes. A message that nobody can
read goes to the poison queue at once, as the Functions host's do after its tries.
"""

from __future__ import annotations

import json
import logging
import math
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from azure.core.exceptions import HttpResponseError, ResourceExistsError

from vm_health.errors import ConflictError, WatchdogError
from vm_health.notice_codec import encode_notice
from vm_health.state import Notice
from vm_watchdog.azure_errors import translated
from vm_watchdog.ports import Work

if TYPE_CHECKING:
    from azure.storage.queue import QueueMessage
    from azure.storage.queue.aio import QueueClient, QueueServiceClient

log = logging.getLogger("vm_watchdog.queue")

RECHECK_QUEUE = "watchdog-recheck"
SHARD_QUEUE = "watchdog-shards"
ALERT_QUEUE = "watchdog-alerts"
POISON_SUFFIX = "-poison"  # the Functions host's own name for it
MAX_DELAY_SECONDS = 7 * 24 * 3_600  # the service's own limit on visibility
MAX_TAKEN = 32  # the service's own limit for one request


@dataclass(frozen=True, slots=True)
class _Receipt:
    """What the service wants to hear about a message that was taken; ``content`` is as it stands there."""

    message_id: str
    pop_receipt: str
    content: str


class StorageWorkQueue:
    """Sends to the queues and takes from them; a queue is made when it is first used."""

    def __init__(self, service: QueueServiceClient) -> None:
        self._service = service
        self._queues: dict[str, QueueClient] = {}

    async def send_recheck(self, vm_id: str, delay_seconds: float) -> None:
        """Ask for a look at ``vm_id`` after ``delay_seconds``, rounded up: never early."""
        await self._send(RECHECK_QUEUE, json.dumps({"vm_id": vm_id}), delay_seconds)

    async def send_shard(self, shard: int, shard_count: int) -> None:
        """Hand one shard of the tick to another instance."""
        await self._send(SHARD_QUEUE, json.dumps({"shard": shard, "shard_count": shard_count}))

    async def send_alert(self, notice: Notice) -> None:
        """Queue a notice for delivery."""
        await self._send(ALERT_QUEUE, encode_notice(notice))

    async def take(self, queue: str, most: int, hidden_seconds: float) -> Sequence[Work]:
        """Take up to ``most`` messages; those not finished in ``hidden_seconds`` come back by themselves."""
        most = min(max(1, most), MAX_TAKEN)
        messages: list[QueueMessage] = []
        with translated(f"queue {queue}"):
            client = await self._queue(queue)
            pages = client.receive_messages(
                messages_per_page=most, visibility_timeout=max(1, _whole(hidden_seconds))
            ).by_page()
            async for page in pages:
                messages = [message async for message in page]
                break  # the pager would go on asking until the queue is empty
        works = []
        for message in messages:
            receipt = _Receipt(str(message.id), str(message.pop_receipt), str(message.content))
            text = _decoded(receipt.content)
            work = Work(queue, receipt.content if text is None else text, message.dequeue_count or 1, receipt)
            if text is None:
                await self._set_aside(work)
            else:
                works.append(work)
        return works

    async def finish(self, work: Work) -> None:
        """Delete a message whose work is done; ConflictError where it is not held now."""
        receipt = _receipt(work)
        with _settling(work.queue):
            client = await self._queue(work.queue)
            await client.delete_message(receipt.message_id, receipt.pop_receipt)

    async def put_back(self, work: Work, delay_seconds: float) -> None:
        """Let a message be seen again after ``delay_seconds``; ConflictError where it is not held now."""
        receipt, delay = _receipt(work), _whole(delay_seconds)
        with _settling(work.queue):
            client = await self._queue(work.queue)
            await client.update_message(receipt.message_id, receipt.pop_receipt, visibility_timeout=delay)

    async def poison(self, work: Work) -> None:
        """Move a message to the poison queue: put there first, so that it may be twice, but never nowhere."""
        name = f"{work.queue}{POISON_SUFFIX}"
        with translated(f"queue {name}"):
            await (await self._queue(name)).send_message(_receipt(work).content)
        await self.finish(work)

    async def _set_aside(self, work: Work) -> None:
        log.error("unreadable message", extra={"queue": work.queue, "content": work.text[:200]})
        try:
            await self.poison(work)
        except WatchdogError as error:  # it comes back, and so does this attempt
            log.warning("message not set aside", extra={"queue": work.queue, "problem": str(error)})

    async def _send(self, name: str, text: str, delay_seconds: float = 0.0) -> None:
        with translated(f"queue {name}"):
            queue = await self._queue(name)
            content = b64encode(text.encode()).decode()
            await queue.send_message(content, visibility_timeout=_whole(delay_seconds))

    async def _queue(self, name: str) -> QueueClient:
        if name not in self._queues:
            queue = self._service.get_queue_client(name)
            with suppress(ResourceExistsError):  # made by the deployment, or by another instance just now
                await queue.create_queue()
            self._queues[name] = queue
        return self._queues[name]


def _decoded(content: str) -> str | None:
    try:
        return b64decode(content, validate=True).decode()
    except ValueError:
        return None


def _receipt(work: Work) -> _Receipt:
    if not isinstance(work.receipt, _Receipt):
        raise TypeError(f"a message of {work.queue} that another source gave")
    return work.receipt


@contextmanager
def _settling(queue: str) -> Iterator[None]:
    """Translate errors of settling a message; a receipt that is not good any more is a lost race.

    404 MessageNotFound and 400 PopReceiptMismatch, by the service's list of queue error codes.
    """
    with translated(f"queue {queue}"):
        try:
            yield
        except HttpResponseError as error:
            if error.status_code == 404 or getattr(error, "error_code", "") == "PopReceiptMismatch":
                raise ConflictError(f"queue {queue}: the message is not held any more") from error
            raise


def _whole(seconds: float) -> int:
    return min(max(0, math.ceil(seconds)), MAX_DELAY_SECONDS)
