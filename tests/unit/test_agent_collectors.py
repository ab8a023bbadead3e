"""What is read from systemctl, and that no collector spoils a sample."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from tests.unit.agent_builders import NOW, a_unit
from vm_agent.collectors.base import Parts, Round
from vm_agent.systemctl import parse_moment, parse_show
from vm_health.errors import TransientError
from vm_health.model import CollectorFailure, LogSample, MemorySample

# As systemd 252 prints it: its own order of lines, a block a unit, empty values where there is nothing.
SHOWN = """\
Type=notify
MainPID=98
Result=success
MemoryCurrent=8114176
NRestarts=2
Id=systemd-journald.service
LoadState=loaded
ActiveState=active
SubState=running
InactiveExitTimestamp=Tue 2026-11-24 23:11:36 UTC
ActiveEnterTimestamp=Tue 2026-11-24 23:11:37 UTC

Type=
MainPID=0
Result=success
MemoryCurrent=[not set]
NRestarts=0
Id=nope.service
LoadState=not-found
ActiveState=inactive
SubState=dead
InactiveExitTimestamp=
ActiveEnterTimestamp=

Id=basic.target
MemoryCurrent=18446744073709551615
LoadState=loaded
ActiveState=active
SubState=active
ActiveEnterTimestamp=@1795561897
"""


def test_show_is_read_in_the_order_that_was_asked() -> None:
    journal, nope, target = parse_show(SHOWN, ["syslog.service", "nope.service", "basic.target"])
    assert journal.name == "syslog.service"  # asked by an alias: reported under the name that was asked
    assert (journal.service_type, journal.main_pid, journal.restarts) == ("notify", 98, 2)
    assert journal.active_since == datetime(2026, 11, 24, 23, 11, 37, tzinfo=UTC)
    assert journal.started_at == datetime(2026, 11, 24, 23, 11, 36, tzinfo=UTC)
    assert (nope.started_at, target.started_at) == (None, None)
    assert [unit.memory_bytes for unit in (journal, nope, target)] == [8114176, 0, 0]
    assert (nope.load_state, nope.service_type, nope.active_since, nope.is_up) == (
        "not-found",
        "simple",
        None,
        False,
    )
    assert (target.main_pid, target.is_up) == (0, True)
    assert target.active_since == datetime(2026, 11, 24, 23, 11, 37, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "garbage", SHOWN + "\n\n" + SHOWN])
def test_another_answer_than_asked_for_is_no_sample(text: str) -> None:
    with pytest.raises(TransientError, match="asked were 3"):
        parse_show(text, ["a.service", "b.service", "c.service"])


@pytest.mark.parametrize(
    "text", ["", "n/a", "@0", "@x", "@1e99", "Tue 2026-11-24 23:11:37 CET", "Tue 2026-13-45 x UTC"]
)
def test_a_time_that_cannot_be_read_is_none(text: str) -> None:
    assert parse_moment(text) is None


class Fine:
    name = "fine"
    interval_seconds = 0.0

    def collect(self, now: datetime) -> Parts:
        return {"memory": MemorySample(2, 1, 50.0)}


class Broken:
    name = "broken"
    interval_seconds = 0.0

    def collect(self, now: datetime) -> Parts:
        raise RuntimeError("x" * 1000)


class Partial:
    name = "partial"
    interval_seconds = 0.0

    def collect(self, now: datetime) -> Parts:
        return {"units": (a_unit(),), "failures": (CollectorFailure("partial", "one of two"),)}


class Hanging:
    name = "hanging"
    interval_seconds = 0.0

    def __init__(self) -> None:
        self.released = threading.Event()
        self.entered = self.left = 0

    def collect(self, now: datetime) -> Parts:
        self.entered += 1
        self.released.wait(10)
        self.left += 1
        return {"disks": ()}


def test_a_broken_collector_is_a_finding_and_the_others_go_on() -> None:
    sample = Round([Broken(), Fine(), Partial()], timeout_seconds=5).take(NOW)
    assert sample.taken_at == NOW
    assert sample.memory == MemorySample(2, 1, 50.0)
    assert sample.units == (a_unit(),)
    assert sample.failures == (
        CollectorFailure("broken", "x" * 300),
        CollectorFailure("partial", "one of two"),
    )


def test_a_hanging_collector_is_waited_for_once_and_costs_one_thread() -> None:
    hanging = Hanging()
    looks = Round([hanging, Fine()], timeout_seconds=0.05)
    before = threading.active_count()
    for _ in range(3):
        sample = looks.take(NOW)
        assert sample.memory is not None
        assert sample.failures == (CollectorFailure("hanging", "no answer within 0.05 s"),)
    assert (hanging.entered, threading.active_count() - before) == (1, 2)
    hanging.released.set()
    while hanging.left < 1:  # the released look ends by itself
        threading.Event().wait(0.001)
    for _ in range(100):
        sample = looks.take(NOW)
        if not sample.failures:
            break
    assert (sample.failures, hanging.entered) == ((), 2)


class Slow:
    """Brings one log line more each time, when it is let."""

    name = "slow"
    interval_seconds = 60.0

    def __init__(self) -> None:
        self.may_go = threading.Event()
        self.may_go.set()
        self.is_in = threading.Event()
        self.entered = 0

    def collect(self, now: datetime) -> Parts:
        self.entered += 1
        self.is_in.set()
        assert self.may_go.wait(10)
        return {"logs": (LogSample("slow", self.entered),)}


class Clock:
    def __init__(self) -> None:
        self.at_seconds = 1000.0

    def __call__(self) -> float:
        return self.at_seconds


def test_a_slow_collector_is_asked_once_an_interval_and_delays_only_the_first_sample() -> None:
    slow, clock = Slow(), Clock()
    looks = Round([slow, Fine()], timeout_seconds=5, monotonic=clock)
    assert looks.take(NOW).logs == (LogSample("slow", 1),)
    clock.at_seconds += 59
    assert looks.take(NOW).logs == (LogSample("slow", 1),)
    assert slow.entered == 1
    slow.may_go.clear()
    slow.is_in.clear()
    clock.at_seconds += 1
    sample = looks.take(NOW)  # begun, and not waited for: the last answer stands
    assert (sample.logs, sample.failures) == ((LogSample("slow", 1),), ())
    assert slow.is_in.wait(5)
    clock.at_seconds += 5
    assert looks.take(NOW).failures == (CollectorFailure("slow", "no answer within 5 s"),)
    slow.may_go.set()
    clock.at_seconds += 60
    seen = (looks.take(NOW).logs for _ in iter(int, 1))
    assert next(logs for logs in seen if logs and logs != (LogSample("slow", 1),)) == (LogSample("slow", 3),)


class AlsoLogs:
    name = "also"
    interval_seconds = 0.0

    def collect(self, now: datetime) -> Parts:
        return {"logs": (LogSample("file", 2),), "failures": (CollectorFailure("also", "one"),)}


def test_logs_come_from_several_collectors() -> None:
    sample = Round([AlsoLogs(), Slow()], timeout_seconds=5).take(NOW)
    assert sample.logs == (LogSample("file", 2), LogSample("slow", 1))
    assert sample.failures == (CollectorFailure("also", "one"),)
