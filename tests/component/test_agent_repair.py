"""Local repair on real files and locks, with a systemd whose answers the test writes; time is the test's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.component.agent_site import ROOT, Site, shown
from tests.unit.agent_builders import a_down_unit, a_report, a_unit
from vm_agent.config import load_remediation
from vm_agent.files import DirectoryLock
from vm_agent.remediation import Result, remediate_here
from vm_agent.repair import Considered, LocalRepair
from vm_health.model import Cause, DeployLock, HealthReport, RepairSample, Status, UnitSample
from vm_health.wire import decode_report

pytest_plugins = ["tests.component.agent_fixtures"]
BEGAN = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
WEB = "web.service"


@dataclass
class Systemd:
    """Restarts nothing, and remembers that it was asked to."""

    problem: str = ""
    restarted: list[str] = field(default_factory=list)
    gate: threading.Event | None = None
    begun: threading.Event = field(default_factory=threading.Event)

    def reset_failed(self, unit: str) -> None:
        pass

    def restart(self, unit: str) -> str:
        self.begun.set()
        if self.gate is not None:
            assert self.gate.wait(10)
        self.restarted.append(unit)
        return self.problem


class Bench:
    """A machine's repair, looked at as often as the test likes."""

    def __init__(self, directory: Path) -> None:
        self.state_dir = directory / "state"
        self.allow_list = directory / "allow-units"
        self.allow_list.write_text(f"{WEB}\ndb.service\n")
        self.allow_list.chmod(0o644)
        self.systemd = Systemd()
        self.now = BEGAN
        self.repair = self.new_repair()

    @property
    def file(self) -> Path:
        return self.state_dir / "restart_backoff.json"

    def new_repair(self) -> LocalRepair:
        """What an agent that was started afresh has."""
        units = [WEB, "db.service", "vm-agent.service", "other.service"]
        return LocalRepair(units, str(self.allow_list), str(self.state_dir), lambda: self.systemd)

    def look(self, *units: UnitSample, after: float = 0.0) -> Considered:
        self.now += timedelta(seconds=after)
        found = self.repair.consider(self.report(*units), self.now)
        self.repair.wait()
        return found

    def report(self, *units: UnitSample) -> HealthReport:
        found = a_report(*units)
        return replace(found, sample=replace(found.sample, taken_at=self.now))

    def until_restarted(self, *units: UnitSample) -> float:
        """Look when asked to until there is one more restart; returns the seconds that took."""
        began, count = self.now, len(self.systemd.restarted)
        while len(self.systemd.restarted) == count:
            self.look(*units)
            if len(self.systemd.restarted) == count:
                assert self.repair.look_at is not None
                self.now = self.repair.look_at
        return (self.now - began).total_seconds()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def message(found: Considered) -> str:
    return next(one.message for one in found.report.findings if one.code is Cause.SERVICE_DOWN)


def test_the_watchdogs_waits_attempts_and_circuit(bench: Bench) -> None:
    """10, 20, 40, 80, 160, 300 s, then it gives up once, and says so."""
    waits = [bench.until_restarted(a_down_unit()) for _ in range(6)]
    assert waits == [10, 20, 40, 80, 160, 300]
    found = bench.look(a_down_unit(), after=5)
    assert found.report.repairs == (RepairSample(WEB, 6, bench.now + timedelta(seconds=295)),)
    found = bench.look(a_down_unit(), after=295)
    assert (found.gave_up, found.attempts) == ((WEB,), 6)
    assert found.report.repairs == (RepairSample(WEB, 6, None, circuit_open=True),)
    assert "people are needed" in message(found)
    assert bench.look(a_down_unit(), after=3600).gave_up == ()
    assert bench.systemd.restarted == [WEB] * 6


def test_the_report_says_attempts_and_next_time(bench: Bench) -> None:
    found = bench.look(a_down_unit())
    assert found.report.repairs == (RepairSample(WEB, 0, BEGAN + timedelta(seconds=10)),)
    assert "; local repair: attempt 1 of 6 in 10 s" in message(found)
    assert bench.repair.look_at == BEGAN + timedelta(seconds=10)
    bench.systemd.problem = "Job for web.service failed."
    bench.look(a_down_unit(), after=10)
    found = bench.look(a_down_unit(), after=5)
    assert found.report.repairs == (RepairSample(WEB, 1, bench.now + timedelta(seconds=15)),)
    assert "attempt 2 of 6 in 15 s" in message(found)
    assert message(found).endswith(" (the last restart failed: Job for web.service failed.)")


def test_the_backoff_survives_a_restart_of_the_agent(bench: Bench) -> None:
    bench.until_restarted(a_down_unit())
    bench.until_restarted(a_down_unit())
    bench.repair = bench.new_repair()
    assert bench.until_restarted(a_down_unit()) == 40
    assert json.loads(bench.file.read_text())["units"][0]["attempts"] == 3
    assert bench.file.stat().st_mode & 0o077 == 0


def test_after_ten_stable_minutes_it_begins_anew(bench: Bench) -> None:
    bench.until_restarted(a_down_unit())
    assert bench.look(a_unit(), after=5).report.repairs == (RepairSample(WEB, 1),)
    bench.look(a_unit(), after=590)
    assert bench.until_restarted(a_down_unit()) == 20  # not stable for long enough: where it was
    bench.look(a_unit(), after=5)
    assert bench.look(a_unit(), after=600).report.repairs == ()
    assert not bench.file.exists()
    assert bench.until_restarted(a_down_unit()) == 10


@pytest.mark.parametrize(
    ("unit", "reason"),
    [
        (a_unit(active_state="inactive", sub_state="dead", main_pid=0), "it was stopped on purpose"),
        (replace(a_down_unit(), load_state="masked"), "systemd says that it is masked"),
        (replace(a_down_unit(), load_state="not-found"), "systemd says that it is not-found"),
        (a_down_unit("other.service"), "it is not in "),
        (a_down_unit("vm-agent.service"), "the agent does not restart itself"),
    ],
)
def test_what_is_left_alone_and_why(bench: Bench, unit: UnitSample, reason: str) -> None:
    for _ in range(5):
        found = bench.look(unit, after=60)
    assert bench.systemd.restarted == []
    assert found.report.repairs == ()
    assert f"; not restarted: {reason}" in message(found)


def test_what_somebody_stopped_in_the_middle_of_a_repair_stays_stopped(bench: Bench) -> None:
    bench.until_restarted(a_down_unit())
    stopped = a_unit(active_state="inactive", sub_state="dead", main_pid=0)
    for _ in range(5):
        bench.look(stopped, after=60)
    assert len(bench.systemd.restarted) == 1


def test_what_systemd_is_about_to_start_is_not_started_twice(bench: Bench) -> None:
    """RestartSec= and Restart= are the administrator's own backoff; ours begins where systemd gives up."""
    waiting = a_unit(active_state="activating", sub_state="auto-restart", main_pid=0)
    for _ in range(5):
        assert message(bench.look(waiting, after=60)).endswith("; systemd is at it")
    assert bench.systemd.restarted == []
    assert bench.until_restarted(a_down_unit()) == 10


def test_what_is_starting_is_neither_down_nor_up(bench: Bench) -> None:
    """Attempts and waits stay as they are until it is known how the start ends."""
    bench.until_restarted(a_down_unit())
    kept = bench.repair._states[WEB]
    starting = a_unit(
        active_state="activating", sub_state="start", main_pid=0, started_at=bench.now, active_since=None
    )
    for _ in range(3):
        found = bench.look(starting, after=15)
        assert found.report.status is Status.HEALTHY
        assert found.report.repairs == (RepairSample(WEB, 1, kept.not_before),)
    assert bench.until_restarted(a_down_unit()) == 0  # the wait went on meanwhile: it is due
    assert bench.repair._states[WEB].attempts == 2


def test_where_nothing_can_be_repaired_what_is_starting_is_not_given_up(bench: Bench) -> None:
    bench.allow_list.unlink()
    starting = a_unit("db.service", active_state="activating", sub_state="start", started_at=BEGAN)
    found = bench.look(a_down_unit(), starting)
    assert found.report.repairs == (RepairSample(WEB, 0, None, circuit_open=True),)


def locked(report: HealthReport, lock: DeployLock | None) -> HealthReport:
    return replace(report, sample=replace(report.sample, deploy_lock=lock))


def test_during_a_deployment_nothing_is_restarted_and_the_report_says_so(bench: Bench) -> None:
    lock = DeployLock(BEGAN + timedelta(minutes=20), "release 1.2")
    for _ in range(5):
        bench.now += timedelta(seconds=60)
        found = bench.repair.consider(locked(bench.report(a_down_unit()), lock), bench.now)
        assert message(found).endswith(
            "; not restarted: a deployment holds this VM until 12:20:00 UTC (release 1.2)"
        )
        assert (found.report.status, bench.repair.look_at) == (Status.CRITICAL, None)
    assert bench.systemd.restarted == []
    assert not bench.state_dir.exists()
    assert bench.until_restarted(a_down_unit()) == 10  # as if it had gone down when the lock ended


def test_a_lock_in_the_middle_of_a_repair_keeps_its_attempts(bench: Bench) -> None:
    bench.until_restarted(a_down_unit())
    bench.until_restarted(a_down_unit())
    lock = DeployLock(bench.now + timedelta(minutes=20))
    bench.now += timedelta(seconds=600)
    found = bench.repair.consider(locked(bench.report(a_down_unit()), lock), bench.now)
    assert found.report.repairs[0].attempts == 2
    assert bench.until_restarted(a_down_unit()) == 0
    assert bench.repair._states[WEB].attempts == 3


def test_what_is_up_during_a_deployment_is_told_without_a_word_of_it(bench: Bench) -> None:
    report = locked(bench.report(a_unit()), DeployLock(BEGAN + timedelta(minutes=20)))
    assert bench.repair.consider(report, bench.now).report == report


def test_a_restart_under_way_holds_everything_else(bench: Bench) -> None:
    """Looks go on while systemd takes its time; nothing is decided meanwhile, by us or by `remediate`."""
    bench.systemd.gate = threading.Event()
    bench.look(a_down_unit())
    bench.now += timedelta(seconds=10)
    bench.repair.consider(bench.report(a_down_unit()), bench.now)
    assert bench.systemd.begun.wait(10)
    assert not DirectoryLock(str(bench.state_dir)).take()
    for _ in range(10):
        bench.now += timedelta(seconds=60)
        found = bench.repair.consider(bench.report(a_down_unit()), bench.now)
        assert message(found).endswith("; a restart is under way")
        assert found.report.repairs[0].attempts == 1
    bench.systemd.gate.set()
    bench.repair.wait()
    assert bench.systemd.restarted == [WEB]
    lock = DirectoryLock(str(bench.state_dir))
    assert lock.take()
    lock.release()


@pytest.mark.parametrize(
    "content",
    ["", "{", "\x00" * 100, '{"schema": 1, "units": [{"name": "web.service", "attempts": "3"}]}'],
)
def test_a_damaged_state_restarts_nothing_until_it_is_removed(bench: Bench, content: str) -> None:
    bench.state_dir.mkdir()
    bench.file.write_text(content)
    for _ in range(5):
        found = bench.look(a_down_unit(), after=60)
    assert bench.systemd.restarted == []
    assert found.report.repairs == (RepairSample(WEB, 0, None, circuit_open=True),)
    (failure,) = bench.repair.failures()
    assert failure.collector == "restart"
    assert "is damaged" in failure.message
    assert "remove it to begin anew" in failure.message
    bench.file.unlink()
    assert bench.until_restarted(a_down_unit()) == 10
    assert bench.repair.failures() == ()


def _state_is_a_file(bench: Bench) -> None:
    bench.state_dir.write_text("")


def _state_is_a_link(bench: Bench) -> None:
    bench.state_dir.mkdir()
    bench.file.symlink_to("/dev/null")


def _no_new_file(bench: Bench) -> None:
    bench.state_dir.mkdir()
    (bench.state_dir / "restart_backoff.json.new").mkdir()


def _no_allow_list(bench: Bench) -> None:
    bench.allow_list.unlink()


def _allow_list_of_everybody(bench: Bench) -> None:
    bench.allow_list.chmod(0o666)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_state_is_a_file, "cannot be used (File exists)"),
        (_state_is_a_link, "cannot be read (Too many levels of symbolic links)"),
        (_no_new_file, "cannot be written (Is a directory)"),
        (_no_allow_list, "cannot be opened (No such file or directory)"),
        (_allow_list_of_everybody, "must not be writable for group or others"),
    ],
)
def test_what_cannot_be_saved_or_trusted_is_not_done(
    bench: Bench, spoil: Callable[[Bench], None], told: str
) -> None:
    spoil(bench)
    for _ in range(5):
        bench.look(a_down_unit(), after=60)
    assert bench.systemd.restarted == []
    assert told in bench.repair.failures()[0].message


def test_a_clock_set_back_does_not_stop_repair(bench: Bench) -> None:
    bench.until_restarted(a_down_unit())
    bench.now -= timedelta(days=30)
    assert bench.until_restarted(a_down_unit()) == 20
    assert bench.until_restarted(a_down_unit()) == 40


def test_all_is_well_costs_no_file(bench: Bench) -> None:
    found = bench.look(a_unit(), a_unit("db.service"))
    assert found.report.repairs == ()
    assert not bench.state_dir.exists()


def test_two_units_are_restarted_one_after_the_other(bench: Bench) -> None:
    down = (a_down_unit(), a_down_unit("db.service"))
    bench.until_restarted(*down)
    assert sorted(bench.systemd.restarted) == ["db.service", WEB]


def allowed(place: Site) -> dict[str, str]:
    (place.directory / "allow").write_text(f"{WEB}\n")
    (place.directory / "allow").chmod(0o644)
    return {
        "VM_AGENT_UNITS": "web",
        "VM_AGENT_UNIT_SOURCE": "systemctl",
        "VM_AGENT_JOURNAL": "off",
        "VM_AGENT_STATE_DIR": str(place.directory / "state"),
        "VM_AGENT_ROOT_STATE_DIR": str(place.directory / "root"),
        "VM_AGENT_ALLOW_LIST": str(place.directory / "allow"),
    }


def backdate(place: Site) -> None:
    """Let the wait of the unit be over."""
    file = place.directory / "state" / "restart_backoff.json"
    found = json.loads(file.read_text())
    found["units"][0]["not_before"] = "2026-01-01T00:00:00+00:00"
    file.write_text(json.dumps(found))


def test_check_restart_goes_on_where_the_last_look_was(place: Site) -> None:
    """From cron: processes that know of each other by the file alone."""
    settings = allowed(place)
    place.systemd_says(shown("failed/failed", 0))
    (place.directory / "state").mkdir()
    state = {"name": WEB, "attempts": 1, "not_before": "2026-01-01T00:00:00+00:00"}
    file = place.directory / "state" / "restart_backoff.json"
    file.write_text(
        json.dumps(
            {
                "schema": 1,
                "units": [{**state, "last_attempt_at": None, "up_since": None, "circuit_open": False}],
            }
        )
    )
    done = place.command("check", "--restart", "--json", **settings)
    assert done.returncode == 2, done.stderr
    report = decode_report(done.stdout)
    assert report.repairs[0].attempts == 2
    assert [call for call in place.calls() if not call.startswith("show")] == [
        f"reset-failed -- {WEB}",
        f"restart -- {WEB}",
    ]
    done = place.command("check", "--restart", "--json", **settings)  # 40 s are not over
    assert decode_report(done.stdout).repairs[0].attempts == 2
    backdate(place)
    (place.directory / "after").write_text(shown(pid=43))
    done = place.command("check", "--restart", **settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("HEALTHY")
    assert json.loads(file.read_text())["units"][0]["attempts"] == 3


def test_check_without_the_flag_restarts_nothing(place: Site) -> None:
    settings = allowed(place)
    place.systemd_says(shown("failed/failed", 0))
    assert place.command("check", **settings, VM_AGENT_RESTART="on").returncode == 2
    assert not (place.directory / "state").exists()
    assert [call for call in place.calls() if not call.startswith("show")] == []


def test_remediate_waits_for_a_restart_of_the_agents_own(place: Site) -> None:
    settings = allowed(place)
    (place.directory / "state").mkdir()
    lock = DirectoryLock(str(place.directory / "state"))
    assert lock.take()
    process = subprocess.Popen(
        [sys.executable, "-m", "vm_agent", "remediate", "--unit", WEB, "--token", "t-1"],
        env=place.environment(settings),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.0)
    assert place.calls() == []
    lock.release()
    line = process.stdout.read()
    process.stdout.close()
    assert process.wait(10) == 0
    assert json.loads(line.removeprefix("VM_AGENT_RESULT "))["result"] == "restarted"


def test_remediate_gives_up_on_a_lock_that_is_never_free_and_keeps_its_token(place: Site) -> None:
    settings = allowed(place)
    (place.directory / "state").mkdir()
    lock = DirectoryLock(str(place.directory / "state"))
    assert lock.take()
    done = remediate_here(WEB, "t-1", BEGAN, load_remediation(settings), lock_wait_seconds=0.2)
    assert (done.result, "the agent itself is restarting a unit" in done.reason) == (Result.FAILED, True)
    assert not (place.directory / "root").exists()
    lock.release()
    assert place.command("remediate", "--unit", WEB, "--token", "t-1", **settings).returncode == 0


def test_the_running_agent_repairs_and_tells(place: Site) -> None:
    agent = place.run_agent(**allowed(place), VM_AGENT_RESTART="on")
    place.systemd_says(shown("failed/failed", 0))

    def reported() -> HealthReport:
        return decode_report(agent.ask("/health")[2].decode())

    deadline = time.monotonic() + 10
    while not reported().repairs:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    report = reported()
    assert (report.status, report.repairs[0].attempts) == (Status.CRITICAL, 0)
    backdate(place)
    (place.directory / "after").write_text(shown(pid=43))
    while reported().status is not Status.HEALTHY:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert reported().repairs[0].attempts == 1
    assert f"restart -- {WEB}" in place.calls()
    os.kill(agent.process.pid, 9)
    agent.process.wait()
    place.systemd_says(shown("failed/failed", 0))
    again = place.run_agent(**allowed(place), VM_AGENT_RESTART="on")

    def after() -> HealthReport:
        return decode_report(again.ask("/health")[2].decode())

    while not (after().repairs and after().repairs[0].not_before):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert after().repairs[0].attempts == 1
