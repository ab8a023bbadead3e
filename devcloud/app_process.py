"""The function app in a process of its own: the local Functions host, its log records, its end.

Knows how to start and follow it; knows nothing of what the app does.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_STOP_SECONDS = 15


class AppProcessError(Exception):
    """The function app did not start; the message ends with what it last said."""


@dataclass(frozen=True, slots=True)
class Record:
    """One log record of the app: ``extra`` holds its fields."""

    time: str
    level: str
    logger: str
    message: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    exception: str = ""


class AppProcess:
    """Runs ``python -m devcloud.functions_host`` for ``app`` and keeps its records, oldest first."""

    def __init__(self, app: Path, environment: Mapping[str, str], log_file: Path) -> None:
        self.records: list[Record] = []
        self.port = 0
        self._app = app
        self._environment = dict(environment)
        self._log_file = log_file
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()
        self._ended = False

    async def start(self, hosts: Sequence[str], port: int, timeout_seconds: float = 30) -> None:
        """Start the host on every address of ``hosts`` and wait until it serves; again after its end, too."""
        known, self._ended = len(self.records), False
        addresses = [option for host in hosts for option in ("--host", host)]
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "devcloud.functions_host", "--app", str(self._app)),
            *("--port", str(port), *addresses, "--log-json"),
            cwd=self._app,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=1024 * 1024,
            start_new_session=True,  # Ctrl-C reaches it through us, after those that still use it
            preexec_fn=end_with_parent,
        )
        self._reader = asyncio.create_task(self._read(self._process))
        try:
            started = await self.wait_for(
                lambda record: record.message == "functions host started", timeout_seconds, known
            )
        except TimeoutError:
            await self.stop()
            tail = "\n".join(self._log_file.read_text(errors="replace").splitlines()[-15:])
            raise AppProcessError(f"the function app did not start; it said:\n{tail}") from None
        self.port = int(str(started.extra["url"]).rpartition(":")[2])

    async def wait_for(
        self, wanted: Callable[[Record], bool], timeout_seconds: float, start: int = 0
    ) -> Record:
        """Return the first record from position ``start`` on that is ``wanted``, now or when it comes.

        Raises:
            TimeoutError: none came in time, or the process ended.
        """
        async with asyncio.timeout(timeout_seconds), self._changed:
            while True:
                for record in self.records[start:]:
                    if wanted(record):
                        return record
                start = len(self.records)
                if self._ended:
                    raise TimeoutError("the function app has ended")
                await self._changed.wait()

    async def stop(self) -> None:
        """End it, by force where it does not end by itself; safe to call twice."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._reader is not None:
            await self._reader

    async def kill(self) -> None:
        """End it as a crash would: on the spot, whatever it is at."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        await self.stop()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        with self._log_file.open("ab") as log:
            async for line in process.stdout:
                log.write(line)
                log.flush()
                record = _record(line)
                async with self._changed:
                    self.records.append(record)
                    self._changed.notify_all()
        async with self._changed:
            self._ended = True
            self._changed.notify_all()


def end_with_parent() -> None:
    """In a child before exec: be told to end when the parent is gone, even by SIGKILL (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _record(line: bytes) -> Record:
    text = line.decode(errors="replace").rstrip()
    try:
        value = json.loads(text)
        return Record(
            value["time"],
            value["level"],
            value["logger"],
            value["message"],
            value.get("extra") or {},
            value.get("exception") or "",
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return Record("", "ERROR", "stdout", text)  # not a log record: something printed, or Python itself
