"""What is read from systemctl, how restarts are counted, and that no collector spoils a sample."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from tests.unit.agent_builders import NOW, a_unit
from vm_agent.collectors.base import Parts, Round
from vm_agent.collectors.units import RestartHistory
from vm_agent.systemctl import parse_moment, parse_show
from vm_health.errors import TransientError
from vm_health.model import CollectorFailure, MemorySample

# As systemd 252 prints it: its own order of lines, a block a unit, empty values where there is nothing.
SHOWN = """\
Type=notify
MainPID=98
Result=success
NRestarts=2
Id=systemd-journald.service
LoadState=loaded
ActiveState=active
SubState=running
ActiveEnterTimestamp=Tue 2026-11-24 23:11:37 UTC

Type=
MainPID=0
Result=success
NRestarts=0
Id=nope.service
LoadState=not-found
ActiveState=inactive
SubState=dead
ActiveEnterTimestamp=

Id=basic.target
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


def test_restarts_count_for_fifteen_minutes_and_survive_a_count_that_begins_anew() -> None:
    history = RestartHistory(window_seconds=900)
    seen = [
        history.observe("a.service", restarts, at_seconds)
        for restarts, at_seconds in (
            (7, 0.0),
            (9, 10.0),
            (9, 20.0),
            (1, 100.0),
            (1, 909.9),
            (1, 910.0),
            (1, 1000.0),
        )
    ]
    assert seen == [0, 2, 2, 3, 3, 1, 0]
    assert history.observe("b.service", 3, 1000.0) == 0


class Fine:
    name = "fine"

    def collect(self, now: datetime) -> Parts:
        return {"memory": MemorySample(2, 1, 50.0)}


class Broken:
    name = "broken"

    def collect(self, now: datetime) -> Parts:
        raise RuntimeError("x" * 1000)


class Partial:
    name = "partial"

    def collect(self, now: datetime) -> Parts:
        return {"units": (a_unit(),), "failures": (CollectorFailure("partial", "one of two"),)}


class Hanging:
    name = "hanging"

    def __init__(self) -> None:
        self.released = threading.Event()
        self.entered = 0

    def collect(self, now: datetime) -> Parts:
        self.entered += 1
        self.released.wait(10)
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


def test_a_hanging_collector_costs_its_time_out_and_one_thread() -> None:
    hanging = Hanging()
    looks = Round([hanging, Fine()], timeout_seconds=0.05)
    for _ in range(3):
        sample = looks.take(NOW)
        assert sample.memory is not None
        assert sample.failures == (CollectorFailure("hanging", "no answer within 0.05 s"),)
    assert hanging.entered == 1
    hanging.released.set()
    stuck = [thread for thread in threading.enumerate() if thread.name == "hanging"]
    for thread in stuck:
        thread.join(5)
    sample = looks.take(NOW)
    assert (sample.failures, hanging.entered) == ((), 2)
