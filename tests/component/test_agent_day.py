"""Twenty-four hours in some seconds: the agent's own parts on a clock that the test moves, and a real server
that is down from hour 1 to hour 23. The agent is killed once in the middle of that.

What ingestion takes is checked item by item as the service does, and what it must be is known beforehand.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from array import array
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from devcloud.telemetry_items import row_of
from tests.component.agent_site import KEY, VM_ID, Playback, Reply, Request
from vm_agent.aggregate import Aggregator
from vm_agent.collectors.base import Parts, Round
from vm_agent.sampler import Sampler
from vm_agent.service import Reporter
from vm_agent.spool import Spool
from vm_agent.telemetry import Counts, Telemetry
from vm_agent.urls import connection_string
from vm_health.model import DiskSample, HealthReport, MemorySample, UnitSample
from vm_health.rules import Thresholds

pytest_plugins = ["tests.component.agent_fixtures"]
HOUR = 3600.0
SAMPLE_SECONDS, REPORT_SECONDS, METRICS_SECONDS = 15.0, 60.0, 300.0
BEGAN = datetime(2026, 11, 24, tzinfo=UTC)


class Machine:
    """A machine with three units, one of which is down for five minutes every hour; disk and memory move."""

    name = "machine"
    interval_seconds = 0.0

    def collect(self, now: datetime) -> Parts:
        second = (now - BEGAN).total_seconds()
        is_down = 130 < second % HOUR < 430
        units = tuple(
            UnitSample(
                f"{name}.service", "loaded", *(("failed", "failed") if down else ("active", "running"))
            )
            for name, down in (("web", is_down), ("db", False), ("queue", False))
        )
        return {
            "units": units,
            "disks": (DiskSample("/", 1000, 600, 40 + second / 86_400),),
            "memory": MemorySample(1000, 700, 30 + second % 100 / 10),
        }


@dataclass
class Taken:
    """What ingestion has taken."""

    sequences: list[int] = field(default_factory=list)
    times: list[datetime] = field(default_factory=list)
    points: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    metrics: int = 0
    told_dropped: float = 0.0


class Day:
    """One run: the parts as ``service.py`` wires them, and the clock."""

    def __init__(self, server: Playback, directory: Path, max_bytes: int) -> None:
        self._server, self._directory, self._max_bytes = server, directory, max_bytes
        self.seconds = 0.0
        self.taken = Taken()
        self.submitted, self.submitted_at = array("q"), array("d")  # not objects: they are not to be counted
        self.metrics_submitted = 0
        self.samples: dict[str, tuple[float, int]] = {}
        self.dropped_before = 0
        self.most_on_disk = 0
        self.memory: list[tuple[float, int, int]] = []
        server.default = self._answer
        self._spool, self.telemetry = self._new_telemetry()
        self._sampler = Sampler(
            Round([Machine()], 8.0),
            Thresholds(),
            vm_id=lambda: VM_ID,
            endpoint=lambda: "http://10.0.0.4:8080",
        )
        self._reporter = Reporter(REPORT_SECONDS, self._submit, lambda vm_id: None)
        self._aggregator = Aggregator(METRICS_SECONDS, self._submit_metrics)

    def now(self) -> datetime:
        return BEGAN + timedelta(seconds=self.seconds)

    def run(self) -> Counts:
        turn_at = 0.0
        for number in range(int(24 * HOUR / SAMPLE_SECONDS)):
            began = number * SAMPLE_SECONDS
            if began == 12 * HOUR:
                self._kill()
            while turn_at < began:  # a retry that is due between two samples
                self.seconds = max(turn_at, self.seconds)
                turn_at = self._turn()
            self.seconds = began
            report = self._sampler.take(self.now())
            self._count(report)
            self._reporter.consider(report, began)
            self._aggregator.add(report, began)
            turn_at = self._turn()
            if began % HOUR == HOUR / 2:
                self._measure(began)
        self._aggregator.flush()
        self._turn()
        return self.telemetry.counts

    def _turn(self) -> float:
        """Let telemetry do what it has to; returns when it wants another turn."""
        while (wait_seconds := self.telemetry.turn()) == 0.0:
            pass
        return float("inf") if wait_seconds is None else self.seconds + wait_seconds

    def _kill(self) -> None:
        """The process dies: nothing is said good-bye to, the kernel frees the lock; another one starts."""
        self.dropped_before = self.telemetry.counts.dropped
        self._spool.close()
        self._spool, self.telemetry = self._new_telemetry()

    def _new_telemetry(self) -> tuple[Spool, Telemetry]:
        spool = Spool(str(self._directory), self._max_bytes)
        spool.open()
        target = connection_string(self._server.connection_string)
        return spool, Telemetry(target, None, spool, now=self.now, monotonic=lambda: self.seconds)

    def _submit(self, report: HealthReport) -> None:
        self.submitted.append(report.sequence)
        self.submitted_at.append(self.seconds)
        self.telemetry.submit(report)

    def _submit_metrics(self, found: Any) -> None:
        self.metrics_submitted += len(found.series)
        self.telemetry.submit_metrics(found)

    def _count(self, report: HealthReport) -> None:
        assert report.sample.memory is not None
        for name, value in (
            ("health.disk_usage", report.sample.disks[0].used_percent),
            ("health.memory_usage", report.sample.memory.used_percent),
        ):
            total, count = self.samples.get(name, (0.0, 0))
            self.samples[name] = (total + value, count + 1)

    def _measure(self, began: float) -> None:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.memory.append((began / HOUR, sys.getallocatedblocks(), pages * os.sysconf("SC_PAGE_SIZE")))
        on_disk = sum(entry.stat().st_size for entry in os.scandir(self._directory))
        self.most_on_disk = max(self.most_on_disk, on_disk)

    def _answer(self, request: Request) -> Reply:
        self._server.requests.clear()  # else the test's own memory would grow
        if HOUR <= self.seconds < 23 * HOUR:
            return Reply(503)
        for item in request.items():
            table, row = row_of(item, KEY, self.now())
            if table == "AppEvents":
                assert row["Measurements"] is not None
                self.taken.sequences.append(json.loads(row["Properties"]["report"])["sequence"])
                self.taken.times.append(row["TimeGenerated"])
                self.taken.told_dropped = row["Measurements"]["telemetry_dropped"]
            else:
                self.taken.metrics += 1
                self.taken.points.setdefault(row["Name"], []).append((row["Sum"], row["ItemCount"]))
        return Reply()


def test_a_day_whose_outage_fits_loses_nothing(server: Playback, tmp_path: Path) -> None:
    """Every snapshot arrives once, in order, with its own time; the metrics add up; memory stays flat."""
    day = Day(server, tmp_path / "spool", 10_000_000)
    counts = day.run()
    taken = day.taken
    assert len(day.submitted) > 24 * 60
    assert taken.sequences == list(day.submitted)
    assert taken.times == [BEGAN + timedelta(seconds=at) for at in day.submitted_at]
    for name, (total, count) in day.samples.items():
        points = taken.points[name]
        assert sum(point[1] for point in points) == count == 24 * 3600 / SAMPLE_SECONDS
        assert sum(point[0] for point in points) == pytest.approx(total)
    assert (taken.metrics, counts.dropped, day.dropped_before, taken.told_dropped) == (
        day.metrics_submitted,
        0,
        0,
        0.0,
    )
    assert (counts.waiting, list((tmp_path / "spool").iterdir())) == (0, [])
    assert day.most_on_disk < 10_000_000
    blocks, resident = ({hour: one[kind] for hour, *one in day.memory} for kind in (0, 1))
    samples = 20 * HOUR / SAMPLE_SECONDS
    assert blocks[22.5] - blocks[2.5] < samples / 2, day.memory  # not one object stays of a sample
    assert resident[22.5] - resident[2.5] < 4_000_000, day.memory


def test_a_day_whose_outage_does_not_fit_loses_the_oldest_and_says_how_many(
    server: Playback, tmp_path: Path
) -> None:
    """The spool keeps its bound; one gap, at the start of the outage; every item in it is counted."""
    day = Day(server, tmp_path / "spool", 1_000_000)
    counts = day.run()
    sent = list(day.submitted)
    before = [sequence for sequence, at in zip(sent, day.submitted_at, strict=True) if at < HOUR]
    after = day.taken.sequences[len(before) :]
    assert day.taken.sequences[: len(before)] == before
    assert 0 < len(after) < len(sent) - len(before)
    assert after == sent[-len(after) :]
    lost = len(sent) - len(day.taken.sequences) + day.metrics_submitted - day.taken.metrics
    assert counts.dropped + day.dropped_before == lost
    assert counts.dropped == counts.no_room > 0
    assert day.dropped_before > 0
    assert day.taken.told_dropped == counts.dropped  # the last snapshot says so itself
    assert 850_000 < day.most_on_disk <= 1_000_000
    assert counts.waiting == 0
