"""Runs one function once: async ones on the event loop, others on a worker thread, as the Python worker does.

A function's error is logged with its traceback and returned; it never reaches whoever fired the trigger.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import azure.functions as func

from .app import HostedFunction
from .logs import RunningInvocation, running_invocation

log = logging.getLogger("devcloud.functions_host")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an invocation ended: ``error`` is None where it succeeded."""

    value: Any = None
    error: Exception | None = None


class InvocationContext(func.Context):
    """The ``context`` parameter, where a function asks for it."""

    def __init__(self, running: RunningInvocation, directory: Path) -> None:
        self._running = running
        self._directory = directory
        self._thread_local = threading.local()

    @property
    def invocation_id(self) -> str:
        return self._running.invocation_id

    @property
    def function_name(self) -> str:
        return self._running.function

    @property
    def function_directory(self) -> str:
        return str(self._directory)

    @property
    def thread_local_storage(self) -> Any:
        return self._thread_local

    @property
    def trace_context(self) -> Any:
        return None

    @property
    def retry_context(self) -> Any:
        return None


class Invoker:
    """Runs the app's functions and knows which are running."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._threads = ThreadPoolExecutor(thread_name_prefix="function")
        self._running: set[asyncio.Task[Outcome]] = set()

    async def invoke(self, function: HostedFunction, argument: Any) -> Outcome:
        """Run ``function`` with the trigger's ``argument``; the caller's own end doesn't end the function."""
        task = asyncio.create_task(self._run(function, argument))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def drain(self, grace_seconds: float) -> bool:
        """Wait for the running functions, then cancel what is left; answers whether all of them finished."""
        unfinished: set[asyncio.Task[Outcome]] = set()
        if self._running:
            _, unfinished = await asyncio.wait(self._running, timeout=grace_seconds)
        for task in unfinished:
            task.cancel()
        if unfinished:
            await asyncio.wait(unfinished)
            log.warning("functions did not finish in time", extra={"unfinished": len(unfinished)})
        self._threads.shutdown(wait=False, cancel_futures=True)
        return not unfinished

    async def _run(self, function: HostedFunction, argument: Any) -> Outcome:
        running = RunningInvocation(function.name, str(uuid.uuid4()))
        running_invocation.set(running)  # this task's own context: nobody else sees it
        arguments = {function.parameter: argument}
        if function.takes_context:
            arguments["context"] = InvocationContext(running, self._directory)
        started = time.monotonic()
        log.debug("function started")
        try:
            value = await self._call(function, arguments)
        except Exception as error:
            log.exception("function failed", extra={"duration_ms": _milliseconds_since(started)})
            return Outcome(error=error)
        log.debug("function succeeded", extra={"duration_ms": _milliseconds_since(started)})
        return Outcome(value)

    async def _call(self, function: HostedFunction, arguments: dict[str, Any]) -> Any:
        if function.is_async:
            return await function.call(**arguments)
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: context.run(function.call, **arguments))


def _milliseconds_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
