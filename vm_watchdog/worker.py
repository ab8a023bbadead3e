"""Hosting without Azure Functions: ticks on a schedule, and the queues worked off, until told to stop.

It keeps time and takes messages; what a tick or a message means is the watchdog's business. One of these a
process. Several processes may run beside each other: ETags decide who acts, as everywhere.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from vm_health.errors import ConflictError, TransientError, WatchdogError, WireError
from vm_watchdog.ports import Work, WorkSource

log = logging.getLogger("vm_watchdog.worker")

Handler = Callable[[str], Awaitable[object]]
MOST_AT_ONCE = 32  # the queue service gives no more messages to one request


class Time(Protocol):
    """A clock that can be waited on; seconds of no particular beginning."""

    def now(self) -> float: ...

    async def wait_until(self, moment: float, stop: asyncio.Event) -> bool:
        """Wait for ``moment`` or for ``stop``, whichever comes first; True: it was ``stop``."""
        ...


class LoopTime:
    """The event loop's own clock, which no change of the wall clock moves."""

    def now(self) -> float:
        """Return seconds of the running loop."""
        return asyncio.get_running_loop().time()

    async def wait_until(self, moment: float, stop: asyncio.Event) -> bool:
        """Wait for ``moment`` or for ``stop``."""
        try:
            async with asyncio.timeout_at(moment):
                await stop.wait()
        except TimeoutError:
            return stop.is_set()
        return True


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How often and how much.

    Args:
        every_seconds: from the start of a tick to the start of the next.
        at_once: messages of one queue that are worked on at the same time.
        poll_seconds: how long an empty queue is left alone: that late a message may be.
        hidden_seconds: how long a taken message is kept from others; work on it may take nearly that long.
        most_takes: a message that was taken this often without success goes to the poison queue.
        retry_seconds: waits before the second, third… take; the last one repeats.
        longest_poll_seconds: how long a queue that can't be read is left alone at the most.
        tick_timeout_seconds: a tick that takes longer is given up; every call in it has a time-out already.
    """

    every_seconds: float = 60.0
    at_once: int = 16
    poll_seconds: float = 0.5
    hidden_seconds: float = 300.0
    most_takes: int = 5
    retry_seconds: tuple[float, ...] = (10.0, 30.0, 90.0, 270.0)
    longest_poll_seconds: float = 30.0
    tick_timeout_seconds: float = 600.0


class Worker:
    """Runs ``tick`` on schedule and one handler a queue."""

    def __init__(
        self,
        tick: Callable[[], Awaitable[object]],
        source: WorkSource,
        handlers: Mapping[str, Handler],
        options: WorkerOptions,
        time: Time,
    ) -> None:
        self._tick = tick
        self._source = source
        self._handlers = dict(handlers)
        self._options = options
        self._time = time

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop``; then finish what is in hand, and return."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick_on_schedule(stop))
            for queue, handle in self._handlers.items():
                group.create_task(self._serve(queue, handle, stop))

    async def _tick_on_schedule(self, stop: asyncio.Event) -> None:
        """Tick at start, start + every, start + 2 × every…; a slow tick skips turns and shifts none."""
        every, start, turn = self._options.every_seconds, self._time.now(), 0
        while not await self._time.wait_until(start + turn * every, stop):
            try:
                async with asyncio.timeout(self._options.tick_timeout_seconds):
                    await self._tick()
            except Exception:
                log.exception("tick failed")
            # At least one on: what rounding makes of the clock must never run one turn twice.
            following = max(turn + 1, math.floor((self._time.now() - start) / every) + 1)
            if following > turn + 1:
                skipped = following - turn - 1
                log.warning("ticks skipped: one took too long", extra={"skipped": skipped})
            turn = following

    async def _serve(self, queue: str, handle: Handler, stop: asyncio.Event) -> None:
        at_work: set[asyncio.Task[None]] = set()
        failures = 0
        while not stop.is_set():
            if len(at_work) >= self._options.at_once:
                await asyncio.wait(at_work, return_when=asyncio.FIRST_COMPLETED)
                continue
            works = await self._take(queue, self._options.at_once - len(at_work))
            failures = failures + 1 if works is None else 0
            for work in works or ():
                task = asyncio.create_task(self._work(work, handle))
                at_work.add(task)
                task.add_done_callback(at_work.discard)
            if not works:
                await self._time.wait_until(self._time.now() + self._pause(failures), stop)
        if at_work:
            await asyncio.wait(at_work)

    async def _take(self, queue: str, most: int) -> Sequence[Work] | None:
        """Return messages; None where the queue can't be read, which must not end the worker."""
        try:
            return await self._source.take(queue, min(most, MOST_AT_ONCE), self._options.hidden_seconds)
        except WatchdogError as error:
            log.warning("queue unreadable", extra={"queue": queue, "problem": str(error)})
        except Exception:
            log.exception("queue unreadable", extra={"queue": queue})
        return None

    def _pause(self, failures: int) -> float:
        growing = self._options.poll_seconds * 2.0 ** min(failures, 16)
        return min(growing, max(self._options.longest_poll_seconds, self._options.poll_seconds))

    async def _work(self, work: Work, handle: Handler) -> None:
        """Do what one message asks for, and see to it that the message goes where it belongs."""
        try:
            if work.dequeue_count > self._options.most_takes:
                # Whoever had it before did not even get to give it back: it may have ended the process.
                await self._give_up(work, "it was taken too often")
                return
            error = await self._handled(work, handle)
            if error is None:
                await self._source.finish(work)
            elif isinstance(error, WireError) or work.dequeue_count >= self._options.most_takes:
                await self._give_up(work, str(error) or type(error).__name__)
            else:
                await self._source.put_back(work, self._retry_seconds(work, error))
        except ConflictError:
            log.info("another worker has this message", extra={"queue": work.queue})
        except Exception as error:
            # The message comes back by itself once its time of being hidden is over: nothing is lost.
            log.exception("message not settled", extra={"queue": work.queue, "problem": str(error)})

    async def _handled(self, work: Work, handle: Handler) -> Exception | None:
        try:
            # Shorter than the message stays hidden: nobody else shall begin it while this one is at it.
            async with asyncio.timeout(self._options.hidden_seconds * 0.9):
                await handle(work.text)
        except Exception as error:
            problem = {"queue": work.queue, "take": work.dequeue_count, "problem": str(error)}
            if isinstance(error, WatchdogError):
                log.warning("message failed", extra=problem)
            else:
                log.exception("message failed", extra=problem)
            return error
        return None

    async def _give_up(self, work: Work, why: str) -> None:
        log.error(
            "message poisoned", extra={"queue": work.queue, "takes": work.dequeue_count, "problem": why}
        )
        await self._source.poison(work)

    def _retry_seconds(self, work: Work, error: Exception) -> float:
        if isinstance(error, TransientError) and error.retry_after_seconds is not None:
            return error.retry_after_seconds
        steps = self._options.retry_seconds
        return steps[min(max(work.dequeue_count, 1), len(steps)) - 1]
