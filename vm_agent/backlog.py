"""What waits to be sent, in order and bounded: the oldest goes first when there is no more room.

In memory only. Nothing here knows what the items are.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence

MAX_BYTES = 1_000_000  # about two hours of reports of three units, and 1 MB of the agent's 20


class Backlog:
    """A queue of texts for one reader; all methods may be called from any thread."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._items: deque[str] = deque()
        self._bytes = 0
        self._dropped = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, items: Iterable[str]) -> None:
        """Append ``items`` and wake the reader."""
        with self._changed:
            for item in items:
                self._items.append(item)
                self._bytes += len(item)
            self._trim()
            self._changed.notify_all()

    def take(self, max_items: int) -> list[str]:
        """Wait for items and remove up to ``max_items`` of the oldest; nothing means closed."""
        with self._changed:
            while not self._items and not self._closed:
                self._changed.wait()
            if self._closed:
                return []
            taken = [self._items.popleft() for _ in range(min(max_items, len(self._items)))]
            self._bytes -= sum(len(item) for item in taken)
            return taken

    def restore(self, items: Sequence[str]) -> None:
        """Put ``items`` back in front, where they were."""
        with self._changed:
            self._items.extendleft(reversed(items))
            self._bytes += sum(len(item) for item in items)
            self._trim()

    def pause(self, seconds: float) -> None:
        """Wait until the time is over or the backlog is closed; new items don't shorten it."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed, seconds)

    def close(self) -> None:
        """Let the reader go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def dropped(self) -> int:
        """How many items had to go for want of room, since the start."""
        return self._dropped

    def __len__(self) -> int:
        return len(self._items)

    def _trim(self) -> None:
        while self._bytes > self._max_bytes and self._items:
            self._bytes -= len(self._items.popleft())
            self._dropped += 1
