"""Units over the bus: what is asked, what is news, which source answers, how restarts are counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from jeepney import DBusAddress, HeaderFields, Message, new_signal

from tests.unit.agent_builders import NOW, a_unit
from vm_agent.bus_units import unit_sample
from vm_agent.restart_history import RestartHistory
from vm_agent.systemd_bus import MANAGER, MANAGER_PATH, PROPERTIES
from vm_agent.unit_signals import UnitSignals, rules
from vm_agent.unit_source import UnitSource
from vm_agent.wake import Wake
from vm_health.errors import TransientError
from vm_health.model import UnitSample

PATH = "/org/freedesktop/systemd1/unit/web_2eservice"
ROW = ("web.service", "Web", "loaded", "active", "running", "", PATH, 0, "", "/")


def test_a_sample_is_put_together_from_row_and_properties() -> None:
    found = unit_sample(
        "web.service",
        ROW,
        {
            "Type": "notify",
            "Result": "success",
            "NRestarts": 3,
            "MainPID": 7,
            "MemoryCurrent": 4096,
            "ActiveEnterTimestamp": 1_795_561_897_000_000,
            "InactiveExitTimestamp": 1_795_561_895_900_000,
        },
    )
    since = datetime(2026, 11, 24, 23, 11, 37, tzinfo=UTC)
    assert found == UnitSample(
        "web.service",
        "loaded",
        "active",
        "running",
        "notify",
        "success",
        3,
        0,
        7,
        since,
        4096,
        since - timedelta(seconds=2),
    )
    bare = unit_sample("web.service", ROW, {"MemoryCurrent": 2**64 - 1, "ActiveEnterTimestamp": 2**64 - 1})
    assert (bare.memory_bytes, bare.active_since, bare.service_type) == (0, None, "simple")
    assert unit_sample("web.service", ROW, {"InactiveExitTimestamp": 0}).started_at is None


def test_rules_name_each_unit_and_stay_below_what_a_bus_allows() -> None:
    units = [f"unit{number}.service" for number in range(64)]
    found = rules(units, [f"/unit/{unit}" for unit in units])
    assert len(found) == 2 + 2 * 64 < 512
    assert sum("member='JobRemoved',arg2='unit7.service'" in rule for rule in found) == 1


def properties_changed(active: str, sub: str, entered: int) -> Message:
    changed = {
        "ActiveState": ("s", active),
        "SubState": ("s", sub),
        "ActiveEnterTimestampMonotonic": ("t", entered),
    }
    body = ("org.freedesktop.systemd1.Unit", changed, [])
    return new_signal(DBusAddress(PATH, interface=PROPERTIES), "PropertiesChanged", "sa{sv}as", body)


def manager_signal(member: str, signature: str, *body: object) -> Message:
    return new_signal(DBusAddress(MANAGER_PATH, interface=MANAGER), member, signature, body)


def test_a_change_of_state_is_news_and_a_new_status_text_is_not() -> None:
    signals = UnitSignals("/nowhere", ["web.service"], lambda: None, lambda: None)
    seen = [
        signals.is_news(message)
        for message in (
            properties_changed("active", "running", 1),  # the first: nothing to compare with
            properties_changed("active", "running", 1),  # STATUS= or a watchdog's ping
            properties_changed("failed", "failed", 1),
            properties_changed("activating", "auto-restart", 1),
            properties_changed("active", "running", 2),
            properties_changed("active", "running", 3),  # down and up again in one signal
        )
    ]
    assert seen == [True, False, True, True, True, True]
    assert signals.is_news(manager_signal("JobRemoved", "uoss", 1, "/job/1", "web.service", "done"))
    assert signals.is_news(manager_signal("Reloading", "b", False))
    assert not signals.is_news(manager_signal("Reloading", "b", True))
    owner = manager_signal("NameOwnerChanged", "sss", "org.freedesktop.systemd1", ":1.1", "")
    owner.header.fields[HeaderFields.sender] = "org.freedesktop.DBus"
    with pytest.raises(TransientError, match="anew"):
        signals.is_news(owner)


class Says:
    """A source that gives what it is told to."""

    def __init__(self, name: str) -> None:
        self.unit = a_unit(name)
        self.fails = False
        self.asked = 0

    def show(self, units: object) -> tuple[UnitSample, ...]:
        self.asked += 1
        if self.fails:
            raise TransientError(f"{self.unit.name} is out of reach")
        return (self.unit,)


def test_the_command_stands_in_for_the_bus_until_that_is_tried_again() -> None:
    bus, command, clock = Says("bus.service"), Says("command.service"), [0.0]
    source = UnitSource(bus, command, lambda: clock[0])
    assert (source.show(()), source.in_use) == ((bus.unit,), "dbus")
    bus.fails = True
    assert (source.show(()), source.in_use) == ((command.unit,), "systemctl")
    bus.fails = False
    clock[0] = 29.0
    assert source.show(()) == (command.unit,)
    source.retry_bus()
    assert source.show(()) == (bus.unit,)
    bus.fails = command.fails = True
    with pytest.raises(TransientError, match=r"bus.service is out of reach; command.service is out of reach"):
        source.show(())
    clock[0] = 60.0
    bus.fails = False
    assert source.show(()) == (bus.unit,)


def test_without_the_command_only_the_bus_is_asked_each_time() -> None:
    bus = Says("bus.service")
    source = UnitSource(bus, None, lambda: 0.0)
    bus.fails = True
    for _ in range(2):
        with pytest.raises(TransientError, match="out of reach"):
            source.show(())
    assert bus.asked == 2


class Machine:
    """The clocks of a machine that has been up for long."""

    def __init__(self, up_seconds: float = 10_000.0) -> None:
        self.up_seconds = up_seconds
        self.now = NOW

    def pass_by(self, seconds: float) -> None:
        self.up_seconds += seconds
        self.now += timedelta(seconds=seconds)

    def history(self) -> RestartHistory:
        return RestartHistory(monotonic=lambda: self.up_seconds)


def test_restarts_count_for_fifteen_minutes_and_survive_a_count_that_begins_anew() -> None:
    machine = Machine()
    history = machine.history()
    seen = []
    for seconds, restarts in ((0, 7), (10, 9), (10, 9), (80, 1), (809.9, 1), (0.1, 1), (90, 1)):
        machine.pass_by(seconds)
        seen.append(history.observe((a_unit(restarts=restarts),), machine.now)["web.service"])
    assert seen == [0, 2, 2, 3, 3, 1, 0]
    assert history.observe((a_unit("b.service", restarts=3),), machine.now) == {"b.service": 0}


def test_shortly_after_a_boot_all_its_restarts_are_recent() -> None:
    machine = Machine(up_seconds=899.0)
    history = machine.history()
    assert history.observe((a_unit(restarts=4),), machine.now) == {"web.service": 4}


def test_the_wall_clock_may_jump() -> None:
    machine = Machine()
    history = machine.history()
    history.observe((a_unit(restarts=0),), machine.now)
    for jump in (timedelta(days=400), timedelta(days=-800)):
        machine.now += jump
        assert history.observe((a_unit(restarts=2),), machine.now) == {"web.service": 2}


def test_the_sampler_sleeps_until_it_is_due_or_rung() -> None:
    wake = Wake()
    assert not wake.sleep_until(0.0)
    wake.ring()
    wake.ring()
    far = 1e12
    assert wake.sleep_until(far)
    wake.ring()
    assert wake.sleep_until(far)


def test_endless_ringing_wakes_once_a_second_at_last() -> None:
    clock = [100.0]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    wake = Wake(monotonic=lambda: clock[0], sleep=sleep)
    for _ in range(40):
        wake.ring()
        assert wake.sleep_until(1e12)
    assert slept[1:5] == pytest.approx([0.25] * 4)
    assert slept[-5:] == pytest.approx([1.0] * 5, abs=0.01)
    clock[0] += 60
    wake.ring()
    wake.sleep_until(1e12)
    assert slept[-1] == pytest.approx(0.15)
