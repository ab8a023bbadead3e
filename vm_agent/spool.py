"""What waits to be sent, on the disk: bounded, in order, and there again after a restart or a crash.

A segment (128 KiB) is what is sent at once and what is removed at once: there is no cursor to keep and no
half-sent file to guess about. Without room the oldest segment goes, and every item of it is counted. Where
the disk takes nothing (full, read-only, another's) items wait in memory, less of them, until it does again.

Writing costs no fsync while sending works: a killed agent loses nothing then either, for the kernel has the
data, and a machine that loses power loses a few seconds' worth. Once sending fails, every write is synced.
Not for several threads: the one that sends owns it; the counters may be read by any.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter, deque
from collections.abc import Sequence

from vm_agent.files import DirectoryLock, write_atomically
from vm_agent.segments import (
    Item,
    Segment,
    append_lines,
    encode_line,
    find_segments,
    read_items,
    segment_path,
    sync_file,
)

MAX_MEMORY_BYTES = 1_000_000  # about two hours of reports of three units, and 1 MB of the agent's 20
SEGMENT_BYTES = 128 * 1024
NO_ROOM, DAMAGED = "no_room", "damaged"


class Spool:
    """A queue: ``append`` at the end, ``front`` for the oldest, ``settle`` once they are dealt with."""

    def __init__(self, directory: str, max_bytes: int, max_memory_bytes: int = MAX_MEMORY_BYTES) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._max_memory_bytes = min(max_memory_bytes, max_bytes)
        self._segment_bytes = min(SEGMENT_BYTES, max(1, max_bytes // 8))
        self._segments: deque[Segment] = deque()
        self._next_number = 0
        self._tail_is_open = False
        self._lock = DirectoryLock(directory)
        self._is_ours = False
        self.problem = ""
        self.dropped: Counter[str] = Counter()

    def append(self, items: Sequence[Item], *, durable: bool = False) -> None:
        """Put ``items`` at the end; ``durable`` means: on the disk when this returns, if there is one."""
        if not items:
            return
        try:
            self._claim()
            self._write_held(durable)
            self._write(items, durable)
            self.problem = ""
        except OSError as error:
            self._fail("written", error)
            self._hold(items)
        self._trim()

    def front(self) -> list[Item]:
        """Return the oldest items, a segment's worth; nothing is added to that segment from now on."""
        while self._segments:
            first = self._segments[0]
            if len(self._segments) == 1:
                self._tail_is_open = False
            if first.held or not first.path:
                return list(first.held)
            try:
                items = read_items(first.path)
            except OSError:
                items = []
            if len(items) != first.count:
                self.dropped[DAMAGED] += max(0, first.count - len(items))
                first.count = len(items)
            if items:
                return items
            self._remove_front()
        return []

    def settle(self, keep: Sequence[Item] = ()) -> None:
        """Remove what ``front`` gave, but for ``keep``, which stays in front."""
        first = self._segments[0]
        if not keep:
            self._remove_front()
            return
        first.count, first.size, first.held = len(keep), sum(item.size for item in keep), list(keep)
        if not first.path:
            return
        try:
            write_atomically(first.path, b"".join(map(encode_line, keep)))
            first.held = []
        except OSError as error:  # the file still holds all of it: a restart would send the rest again
            self.problem = f"{first.path} cannot be written ({error.strerror}); some may be sent twice"

    def sync(self) -> None:
        """Bring what was appended without care onto the disk: sending has begun to fail."""
        for segment in self._segments:
            if segment.path:
                with contextlib.suppress(OSError):
                    sync_file(segment.path)

    @property
    def waiting(self) -> int:
        """How many items wait."""
        return sum(segment.count for segment in tuple(self._segments))

    @property
    def size(self) -> int:
        """How many bytes wait."""
        return sum(segment.size for segment in tuple(self._segments))

    def open(self) -> None:
        """Find what an earlier run left. What fails is tried again at the next ``append``."""
        try:
            self._claim()
        except OSError as error:
            self._fail("used", error)
        self._trim()

    def close(self) -> None:
        """Let another agent have the directory."""
        self._lock.release()
        self._is_ours = False

    def _fail(self, what: str, error: OSError) -> None:
        self.problem = f"{self._directory} cannot be {what} ({error.strerror}); telemetry waits in memory"

    def _claim(self) -> None:
        """Make the directory ours, once: two agents in one spool would send everything twice."""
        if self._is_ours:
            return
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        if not self._lock.take():
            raise OSError(0, "another agent uses it")
        try:
            found = find_segments(self._directory)
        except OSError:
            self._lock.release()
            raise
        self._is_ours = True
        self._segments.extendleft(segment for _, segment in reversed(found))
        self._next_number = 1 + max((number for number, _ in found), default=0)

    def _write(self, items: Sequence[Item], durable: bool) -> None:
        is_new = not (self._tail_is_open and self._segments[-1].size < self._segment_bytes)
        if is_new:
            path = self._fresh_path()
            size = append_lines(path, items, is_new=True, durable=durable)
            self._segments.append(Segment(path, len(items), size))
            self._tail_is_open = True
            return
        tail = self._segments[-1]
        try:
            tail.size += append_lines(tail.path, items, is_new=False, durable=durable)
        except OSError:
            self._tail_is_open = False  # it may end in half a line; nothing whole comes behind that
            raise
        tail.count += len(items)

    def _fresh_path(self) -> str:
        number, self._next_number = self._next_number, self._next_number + 1
        return segment_path(self._directory, number)

    def _hold(self, items: Sequence[Item]) -> None:
        """Keep ``items`` in memory, in segments as small as those on the disk."""
        self._tail_is_open = False
        tail = self._segments[-1] if self._segments else None
        if tail is None or tail.path or tail.size >= self._segment_bytes:
            self._segments.append(Segment(held=items))
            return
        tail.held += items
        tail.count += len(items)
        tail.size += sum(item.size for item in items)

    def _write_held(self, durable: bool) -> None:
        """Bring onto the disk what had to wait in memory: it stands behind all that is there already."""
        for segment in self._segments:
            if segment.path:
                continue
            path = self._fresh_path()
            segment.size = append_lines(path, segment.held, is_new=True, durable=durable)
            segment.path, segment.held = path, []

    def _trim(self) -> None:
        while self._segments and self.size > self._max_bytes:
            self._drop(self._segments[0])
        while True:
            held = [segment for segment in self._segments if not segment.path]
            if sum(segment.size for segment in held) <= self._max_memory_bytes:
                return
            self._drop(held[0])

    def _drop(self, segment: Segment) -> None:
        self.dropped[NO_ROOM] += segment.count
        self._unlink(segment)
        self._segments.remove(segment)
        self._tail_is_open = self._tail_is_open and bool(self._segments)

    def _remove_front(self) -> None:
        self._unlink(self._segments.popleft())

    def _unlink(self, segment: Segment) -> None:
        if not segment.path:
            return
        try:
            os.unlink(segment.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            self.problem = f"{segment.path} cannot be removed ({error.strerror}); it may be sent twice"
