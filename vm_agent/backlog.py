"""The way from the sampler to the thread that sends: never blocks the one that puts, bounded, in order.

In memory, and only until the other thread has it on the disk. Nothing here knows what the items are.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

from vm_agent.segments import Item

MAX_BYTES = 1_000_000


class Backlog:
    """A queue of items for one reader; all methods may be called from any thread."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._dropped = 0
        self._is_closed = False
        self._changed = threading.Condition()

    def put(self, items: Iterable[Item]) -> None:
        """Append ``items`` and wake the reader; without room the oldest go."""
        with self._changed:
            for item in items:
                self._items.append(item)
                self._bytes += item.size
            while self._bytes > self._max_bytes and self._items:
                self._bytes -= self._items.popleft().size
                self._dropped += 1
            self._changed.notify_all()

    def take(self) -> list[Item]:
        """Remove and return all items; none is fine."""
        with self._changed:
            taken = list(self._items)
            self._items.clear()
            self._bytes = 0
            return taken

    def wait(self, seconds: float | None) -> None:
        """Wait until there are items, the backlog is closed, or the time (None: no limit) is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._is_closed, seconds)

    def close(self) -> None:
        """Let the reader go."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        """Whether the reader should end."""
        return self._is_closed

    @property
    def dropped(self) -> int:
        """How many items had to go for want of room, since the start."""
        return self._dropped

    def __len__(self) -> int:
        return len(self._items)
