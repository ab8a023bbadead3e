"""Collectors on real files, mounts, programs and checkouts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.component.vm_fixtures import lives
from tests.unit.agent_builders import a_unit
from vm_agent import commands
from vm_agent.collectors.checkouts import CheckoutsCollector, look
from vm_agent.collectors.disks import DisksCollector
from vm_agent.collectors.heartbeats import HeartbeatsCollector
from vm_agent.collectors.log_files import MAX_READ_BYTES, LogFilesCollector
from vm_agent.collectors.memory import MemoryCollector
from vm_agent.collectors.system import SystemCollector
from vm_agent.restart_history import RestartHistory
from vm_health.errors import TransientError
from vm_health.model import CollectorFailure, HeartbeatSample

PATTERN = re.compile(r"\b(ERROR|Traceback)\b")
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")


def now() -> datetime:
    return datetime.now(UTC)


# ---- log files


class Log:
    """A log file and its collector."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.at_seconds = 0.0
        self._collector = LogFilesCollector(
            (str(path),), PATTERN, window_seconds=900, interval_seconds=60, monotonic=lambda: self.at_seconds
        )

    def append(self, text: str | bytes) -> None:
        with self.path.open("ab") as file:
            file.write(text if isinstance(text, bytes) else text.encode())

    def look(self) -> tuple[int, str]:
        found = self._collector.collect(now())
        assert found["failures"] == ()
        (sample,) = found["logs"]
        assert sample.source == str(self.path)
        return sample.errors, sample.last


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """A log with an old error in it, looked at once."""
    found = Log(tmp_path / "app.log")
    found.append("ERROR old\n")
    assert found.look() == (0, "")
    return found


def test_only_what_was_appended_counts_and_each_line_once(log: Log) -> None:
    log.append("INFO fine\nERROR one\nXERRORX\n")
    assert log.look() == (1, "ERROR one")
    assert log.look() == (1, "ERROR one")
    log.append("ERR")
    log.append("OR half")
    assert log.look() == (1, "ERROR one")
    log.append(" done token=abc\n")
    assert log.look() == (2, "ERROR half done token=***")
    log.at_seconds = 901
    assert log.look() == (0, "")


def test_rotation_and_truncation_begin_anew(log: Log) -> None:
    log.append("ERROR one\n")
    assert log.look()[0] == 1
    log.path.rename(log.path.with_suffix(".1"))
    assert log.look()[0] == 1  # between the two files there is none
    log.append("ERROR two\n")
    assert log.look() == (2, "ERROR two")
    os.truncate(log.path, 0)
    log.append("ERROR 3\n")
    assert log.look() == (3, "ERROR 3")


def test_a_file_that_comes_later_is_read_from_its_beginning(tmp_path: Path) -> None:
    log = Log(tmp_path / "later.log")
    assert log.look() == (0, "")
    log.append("ERROR first\n")
    assert log.look() == (1, "ERROR first")


def test_huge_logs_and_lines_are_bounded(log: Log) -> None:
    log.append(b"ERROR before\n" + b"x" * (2 * MAX_READ_BYTES) + b" ERROR\nERROR after\n")
    assert log.look() == (1, "ERROR after")
    log.append(b"\xff\xfe ERROR bytes\n" + b"y" * 100_000 + b" ERROR far behind\n")
    assert log.look() == (2, "�� ERROR bytes")
    for _ in range(20):
        log.append(b"z" * 100_000)
        assert log.look()[0] == 2
    log.append(b"\nERROR again\n")
    assert log.look() == (3, "ERROR again")


@needs_root
def test_a_log_that_cannot_be_read_is_told_and_hides_no_other(tmp_path: Path) -> None:
    closed, pipe, fine = tmp_path / "closed.log", tmp_path / "pipe", tmp_path / "fine.log"
    closed.touch(0o600)
    os.mkfifo(pipe, 0o644)
    fine.touch(0o644)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(parent.stat().st_mode | 0o055)
    files = tuple(str(path) for path in (closed, pipe, fine))
    collector = LogFilesCollector(files, PATTERN, window_seconds=900, interval_seconds=60)
    os.seteuid(NOBODY)  # root may read everything
    try:
        found = collector.collect(now())
    finally:
        os.seteuid(0)
    assert [failure.message for failure in found["failures"]] == [
        f"log file {closed} cannot be read: Permission denied",
        f"log file {pipe} cannot be read: it is not a file",
    ]
    assert [log.source for log in found["logs"]] == [str(fine)]


# ---- checkouts


def git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"},
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clone of a repository with one commit; its name holds what a careless quoting would trip over."""
    origin = tmp_path / "origin"
    origin.mkdir()
    git(origin, "init", "-q", "-b", "main")
    (origin / "app.py").write_text("1\n")
    git(origin, "add", "app.py")
    git(origin, "commit", "-q", "-m", "one")
    clone = tmp_path / 'de ploy"ed'
    git(tmp_path, "clone", "-q", str(origin), str(clone))
    return clone


def test_a_checkout_is_judged_against_what_was_last_fetched(checkout: Path, tmp_path: Path) -> None:
    found = look(str(checkout))
    assert (found.branch, found.is_dirty, found.behind, found.problem) == ("main", False, 0, "")
    assert found.commit == git(checkout, "rev-parse", "HEAD")
    git(tmp_path / "origin", "commit", "-q", "--allow-empty", "-m", "two")
    assert look(str(checkout)).behind == 0  # nothing is fetched by looking
    git(checkout, "fetch", "-q")
    (checkout / "app.py").write_text("2\n")
    (checkout / "unknown").write_text("")
    found = look(str(checkout))
    assert (found.behind, found.is_dirty) == (1, True)
    git(checkout, "checkout", "-q", "-f", "origin/main")
    found = look(str(checkout))
    assert (found.branch, found.is_dirty, found.behind, found.problem) == ("", False, 0, "")


def test_what_is_no_checkout_says_why_and_hides_no_other(checkout: Path, tmp_path: Path) -> None:
    collector = CheckoutsCollector((str(tmp_path / "gone"), str(tmp_path), str(checkout)), 300)
    gone, plain, fine = collector.collect(now())["checkouts"]
    assert gone.problem == "cannot be judged: No such file or directory"
    assert "not a git repository" in plain.problem
    assert fine.problem == ""


def test_looking_runs_no_hook_and_no_monitor_and_writes_nothing(checkout: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch '{ran}'\n")
    program.chmod(0o755)
    git(checkout, "config", "core.fsmonitor", str(program))
    hook = checkout / ".git/hooks/post-index-change"
    hook.write_text(program.read_text())
    hook.chmod(0o755)
    (checkout / "app.py").touch()
    before = (checkout / ".git/index").read_bytes()
    assert look(str(checkout)).problem == ""
    assert not ran.exists()
    assert (checkout / ".git/index").read_bytes() == before


@needs_root
def test_root_looks_as_the_owner_of_the_checkout(checkout: Path, tmp_path: Path) -> None:
    """Git's own configuration can name programs; none of another user's may run as root."""
    who = tmp_path / "who"
    who.mkdir()
    who.chmod(0o777)
    git(checkout, "config", "filter.x.clean", f"sh -c 'id -u > {who}/id; cat'")
    (checkout / ".git/info/attributes").write_text("app.py filter=x\n")
    (checkout / "app.py").write_text("changed\n")
    for path in (checkout, *checkout.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(parent.stat().st_mode | 0o055)
    found = look(str(checkout))
    assert (found.problem, found.is_dirty) == ("", True)
    assert not (who / "id").exists() or (who / "id").read_text() == f"{NOBODY}\n"


# ---- programs


def run(script: str, **changes: Any) -> commands.Output:
    limits = {"timeout_seconds": 10.0, "max_bytes": 1000, **changes}
    return commands.run(["sh", "-c", script], {"PATH": os.environ["PATH"]}, **limits)


def test_a_program_is_bounded_in_size_and_time_with_its_children(tmp_path: Path) -> None:
    assert run("echo out; echo err >&2; exit 3") == commands.Output(3, b"out\nerr\n")
    cut = run("yes")
    assert (len(cut.text), cut.was_cut, cut.exit_code) == (1000, True, -9)
    pid_file = tmp_path / "pid"
    with pytest.raises(TransientError, match=r"sh did not end within 0.3 s"):
        run(f"sleep 60 & echo $! > {pid_file}; wait", timeout_seconds=0.3)
    child, deadline = int(pid_file.read_text()), time.monotonic() + 5
    while lives(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(TransientError, match="cannot be started: No such file"):
        commands.run(["/nowhere/program"], {}, timeout_seconds=1, max_bytes=1)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        run("true")
    assert len(os.listdir("/proc/self/fd")) == before


# ---- disks, memory, the machine


def test_disks_are_as_df_sees_them() -> None:
    (root,) = DisksCollector(("/",)).collect(now())["disks"]
    shown = subprocess.run(
        ["df", "-P", "-B1", "/"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[1]
    used, available = (int(field) for field in shown.split()[2:4])
    assert root.used_percent == pytest.approx(100 * used / (used + available), abs=0.2)
    assert round(root.used_percent, 2) == root.used_percent
    assert root.inodes_used_percent is None or 0 < root.inodes_used_percent < 100
    found = DisksCollector().collect(now())
    assert "/" in [disk.mount for disk in found["disks"]]


def test_what_is_not_mounted_is_a_failure_and_hides_no_other(tmp_path: Path) -> None:
    found = DisksCollector((str(tmp_path), "/nowhere", "/")).collect(now())
    assert [disk.mount for disk in found["disks"]] == ["/"]
    assert found["failures"] == (
        CollectorFailure("disks", f"disk {tmp_path} cannot be read: it is no mount point"),
        CollectorFailure("disks", "disk /nowhere cannot be read: No such file or directory"),
    )


def test_more_mounts_than_a_report_holds_are_named(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text("".join(f"1 1 8:{n} / /mnt/gone{n} rw - ext4 /dev/x rw\n" for n in range(40)))
    found = DisksCollector(mountinfo=str(table)).collect(now())
    assert len(found["failures"]) == 33
    assert found["failures"][-1].message == "8 more mounts are not looked at; choose by DISK_MOUNTS"


def test_memory_and_swap(tmp_path: Path) -> None:
    swaps = tmp_path / "swaps"
    swaps.write_text(
        "Filename\t\tType\t\tSize\t\tUsed\t\tPriority\n"
        "/dev/sda2  partition\t1000\t250\t-2\n/swap\\040file  file\t1000\t\t0\t-3\n"
    )
    memory = MemoryCollector(str(swaps)).collect(now())["memory"]
    assert memory is not None
    assert (memory.swap_total_bytes, memory.swap_used_percent) == (2000 * 1024, 12.5)
    assert memory.used_percent == pytest.approx(
        100 * (1 - memory.available_bytes / memory.total_bytes), abs=0.01
    )
    none = MemoryCollector("/nowhere").collect(now())["memory"]
    assert none is not None
    assert (none.swap_total_bytes, none.swap_used_percent) == (0, 0.0)


def test_the_machine_as_a_whole(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    (proc / "pressure").mkdir(parents=True)
    (proc / "uptime").write_text("1234.56 100.0\n")
    (proc / "pressure/io").write_text(
        "some avg10=1.00 avg60=2.50 avg300=3.00 total=1\nfull avg10=0.00 avg60=0.50 avg300=0.00 total=1\n"
    )
    collector = SystemCollector(lambda: True, str(proc))
    first, second = (collector.collect(now())["system"] for _ in range(2))
    assert first is not None
    assert second is not None
    assert (first.cpu_percent, first.uptime_seconds, first.clock_synchronized) == (None, 1234.56, True)
    assert first.pressure == {"io.some": 2.5, "io.full": 0.5}
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    busy = collector.collect(now())["system"]
    assert busy is not None
    assert busy.cpu_percent is not None
    assert 0 < busy.cpu_percent <= 100


# ---- heartbeats


def test_heartbeats_of_several_units(tmp_path: Path) -> None:
    fresh, stale, ahead = (tmp_path / name for name in ("fresh", "stale", "ahead"))
    at = now()
    for path, age in ((fresh, 0.0), (stale, 400.0), (ahead, -3600.0)):
        path.touch()
        os.utime(path, (at.timestamp() - age, at.timestamp() - age))
    files = (("a.service", fresh), ("a.service", stale), ("", ahead), ("b.service", tmp_path / "none"))
    found = HeartbeatsCollector(tuple((unit, str(path)) for unit, path in files)).collect(at)["heartbeats"]
    assert found == (
        HeartbeatSample(str(fresh), 0.0, "", "a.service"),
        HeartbeatSample(str(stale), 400.0, "", "a.service"),
        HeartbeatSample(str(ahead), 0.0),
        HeartbeatSample(str(tmp_path / "none"), None, "missing", "b.service"),
    )
    odd = HeartbeatsCollector((("", str(tmp_path)), ("", f"{fresh}/x"))).collect(at)["heartbeats"]
    assert [beat.problem for beat in odd] == ["not a file", "unreadable (Not a directory)"]


# ---- the restart history on the disk


class Boots:
    """A machine whose history is kept in a file, over several agents and boots."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.boot = "first"
        self.up_seconds = 10_000.0
        self.now = now()

    def agent(self, *, writes: bool = True) -> Callable[[int], int]:
        """A fresh agent: gives the recent restarts for a count."""
        history = RestartHistory(str(self.path), self.boot, writes=writes, monotonic=lambda: self.up_seconds)
        self.history = history
        return lambda restarts: history.observe((a_unit(restarts=restarts),), self.now)["web.service"]

    def pass_by(self, seconds: float) -> None:
        self.up_seconds += seconds
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def boots(tmp_path: Path) -> Boots:
    return Boots(tmp_path / "state/restarts.json")


def test_restarts_are_remembered_over_agents_and_boots(boots: Boots) -> None:
    look = boots.agent()
    assert (look(4), look(7)) == (0, 3)
    boots.pass_by(10)
    look = boots.agent()
    assert (look(7), look(9)) == (3, 5)
    boots.boot, boots.up_seconds = "second", 20.0
    boots.pass_by(60)
    look = boots.agent()
    assert look(1) == 6  # NRestarts began anew with the boot
    boots.pass_by(899 - 70)
    assert look(1) == 6
    boots.pass_by(2)
    assert look(1) == 3
    boots.pass_by(900)
    assert look(1) == 0


def test_the_file_is_written_when_something_changed_and_by_the_running_agent_alone(boots: Boots) -> None:
    look = boots.agent()
    look(1)
    written = boots.path.stat().st_ino
    assert boots.path.stat().st_mode & 0o777 == 0o600
    look(1)
    assert boots.path.stat().st_ino == written
    look(2)
    text = boots.path.read_text()
    assert boots.agent(writes=False)(5) == 4
    assert boots.path.read_text() == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"boot_id":"first","units":[]}',
        '{"boot_id":"first","units":{"web.service":{"mark":-1,"gains":[]}}}',
        '{"boot_id":"first","units":{"web.service":{"mark":1,"gains":[[1]]}}}',
        '{"boot_id":"first","units":{"web.service":{"mark":1,"gains":[["x","y","z"]]}}}',
        "[" * 5000,
        "x" * 300_000,
    ],
)
def test_a_damaged_file_is_begun_anew(boots: Boots, text: str) -> None:
    boots.path.parent.mkdir()
    boots.path.write_text(text)
    look = boots.agent()
    assert (look(3), look(4)) == (0, 1)
    assert json.loads(boots.path.read_text())["units"]["web.service"]["mark"] == 4
    assert boots.history.problem == ""


def test_a_place_that_cannot_be_written_is_a_problem_and_no_crash(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    boots = Boots(tmp_path / "file/restarts.json")
    look = boots.agent()
    assert (look(1), look(3)) == (0, 2)
    assert "cannot be kept: File exists" in boots.history.problem
    (tmp_path / "file").unlink()
    assert look(3) == 2
    assert boots.history.problem == ""
