"""Wakes the sampler early when something changed, and keeps a restless machine from waking it for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

SETTLE_SECONDS = 0.15
GAP_SECONDS = 0.25
_BURST = 12
_REFILL_SECONDS = 1.0


class Wake:
    """An alarm that others ring and the sampler sleeps on.

    Rings within the settle time become one: after a kill, systemd tells of a passing ``failed`` first and of
    what comes next a few milliseconds later. Not more than four early samples a second come of it, and where
    the ringing goes on, one a second: a unit that restarts for ever may not make the agent busy, too.
    """

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._sleep = sleep
        self._rung = threading.Event()
        self._monotonic = monotonic
        self._tokens = float(_BURST)
        self._refilled_at = self._woke_at = monotonic()

    def ring(self) -> None:
        """Ask for a sample soon; from any thread, and it costs nothing to ask twice."""
        self._rung.set()

    def sleep_until(self, due: float) -> bool:
        """Sleep until ``due`` on the monotonic clock or until rung and settled; tells whether it is early."""
        if not self._rung.wait(max(0.0, due - self._monotonic())):
            return False
        now = self._monotonic()
        until = max(now + SETTLE_SECONDS, self._woke_at + GAP_SECONDS, now + self._debt(now))
        self._sleep(max(0.0, until - now))
        self._rung.clear()  # before the sample: what rings during it is news again
        self._woke_at = self._monotonic()
        return self._woke_at < due

    def _debt(self, now: float) -> float:
        """Take a token and return how long it takes until it is there, where there was none left."""
        self._tokens = min(float(_BURST), self._tokens + (now - self._refilled_at) / _REFILL_SECONDS) - 1
        self._refilled_at = now
        return max(0.0, -self._tokens * _REFILL_SECONDS)
