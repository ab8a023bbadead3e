"""Work on Azure Storage queues: base64 text, as the Functions host reads it; delays by visibility."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import TYPE_CHECKING

from azure.core.exceptions import ResourceExistsError
from azure.storage.queue import TextBase64EncodePolicy

from vm_health.state import Notice
from vm_health.state_codec import encode_notice
from vm_watchdog.azure_errors import translated

if TYPE_CHECKING:
    from azure.storage.queue.aio import QueueClient, QueueServiceClient

RECHECK_QUEUE = "watchdog-recheck"
SHARD_QUEUE = "watchdog-shards"
ALERT_QUEUE = "watchdog-alerts"
MAX_DELAY_SECONDS = 7 * 24 * 3_600  # the service's own limit on visibility


class StorageWorkQueue:
    """Sends to the three queues, which it makes when they are first used."""

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

    async def _send(self, name: str, text: str, delay_seconds: float = 0.0) -> None:
        delay = min(max(0, math.ceil(delay_seconds)), MAX_DELAY_SECONDS)
        with translated(f"queue {name}"):
            queue = await self._queue(name)
            await queue.send_message(text, visibility_timeout=delay)

    async def _queue(self, name: str) -> QueueClient:
        if name not in self._queues:
            queue = self._service.get_queue_client(name, message_encode_policy=TextBase64EncodePolicy())
            with suppress(ResourceExistsError):  # made by the deployment, or by another instance just now
                await queue.create_queue()
            self._queues[name] = queue
        return self._queues[name]
