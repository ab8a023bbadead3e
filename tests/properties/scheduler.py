"""An event loop that runs only when it is told to, and processes in it that can be stopped at any call.

It is what makes a race or a crash repeatable: who goes on, and how far, is the story's decision.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from vm_health.errors import TransientError


class StepLoop(asyncio.BaseEventLoop):
    """Runs what is ready, and nothing else: no time, no sockets. What can't go on simply stays."""

    def __init__(self) -> None:
        super().__init__()
        self._runnable: deque[asyncio.Handle] = deque()
        self.raised: list[BaseException] = []

    def call_soon(  # type: ignore[override] # the types of callbacks don't matter here
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._runnable.append(handle)
        return handle

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what a callback raised; tasks of a process that died stay unfinished on purpose."""
        if "exception" in context:
            self.raised.append(context["exception"])

    def run_ready(self) -> None:
        """Run until nobody can go on."""
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            while self._runnable:
                self._runnable.popleft()._run()
        finally:
            asyncio._set_running_loop(outer)


class Process:
    """One run of the watchdog's code. Every call to the world is a point where it can be held, die or fail.

    Args:
        is_stepped: whether it stops at every point until it is told to go on.
        fails_at: the number of the point whose call fails, None: none does.
        loses_answer: whether that call is carried out and only its answer is lost.
    """

    def __init__(
        self,
        loop: StepLoop,
        *,
        is_stepped: bool = False,
        fails_at: int | None = None,
        loses_answer: bool = False,
    ) -> None:
        self._loop = loop
        self._is_stepped = is_stepped
        self._fails_at = fails_at
        self._loses_answer = loses_answer
        self._held: deque[asyncio.Future[None]] = deque()
        self._is_dead = False
        self.points = 0
        self.task: asyncio.Task[Any] | None = None

    @property
    def is_disturbed(self) -> bool:
        """Whether anything but itself decides how it goes."""
        return self._is_stepped or self._fails_at is not None

    @property
    def is_held(self) -> bool:
        """Whether it stands at a point and has not come to its end."""
        return bool(self._held)

    async def point(self, *, may_fail: bool = True) -> None:
        """Stand before a call to the world."""
        self.points += 1
        if self._is_stepped:
            held = self._loop.create_future()
            self._held.append(held)
            await held
        if self._is_dead:
            raise asyncio.CancelledError
        if may_fail and not self._loses_answer:
            self._fail()

    def after(self) -> None:
        """Stand after a call that changed the world: its answer may be lost."""
        if self._loses_answer:
            self._fail()

    def _fail(self) -> None:
        if self._fails_at is not None and self.points >= self._fails_at:
            self._fails_at = None
            raise TransientError("the service did not answer")

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        """Begin, up to the first point."""
        self.task = self._loop.create_task(work)
        self._loop.run_ready()

    def go_on(self, points: int) -> None:
        """Let it pass so many points, those it stands at longest first."""
        while points and self._held:
            held = self._held.popleft()
            if not held.done():
                held.set_result(None)
                self._loop.run_ready()
                points -= 1

    def finish(self) -> BaseException | None:
        """Let it come to its end; return what it raised."""
        self.go_on(1_000_000)
        assert self.task is not None
        assert self.task.done(), "it waits for something that never comes"
        return self.task.exception()

    def die(self) -> None:
        """End it where it stands: nothing more of it reaches the world."""
        self._is_dead = True
        assert self.task is not None
        self.task.cancel()
        self._loop.run_ready()
