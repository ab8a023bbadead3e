"""The worker: its schedule, its queues and its end, in a time that passes only when the test says so."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from vm_health.errors import PermanentError, TransientError, WireError
from vm_watchdog.ports import Work
from vm_watchdog.worker import LoopTime, Worker, WorkerOptions

QUEUE = "rechecks"


class FakeTime:
    """Stands still until ``advance``; then it stops at every moment that somebody waits for."""

    def __init__(self) -> None:
        self._now = 1_000.0  # a clock of no particular beginning
        self._waits: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def now(self) -> float:
        return self._now

    async def wait_until(self, moment: float, stop: asyncio.Event) -> bool:
        if moment <= self._now or stop.is_set():
            return stop.is_set()
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._waits, (moment, self._count, reached))
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait([reached, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        return stop.is_set()

    async def advance(self, seconds: float) -> None:
        end = self._now + seconds
        await settle()
        while self._waits and self._waits[0][0] <= end:
            self._now, _, reached = heapq.heappop(self._waits)
            if not reached.done():
                reached.set_result(None)
            await settle()
        self._now = end
        await settle()


async def settle() -> None:
    """Let every task run until it waits for something."""
    for _ in range(25):
        await asyncio.sleep(0)


@dataclass
class Source:
    """A queue in the worker's time; ``journal`` holds what became of messages."""

    time: FakeTime
    waiting: list[tuple[float, Work]] = field(default_factory=list)
    journal: list[str] = field(default_factory=list)
    takes: list[tuple[float, int]] = field(default_factory=list)
    take_errors: list[Exception] = field(default_factory=list)
    settle_error: Exception | None = None

    def send(self, text: str, visible_at: float = 0.0, takes: int = 0, queue: str = QUEUE) -> None:
        self.waiting.append((visible_at, Work(queue, text, takes, None)))

    async def take(self, queue: str, most: int, hidden_seconds: float) -> Sequence[Work]:
        self.takes.append((self.time.now() - 1_000.0, most))
        if self.take_errors:
            raise self.take_errors.pop(0)
        seen = [
            item for item in self.waiting if item[0] <= self.time.now() - 1_000.0 and item[1].queue == queue
        ]
        for item in seen[:most]:
            self.waiting.remove(item)
        return [replace(work, dequeue_count=work.dequeue_count + 1) for _, work in seen[:most]]

    async def finish(self, work: Work) -> None:
        self._note(f"finished {work.text}")

    async def put_back(self, work: Work, delay_seconds: float) -> None:
        self._note(f"{work.text} back in {delay_seconds:g} s")
        self.waiting.append((self.time.now() - 1_000.0 + delay_seconds, work))

    async def poison(self, work: Work) -> None:
        self._note(f"poisoned {work.text} from {work.queue}")

    def _note(self, entry: str) -> None:
        if self.settle_error is not None:
            raise self.settle_error
        self.journal.append(entry)


@dataclass
class Site:
    """A running worker, what it ticks and handles, and its time in seconds since its start."""

    time: FakeTime
    source: Source
    stop: asyncio.Event
    running: asyncio.Task[None]
    ticks: list[float]
    handled: list[tuple[float, str]]

    @property
    def seconds(self) -> float:
        return self.time.now() - 1_000.0


async def nothing(_text: str = "") -> None:
    """Do it."""


@asynccontextmanager
async def a_worker(
    *,
    tick: Callable[[], Awaitable[object]] = nothing,
    handle: Callable[[str], Awaitable[object]] = nothing,
    options: WorkerOptions | None = None,
    queue: str = QUEUE,
) -> AsyncIterator[Site]:
    time = FakeTime()
    source, stop = Source(time), asyncio.Event()
    ticks: list[float] = []
    handled: list[tuple[float, str]] = []

    async def ticking() -> None:
        ticks.append(time.now() - 1_000.0)
        await tick()

    async def handling(text: str) -> None:
        handled.append((time.now() - 1_000.0, text))
        await handle(text)

    worker = Worker(ticking, source, {queue: handling}, options or WorkerOptions(), time)
    running = asyncio.create_task(worker.run(stop))
    yield Site(time, source, stop, running, ticks, handled)
    stop.set()
    await settle()
    assert running.done(), "the worker does not end"
    await running


# --- the schedule ----------------------------------------------------------------------------------------


async def test_ticks_at_once_and_then_on_the_minute() -> None:
    async with a_worker() as site:
        await site.time.advance(185)
        assert site.ticks == [0, 60, 120, 180]


async def test_a_slow_tick_skips_its_turn_without_overlap_and_without_shifting_the_rest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    released = asyncio.Event()
    async with a_worker(tick=released.wait) as site:
        await site.time.advance(70)
        assert site.ticks == [0]
        released.set()
        await site.time.advance(120)
        assert site.ticks == [0, 120, 180]
    assert [record.__dict__["skipped"] for record in caplog.records if "skipped" in record.__dict__] == [1]


async def test_fractions_of_a_second_do_not_add_up_to_a_drift() -> None:
    async with a_worker(options=WorkerOptions(every_seconds=0.1)) as site:
        await site.time.advance(100.05)
        assert len(site.ticks) == 1001
        assert site.ticks[-1] == pytest.approx(100.0)


@pytest.mark.parametrize("error", [PermanentError("403"), RuntimeError("the unforeseen")])
async def test_a_tick_that_fails_is_logged_and_the_next_one_comes(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing() -> None:
        raise error

    async with a_worker(tick=failing) as site:
        await site.time.advance(60)
        assert site.ticks == [0, 60]
    assert [record.message for record in caplog.records] == ["tick failed", "tick failed"]


async def test_a_tick_that_never_ends_is_given_up() -> None:
    options = WorkerOptions(tick_timeout_seconds=0.0)
    async with a_worker(tick=asyncio.Event().wait, options=options) as site:
        await site.time.advance(1)
        async with asyncio.timeout(10):
            while len(site.ticks) < 3:
                await site.time.advance(60)


# --- messages --------------------------------------------------------------------------------------------


async def test_a_message_is_taken_within_a_second_of_its_moment_and_finished() -> None:
    async with a_worker() as site:
        site.source.send("look", visible_at=10.2)
        await site.time.advance(10.1)
        assert site.handled == []
        await site.time.advance(0.9)
        [(moment, text)] = site.handled
        assert 10.2 <= moment <= 11.2
        assert (text, site.source.journal) == ("look", ["finished look"])


async def test_as_many_at_once_as_allowed_and_no_more() -> None:
    released = asyncio.Event()
    at_work, most_at_work = 0, 0

    async def working(_text: str) -> None:
        nonlocal at_work, most_at_work
        at_work += 1
        most_at_work = max(at_work, most_at_work)
        await released.wait()
        at_work -= 1

    async with a_worker(handle=working, options=WorkerOptions(at_once=3)) as site:
        for number in range(10):
            site.source.send(f"m{number}")
        await site.time.advance(5)
        assert len(site.handled) == 3
        released.set()
        await site.time.advance(5)
        assert sorted(site.source.journal) == [f"finished m{number}" for number in range(10)]
    assert most_at_work == 3


async def test_never_more_than_the_service_gives() -> None:
    async with a_worker(options=WorkerOptions(at_once=500)) as site:
        await settle()
        assert site.source.takes[0] == (0, 32)


@pytest.mark.parametrize("queue", ["watchdog-recheck", "watchdog-alerts"])
async def test_a_failing_message_comes_back_later_and_later_and_then_goes_to_poison(queue: str) -> None:
    async def failing(_text: str) -> None:
        raise PermanentError("no")

    async with a_worker(handle=failing, queue=queue) as site:
        site.source.send("m", queue=queue)
        await site.time.advance(500)
        assert site.source.journal == [
            "m back in 10 s",
            "m back in 30 s",
            "m back in 90 s",
            "m back in 270 s",
            f"poisoned m from {queue}",
        ]
        assert len(site.handled) == 5


async def test_the_other_sides_wish_to_wait_is_heard() -> None:
    errors = [TransientError("429", 42.0), TransientError("503"), None]

    async def failing(_text: str) -> None:
        error = errors.pop(0)
        if error is not None:
            raise error

    async with a_worker(handle=failing) as site:
        site.source.send("m")
        await site.time.advance(100)
        assert site.source.journal == ["m back in 42 s", "m back in 30 s", "finished m"]


async def test_what_is_no_message_of_ours_is_not_tried_again() -> None:
    async def failing(_text: str) -> None:
        raise WireError(["vm_id must be the ARM id of a virtual machine"])

    async with a_worker(handle=failing) as site:
        site.source.send("junk")
        await site.time.advance(1)
        assert site.source.journal == ["poisoned junk from rechecks"]


async def test_a_message_that_may_have_ended_processes_is_not_touched_again() -> None:
    """Taken five times and neither finished nor given back: its worker died, perhaps of it."""
    async with a_worker() as site:
        site.source.send("deadly", takes=5)
        await site.time.advance(1)
        assert (site.handled, site.source.journal) == ([], ["poisoned deadly from rechecks"])


async def test_work_that_takes_longer_than_the_message_is_hidden_is_given_up() -> None:
    async def hanging(_text: str) -> None:
        await asyncio.Event().wait()

    async with a_worker(handle=hanging, options=WorkerOptions(hidden_seconds=0.0)) as site:
        site.source.send("m")
        async with asyncio.timeout(10):
            while not site.source.journal:
                await site.time.advance(0)
        assert site.source.journal == ["m back in 10 s"]


async def test_a_queue_that_cannot_be_read_is_left_alone_longer_and_longer_and_then_read_again() -> None:
    async with a_worker() as site:
        site.source.take_errors = [
            TransientError("503"),
            RuntimeError("the unforeseen"),
            TransientError("503"),
        ]
        site.source.send("m")
        await site.time.advance(10)
        assert [moment for moment, _ in site.source.takes][:4] == [0, 1, 3, 7]
        assert site.source.journal == ["finished m"]


async def test_a_message_that_cannot_be_settled_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with a_worker() as site:
        site.source.settle_error = TransientError("503")
        site.source.send("first")
        await site.time.advance(1)
        site.source.settle_error = None
        site.source.send("second")
        await site.time.advance(1)
        assert site.source.journal == ["finished second"]
    assert "message not settled" in [record.message for record in caplog.records]


# --- the end ---------------------------------------------------------------------------------------------


async def test_the_end_waits_for_the_work_in_hand_and_takes_no_more() -> None:
    released = asyncio.Event()

    async def working(_text: str) -> None:
        await released.wait()

    async with a_worker(handle=working) as site:
        site.source.send("m")
        await site.time.advance(1)
        site.stop.set()
        await settle()
        site.source.send("too late")
        assert not site.running.done()
        released.set()
        await settle()
        assert site.running.done()
        assert site.source.journal == ["finished m"]
        assert site.ticks == [0]


async def test_the_end_waits_for_a_tick_in_hand() -> None:
    released, ended = asyncio.Event(), asyncio.Event()

    async def ticking() -> None:
        await released.wait()
        ended.set()

    async with a_worker(tick=ticking) as site:
        await settle()
        site.stop.set()
        await settle()
        assert not site.running.done()
        released.set()
        await settle()
        assert ended.is_set()
        assert site.running.done()


async def test_the_real_clock_waits_for_a_moment_or_for_the_stop() -> None:
    time, stop = LoopTime(), asyncio.Event()
    assert await time.wait_until(time.now() + 0.001, stop) is False
    assert await time.wait_until(time.now() - 1, stop) is False
    asyncio.get_running_loop().call_soon(stop.set)
    assert await time.wait_until(time.now() + 3_600, stop) is True
