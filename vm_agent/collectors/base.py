"""What a collector is, and how a round of them is run so that none can hold up or spoil the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from queue import SimpleQueue
from typing import Protocol, TypedDict

from vm_health.model import (
    CollectorFailure,
    DeployLock,
    DiskSample,
    GitSample,
    HeartbeatSample,
    LogSample,
    MemorySample,
    Sample,
    ScheduledEvent,
    SystemSample,
    UnitSample,
)

MAX_MESSAGE_CHARS = 300


class Parts(TypedDict, total=False):
    """The fields of a ``Sample`` that one collector fills. ``failures`` tells of single subjects.

    ``logs`` may come from several collectors, every other field from one.
    """

    units: tuple[UnitSample, ...]
    disks: tuple[DiskSample, ...]
    memory: MemorySample | None
    heartbeats: tuple[HeartbeatSample, ...]
    system: SystemSample | None
    logs: tuple[LogSample, ...]
    checkouts: tuple[GitSample, ...]
    scheduled_events: tuple[ScheduledEvent, ...]
    deploy_lock: DeployLock | None
    failures: tuple[CollectorFailure, ...]


class Collector(Protocol):
    """Looks at one kind of thing. It may raise and it may hang: the round survives both."""

    @property
    def name(self) -> str:
        """What a failure of this collector is filed under."""
        ...

    @property
    def interval_seconds(self) -> float:
        """How often it is asked; 0 for every sample. What it saw stands until it is asked again."""
        ...

    def collect(self, now: datetime) -> Parts:
        """Look once."""
        ...


class Round:
    """Runs all collectors and puts together what they saw.

    Those without an interval are quick and every sample waits for them; the others run beside in their own
    time and delay only the first sample. A collector that hangs (a dead network mount, a stuck bus) is waited
    for once and costs one thread until it ends.
    """

    def __init__(
        self,
        collectors: Sequence[Collector],
        timeout_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._monotonic = monotonic
        self._quick = _Lane(
            [one for one in collectors if not one.interval_seconds], timeout_seconds, monotonic
        )
        self._slow = _Lane([one for one in collectors if one.interval_seconds], timeout_seconds, monotonic)
        self._is_first = True

    def take(self, now: datetime) -> Sample:
        """Return what all collectors saw; what they could not see is in ``failures``."""
        self._slow.begin(now)
        self._quick.begin(now)
        patience = 2 * self._timeout_seconds  # one that hangs, and those behind it
        self._quick.settle(patience, must_answer=True)
        self._slow.settle(patience if self._is_first else 0.0, must_answer=self._is_first)
        self._is_first = False
        seen: Parts = {}
        failures: list[CollectorFailure] = []
        logs: list[LogSample] = []
        for slot in (*self._quick.slots, *self._slow.slots):
            if slot.problem:
                failures.append(CollectorFailure(slot.collector.name, slot.problem[:MAX_MESSAGE_CHARS]))
                continue
            seen.update(slot.parts)
            failures += slot.parts.get("failures", ())
            logs += slot.parts.get("logs", ())
        seen["failures"], seen["logs"] = tuple(failures), tuple(logs)
        return Sample(taken_at=now, **seen)


class _Look:
    """One run of one collector."""

    def __init__(self, collector: Collector, now: datetime, number: int) -> None:
        self.collector = collector
        self.now = now
        self.number = number
        self.began: float | None = None
        self.ended = threading.Event()
        self.hung = False  # what it brings later belongs to a sample that is long gone
        self.parts: Parts = {}
        self.problem = ""

    def run(self, monotonic: Callable[[], float]) -> None:
        """Collect; whatever is raised becomes a text."""
        self.began = monotonic()
        try:
            self.parts = self.collector.collect(self.now)
        except Exception as error:  # noqa: BLE001 - a broken collector is a finding, never the end of a sample
            self.problem = str(error) or type(error).__name__
        self.ended.set()


class _Slot:
    """A collector, its look under way, and what it saw last."""

    def __init__(self, collector: Collector) -> None:
        self.collector = collector
        self.due_at = 0.0
        self.look: _Look | None = None
        self.parts: Parts = {}
        self.problem = ""


class _Lane:
    """Collectors that run one after the other in one thread, which is kept: a new one for each look costs
    more than most looks. Where one hangs, the thread is left to it and another goes on with the rest."""

    def __init__(
        self, collectors: Sequence[Collector], timeout_seconds: float, monotonic: Callable[[], float]
    ) -> None:
        self.slots = [_Slot(collector) for collector in collectors]
        self._timeout_seconds = timeout_seconds
        self._monotonic = monotonic
        self._inbox: SimpleQueue[_Look] = SimpleQueue()
        self._worker: threading.Thread | None = None
        self._looks = 0

    def begin(self, now: datetime) -> None:
        """Start every look that is due."""
        at_seconds = self._monotonic()
        for slot in self.slots:
            if slot.look is not None and slot.look.hung and slot.look.ended.is_set():
                slot.look = None
            if slot.look is None and at_seconds >= slot.due_at:
                slot.due_at = at_seconds + slot.collector.interval_seconds
                self._looks += 1
                slot.look = _Look(slot.collector, now, self._looks)
                self._inbox.put(slot.look)
        if self._worker is None and self.slots:
            self._start_worker()

    def settle(self, patience_seconds: float, *, must_answer: bool) -> None:
        """Wait at most ``patience_seconds`` for the looks under way, hung ones aside; take over their parts.

        Where a collector ``must_answer``, what it saw the last time can't stand for what it didn't see now.
        """
        until = self._monotonic() + patience_seconds
        while waiting := self._waiting():
            at_seconds = self._monotonic()
            current = next((look for look in waiting if not look.ended.is_set()), waiting[-1])
            overdue_at = (at_seconds if current.began is None else current.began) + self._timeout_seconds
            # The last one that was started ends last: one wait, not one for each.
            if waiting[-1].ended.wait(max(0.0, min(overdue_at, until) - at_seconds)):
                break
            if not current.ended.is_set() and current.began is not None and self._monotonic() >= overdue_at:
                current.hung = True
                self._start_worker()
            elif self._monotonic() >= until:
                break
        for slot in self.slots:
            self._take_over(slot, must_answer)

    def _waiting(self) -> list[_Look]:
        """The looks that are not known to hang, in the order in which they were started."""
        found = [slot.look for slot in self.slots if slot.look is not None and not slot.look.hung]
        return sorted(found, key=lambda look: look.number)

    def _take_over(self, slot: _Slot, must_answer: bool) -> None:
        look = slot.look
        if look is None:
            return
        if look.hung or (must_answer and not look.ended.is_set()):
            slot.problem = f"no answer within {self._timeout_seconds:g} s"
        elif look.ended.is_set():
            slot.parts, slot.problem, slot.look = look.parts, look.problem, None

    def _start_worker(self) -> None:
        self._worker = threading.Thread(target=self._work, name="collectors", daemon=True)
        self._worker.start()

    def _work(self) -> None:
        while self._worker is threading.current_thread():  # else another has taken over
            self._inbox.get().run(self._monotonic)
