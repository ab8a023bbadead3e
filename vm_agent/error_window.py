"""Errors of the last minutes, by source. Pure; the caller's clock."""

from __future__ import annotations

from collections import deque

from vm_agent.log_text import excerpt
from vm_health.model import LogSample

MAX_ERRORS = 1000


class ErrorWindow:
    """Counts one source's errors within the window; beyond 1,000 it counts no further."""

    def __init__(self, source: str, window_seconds: float) -> None:
        self._source = source
        self._window_seconds = window_seconds
        self._times: deque[float] = deque(maxlen=MAX_ERRORS)
        self._last = ""

    def add(self, at_seconds: float, line: str) -> None:
        """Note an error that was logged at ``at_seconds`` on the monotonic clock."""
        self._times.append(at_seconds)
        self._last = line  # made presentable when it is shown: of a thousand, that is one

    def clear(self) -> None:
        """Forget everything: it will be read again."""
        self._times.clear()
        self._last = ""

    def sample(self, at_seconds: float) -> LogSample:
        """Return what there is at ``at_seconds``."""
        while self._times and self._times[0] <= at_seconds - self._window_seconds:
            self._times.popleft()
        if not self._times:
            self._last = ""
        self._last = excerpt(self._last)
        return LogSample(self._source, len(self._times), self._last)
