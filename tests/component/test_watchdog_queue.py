"""The WorkQueue port: over the tests' fake, and over Storage queues as Azurite serves them."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from azure.storage.queue import QueueMessage
from azure.storage.queue.aio import QueueServiceClient

from devcloud.azurite import Azurite
from tests.builders import VM_ID, a_notice
from tests.component.devcloud_site import Site
from tests.fakes import FakeQueue
from vm_health.errors import TransientError
from vm_health.state_codec import decode_notice
from vm_watchdog.adapters.storage_queue import (
    ALERT_QUEUE,
    RECHECK_QUEUE,
    SHARD_QUEUE,
    StorageWorkQueue,
)
from vm_watchdog.ports import WorkQueue

pytest_plugins = ["tests.component.devcloud_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def service(shared_site: Site, azurite: Azurite) -> AsyncIterator[QueueServiceClient]:
    """The queue service without any queue of the watchdog."""
    options = {"credential": shared_site.credential, "connection_verify": str(shared_site.cloud.ca_file)}
    async with QueueServiceClient(azurite.queue_url, **options) as client:
        for name in [queue.name async for queue in client.list_queues(name_starts_with="watchdog-")]:
            await client.delete_queue(name)
        yield client


async def received(service: QueueServiceClient, name: str) -> list[QueueMessage]:
    """The messages that are visible now, as the Functions host would get them."""
    return [
        message async for message in service.get_queue_client(name).receive_messages(messages_per_page=32)
    ]


def decoded(message: QueueMessage) -> Any:
    """The host's reading: base64, then UTF-8, then JSON."""
    return json.loads(base64.b64decode(message.content, validate=True).decode("utf-8"))


@pytest.fixture(params=["fake", "azurite"])
def queue(request: pytest.FixtureRequest) -> WorkQueue:
    """Both implementations of the port."""
    return FakeQueue() if request.param == "fake" else StorageWorkQueue(request.getfixturevalue("service"))


async def test_all_three_kinds_are_taken(queue: WorkQueue) -> None:
    """And the queues are made at first use, whoever made them before."""
    for _ in range(2):
        await queue.send_recheck(VM_ID, 0.0)
        await queue.send_shard(1, 2)
        await queue.send_alert(a_notice())


async def test_messages_are_base64_json_as_the_host_reads_them(service: QueueServiceClient) -> None:
    work = StorageWorkQueue(service)
    notice = a_notice(reason="Zürich 🌉 <&>\u2028")
    await work.send_recheck(VM_ID, 0.0)
    await work.send_shard(3, 16)
    await work.send_alert(notice)
    (recheck,) = await received(service, RECHECK_QUEUE)
    (shard,) = await received(service, SHARD_QUEUE)
    (alert,) = await received(service, ALERT_QUEUE)
    assert decoded(recheck) == {"vm_id": VM_ID}
    assert decoded(shard) == {"shard": 3, "shard_count": 16}
    assert decode_notice(json.dumps(decoded(alert))) == notice


async def test_a_look_for_later_is_hidden_until_then_and_never_early(
    service: QueueServiceClient,
) -> None:
    """Half a second is rounded up to one; a look for now and one for the past are there at once."""
    work = StorageWorkQueue(service)
    started = time.monotonic()
    await work.send_recheck(VM_ID, 0.5)
    await work.send_recheck(VM_ID, 600)
    await work.send_recheck(VM_ID, 10**9)  # beyond what the service takes: seven days
    for delay in (0.0, -5.0):
        await work.send_recheck(VM_ID, delay)
    assert len(await received(service, RECHECK_QUEUE)) == 2
    while not (late := await received(service, RECHECK_QUEUE)):
        assert time.monotonic() - started < 10
    # The service keeps whole seconds, so that its clock may be ahead of ours by a part of one.
    assert len(late) == 1
    assert time.monotonic() - started >= 0.5
    assert await received(service, RECHECK_QUEUE) == []


async def test_another_instance_made_the_queue_first(service: QueueServiceClient) -> None:
    for _ in range(2):
        await StorageWorkQueue(service).send_shard(0, 2)
    assert len(await received(service, SHARD_QUEUE)) == 2


async def test_a_service_that_does_not_answer_is_a_transient_error(shared_site: Site) -> None:
    options = {"credential": shared_site.credential, "connection_verify": str(shared_site.cloud.ca_file)}
    async with QueueServiceClient("https://127.0.0.1:9/devstoreaccount1", retry_total=0, **options) as dead:
        with pytest.raises(TransientError, match="queue watchdog-shards"):
            await StorageWorkQueue(dead).send_shard(0, 1)
