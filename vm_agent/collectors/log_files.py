"""Recent errors in log files: what was appended since the last look, in whatever file has that name now."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable
from datetime import datetime

from vm_agent.collectors.base import MAX_MESSAGE_CHARS, Parts
from vm_agent.error_window import ErrorWindow
from vm_health.model import CollectorFailure, LogSample

MAX_READ_BYTES = 1024 * 1024
MAX_LINE_BYTES = 4096


class LogFilesCollector:
    """Lines that match ``pattern`` within the window. At most 1 MiB a file and look: of more, the newest."""

    name = "log_files"

    def __init__(
        self,
        files: tuple[str, ...],
        pattern: re.Pattern[str],
        *,
        window_seconds: float,
        interval_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.interval_seconds = interval_seconds
        self._tails = [_Tail(path) for path in files]
        self._windows = [ErrorWindow(path, window_seconds) for path in files]
        self._pattern = pattern
        self._monotonic = monotonic

    def collect(self, now: datetime) -> Parts:
        """Read what is new in every file; one that can't be read does not hide the others."""
        logs: list[LogSample] = []
        failures: list[CollectorFailure] = []
        at_seconds = self._monotonic()
        for tail, window in zip(self._tails, self._windows, strict=True):
            try:
                for line in tail.new_lines():
                    text = line[:MAX_LINE_BYTES].decode(errors="replace")
                    if self._pattern.search(text):
                        window.add(at_seconds, text)
            except OSError as error:
                text = f"log file {tail.path} cannot be read: {error.strerror or error}"[:MAX_MESSAGE_CHARS]
                failures.append(CollectorFailure(self.name, text))
                continue
            logs.append(window.sample(at_seconds))
        return {"logs": tuple(logs), "failures": tuple(failures)}


class _Tail:
    """Where reading ended in a file: a file of another inode, or one that became shorter, begins anew."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file: tuple[int, int] | None = None
        self._offset = 0
        self._rest = b""
        self._was_missing = False

    def new_lines(self) -> list[bytes]:
        """Return the whole lines that were appended since the last call; at the first, none.

        Raises:
            OSError: it is there and cannot be read, or is no file. Missing (not begun, rotated) is fine.
        """
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            self._was_missing = True  # what is there next is new from its first line
            return []
        with open(handle, "rb", buffering=0) as file:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise OSError("it is not a file")
            skips = self._place(found)
            file.seek(self._offset)
            data = file.read(MAX_READ_BYTES) or b""
        self._offset += len(data)
        lines = (self._rest + data).split(b"\n")
        # A line without its end waits for the rest; of one that goes on and on, only the beginning is kept.
        self._rest = lines.pop()[: 2 * MAX_LINE_BYTES]
        return lines[1:] if skips else lines

    def _place(self, found: os.stat_result) -> bool:
        """Set the offset for this look; tells whether it lies in the middle of a line."""
        identity = (found.st_dev, found.st_ino)
        if self._file is None and not self._was_missing:
            self._offset = found.st_size
        elif identity != self._file or found.st_size < self._offset:
            self._offset, self._rest = 0, b""
        self._file, self._was_missing = identity, False
        if found.st_size - self._offset <= MAX_READ_BYTES:
            return False
        self._offset, self._rest = found.st_size - MAX_READ_BYTES, b""
        return True
