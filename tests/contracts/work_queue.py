"""What every pair of WorkQueue and WorkSource keeps."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Protocol

import pytest

from tests.builders import VM_ID, a_notice
from vm_health.errors import ConflictError
from vm_health.notice_codec import decode_notice
from vm_watchdog.ports import Work, WorkQueue, WorkSource

RECHECK_QUEUE = "watchdog-recheck"
SHARD_QUEUE = "watchdog-shards"
ALERT_QUEUE = "watchdog-alerts"
QUEUES = (RECHECK_QUEUE, SHARD_QUEUE, ALERT_QUEUE)

Passing = Callable[[float], Awaitable[None]]


class BothEnds(WorkQueue, WorkSource, Protocol):
    """A queue that is sent to and taken from."""


class WorkQueueContract:
    """Derive and give the fixtures ``queue`` (empty) and ``pass_time`` (seconds pass for the queue)."""

    async def test_what_is_sent_is_taken(self, queue: BothEnds) -> None:
        notice = a_notice(reason="Zürich 🌉 <&>\u2028")
        await queue.send_recheck(VM_ID, 0.0)
        await queue.send_shard(3, 16)
        await queue.send_alert(notice)
        (recheck,), (shard,), (alert,) = [await queue.take(name, 32, 30) for name in QUEUES]
        assert (recheck.queue, recheck.dequeue_count) == (RECHECK_QUEUE, 1)
        assert json.loads(recheck.text) == {"vm_id": VM_ID}
        assert json.loads(shard.text) == {"shard": 3, "shard_count": 16}
        assert decode_notice(alert.text) == notice

    async def test_an_empty_queue_gives_nothing(self, queue: BothEnds) -> None:
        for name in (*QUEUES, "watchdog-never-used"):
            assert await queue.take(name, 32, 30) == []

    async def test_no_more_is_taken_than_asked_for(self, queue: BothEnds) -> None:
        for number in range(5):
            await queue.send_shard(number, 16)
        first = await queue.take(SHARD_QUEUE, 2, 30)
        rest = await queue.take(SHARD_QUEUE, 32, 30)
        assert (len(first), len(rest)) == (2, 3)
        assert {json.loads(work.text)["shard"] for work in [*first, *rest]} == set(range(5))

    async def test_what_is_taken_is_hidden_and_what_is_finished_is_gone(
        self, queue: BothEnds, pass_time: Passing
    ) -> None:
        await queue.send_shard(0, 2)
        (work,) = await queue.take(SHARD_QUEUE, 32, 1)
        assert await queue.take(SHARD_QUEUE, 32, 1) == []
        await queue.finish(work)
        await pass_time(1)
        assert await queue.take(SHARD_QUEUE, 32, 1) == []

    async def test_what_is_not_finished_comes_back_and_is_counted(
        self, queue: BothEnds, pass_time: Passing
    ) -> None:
        await queue.send_shard(0, 2)
        (first,) = await queue.take(SHARD_QUEUE, 32, 1)
        await pass_time(1)
        (second,) = await queue.take(SHARD_QUEUE, 32, 30)
        assert (second.text, first.dequeue_count, second.dequeue_count) == (first.text, 1, 2)

    async def test_a_message_that_another_has_taken_since_is_not_held_any_more(
        self, queue: BothEnds, pass_time: Passing
    ) -> None:
        """Or it would be deleted under the other's hands, and put back while that one works on it."""
        await queue.send_shard(0, 2)
        (late,) = await queue.take(SHARD_QUEUE, 32, 1)
        await pass_time(1)
        (held,) = await queue.take(SHARD_QUEUE, 32, 30)
        with pytest.raises(ConflictError):
            await queue.finish(late)
        with pytest.raises(ConflictError):
            await queue.put_back(late, 0)
        await queue.finish(held)
        with pytest.raises(ConflictError):
            await queue.finish(held)

    async def test_what_is_put_back_is_seen_again_after_the_delay(
        self, queue: BothEnds, pass_time: Passing
    ) -> None:
        for number in range(2):
            await queue.send_shard(number, 2)
        taken = {json.loads(work.text)["shard"]: work for work in await queue.take(SHARD_QUEUE, 32, 30)}
        await queue.put_back(taken[0], 0)
        await queue.put_back(taken[1], 0.5)
        assert await shards(queue) == [0]
        await pass_time(1)
        assert await shards(queue) == [1]

    async def test_a_look_for_later_is_hidden_until_then(self, queue: BothEnds, pass_time: Passing) -> None:
        """Half a second may be rounded up to one; a look for the past is there at once."""
        for delay in (0.5, 600.0, 10.0**9, -5.0):  # the third is beyond what the service takes: seven days
            await queue.send_recheck(f"{delay}", delay)
        assert [json.loads(work.text)["vm_id"] for work in await queue.take(RECHECK_QUEUE, 32, 30)] == [
            "-5.0"
        ]
        await pass_time(1)
        assert [json.loads(work.text)["vm_id"] for work in await queue.take(RECHECK_QUEUE, 32, 30)] == ["0.5"]

    async def test_a_message_that_keeps_failing_is_moved_as_it_is(self, queue: BothEnds) -> None:
        notice = a_notice()
        await queue.send_alert(notice)
        (work,) = await queue.take(ALERT_QUEUE, 32, 1)
        await queue.poison(work)
        (poisoned,) = await queue.take(f"{ALERT_QUEUE}-poison", 32, 30)
        assert decode_notice(poisoned.text) == notice
        assert poisoned.dequeue_count == 1
        with pytest.raises(ConflictError):
            await queue.finish(work)
        await queue.finish(poisoned)


async def shards(queue: BothEnds) -> list[int]:
    """Take what is there; the shards it speaks of."""
    works: list[Work] = [*await queue.take(SHARD_QUEUE, 32, 30)]
    return sorted(json.loads(work.text)["shard"] for work in works)
