"""Many samples, few metrics: what an interval adds up to, and when it is over."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.agent_builders import NOW, VM_ID, a_down_unit, a_report, a_unit
from vm_agent.aggregate import SENT, Aggregates, Aggregator
from vm_health.model import HealthReport, HeartbeatSample


def at(seconds: float, report: HealthReport) -> HealthReport:
    return replace(report, sample=replace(report.sample, taken_at=NOW + timedelta(seconds=seconds)))


def numbers(found: Aggregates) -> dict[tuple[str, str], tuple[int, float, float, float]]:
    return {(one.name, one.subject): (one.count, one.total, one.least, one.most) for one in found.series}


def test_each_name_and_subject_is_added_up_for_itself() -> None:
    sent: list[Aggregates] = []
    aggregator = Aggregator(300.0, sent.append)
    beat = (HeartbeatSample("/h", 5.0),)
    aggregator.add(at(0, a_report(a_unit(), a_unit("db.service", recent_restarts=3), disk_percent=40)), 0.0)
    aggregator.add(at(15, a_report(a_down_unit(), disk_percent=70, heartbeats=beat)), 15.0)
    assert sent == []
    aggregator.flush()
    (found,) = sent
    assert (found.vm_id, found.host, found.at) == (VM_ID, "vm1", NOW + timedelta(seconds=15))
    assert numbers(found) == {
        ("health.disk_usage", "/"): (2, 110.0, 40.0, 70.0),
        ("health.memory_usage", ""): (2, 60.0, 30.0, 30.0),
        ("health.heartbeat_age", "/h"): (1, 5.0, 5.0, 5.0),
        ("health.crash_count", "web.service"): (2, 0.0, 0.0, 0.0),
        ("health.service_active", "web.service"): (2, 1.0, 0.0, 1.0),
        ("health.crash_count", "db.service"): (1, 3.0, 3.0, 3.0),
        ("health.service_active", "db.service"): (1, 1.0, 1.0, 1.0),
    }
    assert {name for name, _ in numbers(found)} == SENT


def test_an_interval_ends_before_the_sample_that_is_past_it() -> None:
    sent: list[Aggregates] = []
    aggregator = Aggregator(60.0, sent.append)
    for second in range(0, 200, 15):
        aggregator.add(at(second, a_report()), float(second))
    counts = [numbers(found)[("health.memory_usage", "")][0] for found in sent]
    assert counts == [4, 4, 4]
    assert [found.at - NOW for found in sent] == [timedelta(seconds=end) for end in (45, 105, 165)]


def test_a_long_pause_is_no_reason_to_hurry() -> None:
    """After a suspended hour there is one interval to send, then the rhythm goes on."""
    sent: list[Aggregates] = []
    aggregator = Aggregator(60.0, sent.append)
    for second in (0, 15, 3700, 3715, 3730, 3745):
        aggregator.add(at(second, a_report()), float(second))
    assert [numbers(found)[("health.memory_usage", "")][0] for found in sent] == [2, 2]


def test_nothing_seen_is_nothing_sent() -> None:
    sent: list[Aggregates] = []
    aggregator = Aggregator(60.0, sent.append)
    aggregator.flush()
    aggregator.add(a_report(), 0.0)
    aggregator.flush()
    aggregator.flush()
    assert len(sent) == 1


@given(st.lists(st.floats(0, 100), min_size=1, max_size=200), st.integers(15, 600))
def test_no_sample_is_lost_or_counted_twice(values: list[float], interval: int) -> None:
    sent: list[Aggregates] = []
    aggregator = Aggregator(float(interval), sent.append)
    for index, value in enumerate(values):
        aggregator.add(at(15 * index, a_report(disk_percent=value)), 15.0 * index)
    aggregator.flush()
    disks = [numbers(found)[("health.disk_usage", "/")] for found in sent]
    assert sum(count for count, *_ in disks) == len(values)
    assert abs(sum(total for _, total, *_ in disks) - sum(values)) < 1e-6
    assert min(least for *_, least, _ in disks) == min(values)
    assert max(most for *_, most in disks) == max(values)
