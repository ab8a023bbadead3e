"""Whether the clock is synchronized, as systemd's timedated judges by the kernel, whatever sets the clock.

Asked over the bus and not by the system call itself: the agent's unit forbids it every call about clocks, and
reading through ctypes needs writable executable memory, which it forbids too.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from datetime import datetime

from vm_agent.collectors.base import Parts
from vm_health.errors import TransientError

_LOG = logging.getLogger(__name__)
INTERVAL_SECONDS = 300.0
GRACE_SECONDS = 600.0
CONTAINER = "/run/systemd/container"


class ClockCollector:
    """Keeps the answer for ``latest``. Where nothing tells, that is None and no problem.

    In a container the clock is the host's business. For ten minutes after boot "not yet" is no news.
    """

    name = "clock"
    interval_seconds = INTERVAL_SECONDS

    def __init__(
        self,
        ask: Callable[[], bool],
        monotonic: Callable[[], float] = time.monotonic,
        container: str = CONTAINER,
    ) -> None:
        self._ask = ask
        self._monotonic = monotonic
        self._container = container
        self._answer: bool | None = None
        self._told = False

    def collect(self, now: datetime) -> Parts:
        """Ask timedated, which systemd starts for it."""
        if os.path.exists(self._container):
            return {}
        try:
            self._answer = self._ask()
        except TransientError as error:
            self._answer = None
            if not self._told:
                self._told = True
                _LOG.info("nothing tells whether the clock is synchronized", extra={"reason": str(error)})
        return {}

    def latest(self) -> bool | None:
        """Return the last answer."""
        if self._answer is False and self._monotonic() < GRACE_SECONDS:  # the monotonic clock begins at boot
            return None
        return self._answer


def ask_timedated(bus_path: str, timeout_seconds: float = 5.0) -> bool:
    """Return ``NTPSynchronized``.

    Raises:
        TransientError: no bus, no timedated, or no proper answer.
    """
    from vm_agent.systemd_bus import Bus, get_property  # noqa: PLC0415 - jeepney only where a bus is used

    bus = Bus(bus_path, timeout_seconds)
    name = "org.freedesktop.timedate1"
    try:
        question = get_property("/org/freedesktop/timedate1", name, "NTPSynchronized", name)
        (answer,) = bus.ask([question], timeout_seconds)
    finally:
        bus.close()
    if isinstance(answer, TransientError):
        raise answer
    return bool(answer[0][1])
