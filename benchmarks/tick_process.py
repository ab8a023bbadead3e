"""One fleet's ticks, in a process of its own: the CA and endpoints of a local Azure are its environment's.

Run as ``python -m benchmarks.tick_process SIZE REPEAT``; prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from benchmarks.options import ROOT

if TYPE_CHECKING:
    from vm_watchdog.app import Watchdog

_SDK_LOGGER = "azure.core.pipeline.policies.http_logging_policy"
_SHARED_SECONDS = 3.1  # what is asked anew within a minute is asked anew here, too
_LIMIT = 64 * 1024 * 1024


@dataclass(slots=True)
class Fleet:
    """The local Azure with its fleet, seen through its pipe."""

    process: asyncio.subprocess.Process
    environment: Mapping[str, str]

    async def ask(self, line: str) -> dict[str, int]:
        """Send a command and return its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        return await _answer(self.process)


@dataclass(frozen=True, slots=True)
class Tick:
    """CPU milliseconds a VM, seconds from start to end, and calls."""

    cpu_milliseconds: float
    seconds: float
    calls: int = 0
    probes: int = 0


class CallCounter(logging.Handler):
    """Counts the requests of all Azure SDKs by the log line that their pipeline writes for each."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += record.getMessage().startswith("Request URL")


async def play(size: int, repeat: int) -> list[Tick]:
    """Tick over a fleet of ``size``; the last tick is the one whose calls are counted."""
    async with _fleet(size) as fleet:
        os.environ.update(fleet.environment)
        from vm_watchdog import bootstrap, settings  # noqa: PLC0415 - aiohttp reads the CA when imported

        watchdog = bootstrap.build(settings.load(fleet.environment))
        try:
            return await _ticks(watchdog, fleet, size, repeat)
        finally:
            await watchdog.close()


async def _ticks(watchdog: Watchdog, fleet: Fleet, size: int, repeat: int) -> list[Tick]:
    for _ in range(2):  # the first writes every state, the second finds everything as it was
        await watchdog.tick()
        await fleet.ask("feed")
        await asyncio.sleep(_SHARED_SECONDS)  # what is asked anew in a minute, too
    found = []
    for number in range(repeat):
        cpu, wall = time.process_time(), time.monotonic()
        record = await watchdog.tick()
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        assert record.statuses == {"HEALTHY": size}, record
        found.append(Tick(1_000 * cpu / size, wall))
        cost = found[-1].cpu_milliseconds
        print(f"  … tick of {size}: run {number + 1}, {cost:.2f} ms a VM", file=sys.stderr, flush=True)
        await fleet.ask("feed")
        await asyncio.sleep(_SHARED_SECONDS)
    logger, counter = logging.getLogger(_SDK_LOGGER), CallCounter()
    logger.addHandler(counter)
    logger.setLevel(logging.INFO)
    try:
        await watchdog.tick()
    finally:
        logger.removeHandler(counter)
        logger.setLevel(logging.NOTSET)
    probes = (await fleet.ask("feed"))["probes"]
    return [*found[:-1], replace(found[-1], calls=counter.count, probes=probes)]


@asynccontextmanager
async def _fleet(size: int) -> AsyncIterator[Fleet]:
    with tempfile.TemporaryDirectory() as directory:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.large_fleet", directory, str(size),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT, limit=_LIMIT,
        )  # fmt: skip
        try:
            environment: Mapping[str, str] = await _answer(process)
            yield Fleet(process, environment)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()


async def _answer(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError("the local Azure has ended")
    found: dict[str, Any] = json.loads(line)
    return found


if __name__ == "__main__":
    ticks = asyncio.run(play(int(sys.argv[1]), int(sys.argv[2])))
    print(json.dumps([asdict(tick) for tick in ticks]))
