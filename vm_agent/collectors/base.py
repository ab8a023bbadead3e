"""What a collector is, and how a round of them is run so that none can hold up or spoil the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol, TypedDict

from vm_health.model import CollectorFailure, DiskSample, HeartbeatSample, MemorySample, Sample, UnitSample

MAX_MESSAGE_CHARS = 300


class Parts(TypedDict, total=False):
    """The fields of a ``Sample`` that one collector fills. ``failures`` tells of single subjects."""

    units: tuple[UnitSample, ...]
    disks: tuple[DiskSample, ...]
    memory: MemorySample | None
    heartbeats: tuple[HeartbeatSample, ...]
    failures: tuple[CollectorFailure, ...]


class Collector(Protocol):
    """Looks at one kind of thing. It may raise and it may hang: the round survives both."""

    @property
    def name(self) -> str:
        """What a failure of this collector is filed under."""
        ...

    def collect(self, now: datetime) -> Parts:
        """Look once."""
        ...


class Round:
    """Runs all collectors side by side, each in a thread, and waits for none longer than the time-out.

    A collector that hangs (a dead network mount, a stuck bus) keeps its one thread and is not started
    again until that thread has ended: hanging costs one thread, not one for every sample.
    """

    def __init__(self, collectors: Sequence[Collector], timeout_seconds: float) -> None:
        self._collectors = tuple(collectors)
        self._timeout_seconds = timeout_seconds
        self._running: dict[str, _Look] = {}

    def take(self, now: datetime) -> Sample:
        """Return what all collectors saw; what they could not see is in ``failures``."""
        deadline = time.monotonic() + self._timeout_seconds
        looks = []
        for collector in self._collectors:
            look = self._running.get(collector.name)
            if look is None or not look.is_alive():
                look = self._running[collector.name] = _Look(collector, now)
                look.start()
            looks.append(look)
        seen: Parts = {}
        failures: list[CollectorFailure] = []
        for look in looks:
            look.join(max(0.0, deadline - time.monotonic()))
            if look.is_alive():
                look.abandoned = True  # what it brings later belongs to a sample that is long gone
            if look.abandoned:
                failures.append(CollectorFailure(look.name, f"no answer within {self._timeout_seconds:g} s"))
            elif look.problem:
                failures.append(CollectorFailure(look.name, look.problem[:MAX_MESSAGE_CHARS]))
            else:
                failures += look.parts.get("failures", ())
                seen.update(look.parts)
        seen["failures"] = tuple(failures)
        return Sample(taken_at=now, **seen)


class _Look(threading.Thread):
    """One run of one collector."""

    def __init__(self, collector: Collector, now: datetime) -> None:
        super().__init__(name=collector.name, daemon=True)
        self._collector = collector
        self._now = now
        self.parts: Parts = {}
        self.problem = ""
        self.abandoned = False

    def run(self) -> None:
        """Collect; whatever is raised becomes a text."""
        try:
            self.parts = self._collector.collect(self._now)
        except Exception as error:  # noqa: BLE001 - a broken collector is a finding, never the end of a sample
            self.problem = str(error) or type(error).__name__
