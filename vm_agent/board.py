"""The last report, where the endpoint finds it. Ages by the monotonic clock: a clock that jumps is no age."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from vm_health.model import Cause, Finding, HealthReport, Sample, Status
from vm_health.version import VERSION


@dataclass(frozen=True, slots=True)
class Look:
    """What is up on the board, its age, and why it no longer counts ("" while it does).

    As long as ``report`` is the same object and ``stale`` the same text, ``judged`` says the same.
    """

    report: HealthReport
    age_seconds: float
    stale: str
    limit_seconds: float

    def judged(self) -> HealthReport:
        """Return the report with its age; an old one says that nobody knows."""
        aged = replace(self.report, age_seconds=self.age_seconds)
        return as_stale(aged, self.limit_seconds, self.stale) if self.stale else aged


class Board:
    """Holds one report and says how old it is. Written by the sampler, read by every request."""

    def __init__(
        self,
        empty: HealthReport,
        stale_after_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._empty = empty
        self._began = monotonic()
        self._stale_after_seconds = stale_after_seconds
        self._monotonic = monotonic
        # One attribute, replaced as a whole: readers need no lock.
        self._posted: tuple[HealthReport, float] | None = None

    def post(self, report: HealthReport, taken_monotonic: float) -> None:
        """Put up ``report``, whose sample was begun at ``taken_monotonic``."""
        self._posted = (report, taken_monotonic)

    def look(self) -> Look:
        """Return what is up, cheaply: nothing is judged or copied."""
        limit = self._stale_after_seconds
        report, taken = self._posted or (self._empty, self._began)
        age = max(0.0, self._monotonic() - taken)
        stale = ""
        if report is self._empty:
            stale = "no sample has been taken yet"
        elif age > limit:
            stale = f"the last sample is {age:.0f} s old (limit {limit:g} s)"
        return Look(report, age, stale, limit)

    def current(self) -> HealthReport:
        """Return the last report with its age; an old one says that nobody knows."""
        return self.look().judged()


def as_stale(report: HealthReport, limit_seconds: float, message: str) -> HealthReport:
    """Return ``report`` as one that no longer says how the VM is.

    Its findings go, for they were about another time, and UNKNOWN is neither fine nor harm; the sample
    stays for whoever wants to see it.
    """
    age = round(report.age_seconds, 3)
    finding = Finding(Cause.SAMPLE_STALE, Status.UNKNOWN, "sample", message, age, limit_seconds)
    return replace(report, status=Status.UNKNOWN, findings=(finding,))


def empty_report(host: str, vm_id: str, endpoint: str, now: datetime) -> HealthReport:
    """Return the report of an agent that has not looked yet."""
    return HealthReport(
        vm_id=vm_id,
        host=host,
        agent_version=VERSION,
        boot_id="",
        sequence=0,
        status=Status.UNKNOWN,
        findings=(),
        sample=Sample(taken_at=now),
        endpoint=endpoint,
    )
