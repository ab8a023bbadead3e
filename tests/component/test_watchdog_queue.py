"""Both ends of the queues over Storage queues as Azurite serves them, and as the Functions host uses them."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from azure.storage.queue import QueueMessage
from azure.storage.queue.aio import QueueServiceClient

from devcloud.azurite import Azurite
from tests import fake_ports
from tests.builders import VM_ID, a_notice
from tests.component.devcloud_site import Site
from tests.contracts import work_queue
from tests.contracts.work_queue import WorkQueueContract
from vm_health.errors import TransientError
from vm_health.notice_codec import decode_notice
from vm_watchdog.adapters.storage_queue import (
    ALERT_QUEUE,
    RECHECK_QUEUE,
    SHARD_QUEUE,
    StorageWorkQueue,
)

pytest_plugins = ["tests.component.devcloud_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def service(shared_site: Site, azurite: Azurite) -> AsyncIterator[QueueServiceClient]:
    """The queue service without any queue of the watchdog."""
    async with QueueServiceClient(azurite.queue_url, **options_of(shared_site)) as client:
        for name in [queue.name async for queue in client.list_queues(name_starts_with="watchdog-")]:
            await client.delete_queue(name)
        yield client


def options_of(site: Site) -> dict[str, Any]:
    """How a client reaches the local service."""
    return {"credential": site.credential, "connection_verify": str(site.cloud.ca_file)}


async def received(service: QueueServiceClient, name: str) -> list[QueueMessage]:
    """The messages that are visible now, as the Functions host would get them."""
    return [
        message async for message in service.get_queue_client(name).receive_messages(messages_per_page=32)
    ]


def decoded(message: QueueMessage) -> Any:
    """The host's reading: base64, then UTF-8, then JSON."""
    return json.loads(base64.b64decode(message.content, validate=True).decode("utf-8"))


class TestStorageWorkQueue(WorkQueueContract):
    @pytest.fixture
    def queue(self, service: QueueServiceClient) -> StorageWorkQueue:
        return StorageWorkQueue(service)

    @pytest.fixture
    def pass_time(self) -> Callable[[float], Awaitable[None]]:
        """The service's clock is the real one, and it keeps whole seconds: a part of one is added."""

        async def wait(seconds: float) -> None:
            await asyncio.sleep(seconds + 1)

        return wait


async def test_the_fakes_queues_have_the_real_names() -> None:
    for module in (fake_ports, work_queue):
        assert (module.RECHECK_QUEUE, module.SHARD_QUEUE, module.ALERT_QUEUE) == (
            RECHECK_QUEUE,
            SHARD_QUEUE,
            ALERT_QUEUE,
        )


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


async def test_the_largest_notice_fits_a_message(service: QueueServiceClient) -> None:
    notice = a_notice(subjects=tuple("ü" * 250 for _ in range(500)), reason="🌉" * 10_000)
    await StorageWorkQueue(service).send_alert(notice)
    (message,) = await received(service, ALERT_QUEUE)
    assert 32_000 < len(message.content) <= 64 * 1024
    assert decoded(message)["key"] == notice.key


async def test_a_look_for_later_is_never_early(service: QueueServiceClient) -> None:
    """The service keeps whole seconds, so that its clock may be ahead of ours by a part of one."""
    work = StorageWorkQueue(service)
    started = time.monotonic()
    await work.send_recheck(VM_ID, 1.5)
    while not (late := await received(service, RECHECK_QUEUE)):
        assert time.monotonic() - started < 10
    assert len(late) == 1
    assert time.monotonic() - started >= 1.0


@pytest.mark.parametrize("content", ["not base64!", "ÿ", base64.b64encode(b"\xff\xfe").decode(), "abc"])
async def test_a_message_that_cannot_be_decoded_is_set_aside_and_the_others_are_taken(
    service: QueueServiceClient, content: str
) -> None:
    queue = StorageWorkQueue(service)
    await queue.send_shard(0, 2)
    await service.get_queue_client(SHARD_QUEUE).send_message(content)
    await queue.send_shard(1, 2)
    works = await queue.take(SHARD_QUEUE, 32, 1)
    assert sorted(json.loads(work.text)["shard"] for work in works) == [0, 1]
    (poisoned,) = await received(service, f"{SHARD_QUEUE}-poison")
    assert poisoned.content == content
    for work in works:
        await queue.finish(work)
    properties = await service.get_queue_client(SHARD_QUEUE).get_queue_properties()
    assert properties.approximate_message_count == 0


async def test_an_empty_message_is_one_that_says_nothing(service: QueueServiceClient) -> None:
    """It is base64, of nothing: whoever works on it finds that it is no JSON."""
    queue = StorageWorkQueue(service)
    await queue.send_shard(0, 2)
    await service.get_queue_client(SHARD_QUEUE).send_message("")
    assert "" in [work.text for work in await queue.take(SHARD_QUEUE, 32, 30)]


async def test_another_instance_made_the_queue_first(service: QueueServiceClient) -> None:
    for _ in range(2):
        await StorageWorkQueue(service).send_shard(0, 2)
    assert len(await received(service, SHARD_QUEUE)) == 2


async def test_work_of_another_source_is_refused(service: QueueServiceClient) -> None:
    fake = fake_ports.FakeQueue()
    await fake.send_shard(0, 2)
    (work,) = await fake.take(SHARD_QUEUE, 1, 30)
    with pytest.raises(TypeError, match="another source"):
        await StorageWorkQueue(service).finish(work)


async def test_a_service_that_does_not_answer_is_a_transient_error(shared_site: Site) -> None:
    url = "https://127.0.0.1:9/devstoreaccount1"
    async with QueueServiceClient(url, retry_total=0, **options_of(shared_site)) as dead:
        with pytest.raises(TransientError, match="queue watchdog-shards"):
            await StorageWorkQueue(dead).send_shard(0, 1)
        with pytest.raises(TransientError, match="queue watchdog-shards"):
            await StorageWorkQueue(dead).take(SHARD_QUEUE, 1, 30)
