"""What systemd is told, read from real sockets of both kinds."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.agent_builders import a_down_unit, a_report
from vm_agent.config import service_manager
from vm_agent.notify import Notifier, status_line
from vm_health.model import Cause, Finding, Status


class Manager:
    """The other end: a datagram socket and what came out of it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        """One message, line by line; none is an error."""
        return self._socket.recv(8192).decode().split("\n")

    def heard_nothing(self) -> bool:
        try:
            return not self._socket.recv(8192)
        except BlockingIOError:
            return True

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    found = Manager(str(tmp_path / "notify") if request.param == "path" else f"@vm-agent-test-{os.getpid()}")
    yield found
    found.close()


def test_the_first_sample_makes_it_ready_and_each_one_is_a_ping(manager: Manager) -> None:
    notifier = Notifier(manager.address, watchdog_seconds=60, interval_seconds=15)
    notifier.sampled(a_report())
    assert manager.heard() == ["READY=1", "WATCHDOG=1", "STATUS=HEALTHY: all is well"]
    notifier.sampled(a_report())
    assert manager.heard() == ["WATCHDOG=1"]
    notifier.sampled(a_report(a_down_unit()))
    assert manager.heard() == [
        "WATCHDOG=1",
        "STATUS=CRITICAL: web.service is down (failed/failed, result exit-code)",
    ]
    notifier.stopping()
    assert manager.heard() == ["STOPPING=1"]


def test_without_a_watchdog_there_are_no_pings(manager: Manager) -> None:
    notifier = Notifier(manager.address)
    notifier.sampled(a_report())
    assert manager.heard() == ["READY=1", "STATUS=HEALTHY: all is well"]
    notifier.sampled(a_report())
    assert manager.heard_nothing()


def test_a_chosen_slow_rhythm_is_not_taken_for_a_stuck_sampler(manager: Manager) -> None:
    notifier = Notifier(manager.address, watchdog_seconds=60, interval_seconds=300)
    notifier.sampled(a_report())
    assert manager.heard()[:3] == ["READY=1", "WATCHDOG_USEC=1200000000", "WATCHDOG=1"]
    notifier.sampled(a_report())
    assert manager.heard() == ["WATCHDOG=1"]


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative"])
def test_nothing_happens_without_a_socket(address: str) -> None:
    notifier = Notifier(address, watchdog_seconds=60)
    notifier.sampled(a_report())
    notifier.stopping()


def test_a_manager_that_is_away_hurts_nobody_and_hears_everything_later(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    notifier = Notifier(path, watchdog_seconds=60)
    notifier.sampled(a_report())
    manager = Manager(path)
    notifier.sampled(a_report())
    assert manager.heard() == ["READY=1", "WATCHDOG=1", "STATUS=HEALTHY: all is well"]
    manager.close()


def test_what_a_message_quotes_cannot_speak_to_systemd() -> None:
    forged = Finding(
        Status.CRITICAL, Cause.LOG_ERRORS, "web.service", "it says: x\nMAINPID=1\r\x1b[31m\u2028y"
    )
    line = status_line(replace(a_report(), status=Status.CRITICAL, findings=(forged,)))
    assert line == "CRITICAL: it says: x MAINPID=1 ?[31m y"


def test_a_long_status_is_cut() -> None:
    report = a_report(*(a_down_unit(f"unit-{number}.service") for number in range(50)))
    assert len(status_line(report)) == 300
    assert status_line(report).endswith("...")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, ("", 0.0)),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "7"}, ("/run/n", 60.0)),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "60000000"}, ("/run/n", 60.0)),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "8"}, ("/run/n", 0.0)),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "soon"}, ("@n", 0.0)),
    ],
)
def test_what_systemd_hands_over(given: dict[str, str], found: tuple[str, float]) -> None:
    assert service_manager(given, pid=7) == found
