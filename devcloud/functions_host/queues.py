"""Feeds queue functions: receives in batches, deletes on success, retries on failure, then the poison queue.

A received message stays hidden for ten minutes, as in Azure; Azure renews that for a longer run, this host
does not, so a function that runs for longer sees its message again.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import random
from typing import Any

import azure.functions.queue as queue_binding
from azure.core.exceptions import AzureError, ResourceExistsError
from azure.storage.queue import QueueMessage
from azure.storage.queue.aio import QueueClient, QueueServiceClient

from .app import HostedFunction
from .host_json import QueueSettings
from .invocation import Invoker

log = logging.getLogger("devcloud.functions_host")

_HIDDEN_WHILE_RUNNING_SECONDS = 600
_SHORTEST_POLL_SECONDS = 0.1
_POISON_SUFFIX = "-poison"
_NEVER_EXPIRES = -1


# The function's own message class: its constructor carries no types.
function_message: Any = queue_binding.QueueMessage


class QueueListener:
    """One queue function's queue."""

    def __init__(
        self,
        function: HostedFunction,
        queue_name: str,
        service: QueueServiceClient,
        settings: QueueSettings,
        invoker: Invoker,
    ) -> None:
        self._function = function
        self._settings = settings
        self._invoker = invoker
        self._queue: QueueClient = service.get_queue_client(queue_name)
        self._poison: QueueClient | None = None
        # A poison queue's own trigger has nowhere further to send a message that it can't handle.
        if not queue_name.endswith(_POISON_SUFFIX):
            self._poison = service.get_queue_client(queue_name + _POISON_SUFFIX)
        self._stopping = asyncio.Event()
        self._handling: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Receive until ``stop``, then wait for the messages that are being handled."""
        created = False
        idle_seconds = _SHORTEST_POLL_SECONDS
        while not self._stopping.is_set():
            messages: list[QueueMessage] = []
            try:
                if not created:
                    await _create(self._queue)
                    created = True
                messages = await self._receive()
            except AzureError as error:
                created = False
                log.warning(
                    "queue cannot be read",
                    extra={"queue": self._queue.queue_name, "error": _first_line(error)},
                )
            for message in messages:
                task = asyncio.create_task(self._handle(message))
                self._handling.add(task)
                task.add_done_callback(self._handling.discard)
            if messages:
                idle_seconds = _SHORTEST_POLL_SECONDS
                await self._wait_for_room()
            else:
                await self._wait(idle_seconds * random.uniform(0.8, 1.0))
                idle_seconds = min(idle_seconds * 2, self._settings.max_polling_interval_seconds)
        if self._handling:
            await asyncio.wait(self._handling)

    def stop(self) -> None:
        """Receive no more; messages being handled are finished."""
        self._stopping.set()

    async def _wait(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return

    async def _wait_for_room(self) -> None:
        while len(self._handling) > self._settings.new_batch_threshold and not self._stopping.is_set():
            await asyncio.wait(self._handling, return_when=asyncio.FIRST_COMPLETED)

    async def _receive(self) -> list[QueueMessage]:
        # One page is one request; iterating the messages would ask again after a page that was not full.
        pages = self._queue.receive_messages(
            messages_per_page=self._settings.batch_size, visibility_timeout=_HIDDEN_WHILE_RUNNING_SECONDS
        ).by_page()
        async for page in pages:
            return [message async for message in page]
        return []

    async def _handle(self, message: QueueMessage) -> None:
        try:
            await self._process(message)
        except AzureError as error:
            log.warning(
                "queue message cannot be settled; it will be seen again",
                extra={
                    "queue": self._queue.queue_name,
                    "message_id": message.id,
                    "error": _first_line(error),
                },
            )

    async def _process(self, message: QueueMessage) -> None:
        attempt = message.dequeue_count or 1
        body = self._decode(message.content)
        if body is None or (attempt > self._settings.max_dequeue_count and self._poison is not None):
            await self._give_up(message, "it is not base64" if body is None else "it was tried too often")
            return
        argument = function_message(
            id=message.id,
            body=body,
            dequeue_count=attempt,
            expiration_time=message.expires_on,
            insertion_time=message.inserted_on,
            time_next_visible=message.next_visible_on,
            pop_receipt=message.pop_receipt,
        )
        outcome = await self._invoker.invoke(self._function, argument)
        if outcome.error is None:
            await self._queue.delete_message(message)
        elif attempt >= self._settings.max_dequeue_count:
            await self._give_up(message, "it failed every time")
        else:
            await self._queue.update_message(
                message, visibility_timeout=round(self._settings.visibility_timeout_seconds)
            )

    async def _give_up(self, message: QueueMessage, why: str) -> None:
        if self._poison is None:
            # Left hidden until its time-out, as Azure does: releasing it would be a loop without a pause.
            return
        extra = {"queue": self._queue.queue_name, "message_id": message.id, "why": why}
        log.error("message moved to the poison queue", extra=extra)
        await _create(self._poison)
        await self._poison.send_message(message.content, time_to_live=_NEVER_EXPIRES)
        await self._queue.delete_message(message)

    def _decode(self, content: str) -> bytes | None:
        if self._settings.message_encoding == "none":
            return content.encode()
        try:
            return base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError):
            return None


async def _create(queue: QueueClient) -> None:
    try:
        await queue.create_queue()
    except ResourceExistsError:
        return


def _first_line(error: AzureError) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
