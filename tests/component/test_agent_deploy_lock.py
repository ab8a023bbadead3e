"""The deploy lock on real files: who is believed, for how long; and the two commands that write it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.component.agent_site import ROOT, Playback, Site, shown, until
from vm_agent.collectors.base import Round
from vm_agent.collectors.deploy_lock import DeployLockCollector
from vm_agent.deploy_lock import read_lock
from vm_agent.lock_command import lock, unlock
from vm_health.errors import PermanentError
from vm_health.model import CollectorFailure, DeployLock, Sample, Status
from vm_health.rules import Thresholds, evaluate
from vm_health.wire import decode_report

pytest_plugins = ["tests.component.agent_fixtures"]
BEGAN = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "deploy.lock"


def write(file: Path, text: str | bytes, mtime: datetime = BEGAN, mode: int = 0o644) -> None:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    file.chmod(mode)
    os.utime(file, (mtime.timestamp(), mtime.timestamp()))


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def end_of(file: Path, now: datetime) -> float | None:
    """In how many seconds from BEGAN the lock ends."""
    found = read_lock(str(file), now)
    return None if found is None else (found.until - BEGAN).total_seconds()


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("", 900),
        ("600", 600),
        ("100000", 3600),
        ("2026-11-24T12:20:00Z", 1200),
        ("2027-11-24T12:20:00Z", 3600),
        ('{"until": "2026-11-24T12:20:00Z"}', 1200),
        ('{"until": "9999-12-31T23:59:59Z"}', 3600),
    ],
)
def test_it_ends_by_itself_an_hour_after_it_was_written_at_the_latest(
    file: Path, text: str, end: float
) -> None:
    write(file, text)
    for seconds in (0, end - 0.5):
        assert end_of(file, at(seconds)) == end
    assert end_of(file, at(end)) is None
    assert end_of(file, at(86_400)) is None


def test_a_lock_of_the_past_locks_nothing(file: Path) -> None:
    write(file, "2026-11-24T11:59:59Z")
    assert end_of(file, BEGAN) is None


def test_no_file_and_no_directory_are_no_lock(file: Path) -> None:
    assert read_lock(str(file), BEGAN) is None
    assert read_lock(str(file / "deeper" / "lock"), BEGAN) is None


def test_a_clock_that_was_set_back_gives_no_endless_lock(file: Path) -> None:
    write(file, "", at(30))
    assert end_of(file, BEGAN) == 930
    write(file, "", at(61))
    with pytest.raises(PermanentError, match="is dated ahead of this machine's clock"):
        read_lock(str(file), BEGAN)
    os.utime(file, (1e13, 1e13))
    with pytest.raises(PermanentError, match="is dated ahead"):
        read_lock(str(file), BEGAN)


def _link(file: Path) -> None:
    write(file.with_suffix(".real"), "600")
    file.symlink_to(file.with_suffix(".real"))


def _socket(file: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(file))


def _for_all(mode: int) -> Callable[[Path], None]:
    return lambda file: write(file, "600", mode=mode)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_link, "cannot be opened (it is a link)"),
        (lambda file: file.symlink_to("/nowhere"), "cannot be opened (it is a link)"),
        (lambda file: file.mkdir(), "is not a file"),
        (os.mkfifo, "is not a file"),
        (_socket, "cannot be opened (No such device or address)"),
        (_for_all(0o666), "has mode 0666, must not be writable for group or others"),
        (_for_all(0o664), "has mode 0664, must not be writable for group or others"),
        (lambda file: write(file, "6" * 4097), "must be at most 4096 bytes"),
        (lambda file: write(file, "soon"), "must hold nothing, seconds, an ISO 8601 time with an offset"),
    ],
)
def test_what_is_no_lock_is_a_finding_and_locks_nothing(
    file: Path, spoil: Callable[[Path], object], told: str
) -> None:
    spoil(file)
    sample = Round([DeployLockCollector(str(file))], timeout_seconds=5).take(BEGAN)
    assert sample.deploy_lock is None
    ((failure,), (finding,)) = sample.failures, evaluate(sample, Thresholds())
    assert (failure.collector, told in failure.message) == ("deploy_lock", True), failure.message
    assert (finding.status, finding.subject) == (Status.WARNING, "deploy_lock")


@needs_root
def test_only_roots_own_lock_counts_for_root(file: Path) -> None:
    write(file, "600")
    os.chown(file, NOBODY, NOBODY)
    with pytest.raises(PermanentError, match=f"belongs to user {NOBODY}, must be root's"):
        read_lock(str(file), BEGAN)


_READ_AS_NOBODY = """
import os, sys
from datetime import UTC, datetime
from vm_agent.deploy_lock import read_lock
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for path in sys.argv[1:]:
    try:
        print(read_lock(path, datetime(2026, 11, 24, 12, tzinfo=UTC)) is not None)
    except Exception as error:
        print(error)
"""


@needs_root
def test_an_agent_without_root_believes_root_and_itself_alone(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("root", "own", "other", "closed")]
    for file, owner in zip(files, (0, NOBODY, 12345, 0), strict=True):
        write(file, "600")
        os.chown(file, owner, owner)
    files[3].chmod(0o600)
    for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", _READ_AS_NOBODY, *map(str, files)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert lines[:2] == ["True", "True"]
    assert "belongs to user 12345, must be root's" in lines[2]
    assert "cannot be opened (Permission denied)" in lines[3]


def test_the_collector_sees_each_change_at_once(file: Path) -> None:
    looks = Round([DeployLockCollector(str(file))], timeout_seconds=5)
    assert looks.take(BEGAN) == Sample(BEGAN)
    write(file, "600")
    assert looks.take(BEGAN).deploy_lock == DeployLock(at(600))
    write(file, "soon")
    assert looks.take(BEGAN).failures == (
        CollectorFailure("deploy_lock", looks.take(BEGAN).failures[0].message),
    )
    file.unlink()
    assert looks.take(BEGAN) == Sample(BEGAN)


# ---- the commands


def test_what_is_written_is_read_back_and_a_second_lock_takes_its_place(file: Path) -> None:
    now = datetime.now(UTC)
    os.umask(0o077)
    try:
        made, former = lock(str(file), 20, "release 1.2\x1b", now)
    finally:
        os.umask(0o022)
    assert (made.holder, former) == ("release 1.2", None)
    assert timedelta(minutes=19, seconds=59) < made.until - now <= timedelta(minutes=20)
    assert read_lock(str(file), now) == made
    assert (file.stat().st_mode & 0o777, file.stat().st_uid) == (0o644, os.geteuid())
    again, former = lock(str(file), 60, "x" * 500, now)
    assert former == made
    assert read_lock(str(file), now) == again
    assert len(again.holder) == 200
    assert [one.name for one in file.parent.iterdir()] == ["deploy.lock"]
    assert (unlock(str(file)), unlock(str(file))) == (True, False)
    assert read_lock(str(file), now) is None


@needs_root
def test_root_writes_its_own_file_into_a_directory_of_the_agents_user(tmp_path: Path) -> None:
    """Whatever that user has put there: nothing is followed, and nothing of root's is touched."""
    directory, victim = tmp_path / "run", tmp_path / "victim"
    directory.mkdir()
    os.chown(directory, NOBODY, NOBODY)
    victim.write_text("untouched")
    for name in ("deploy.lock", ".deploy.lock.new"):
        (directory / name).symlink_to(victim)
    file = directory / "deploy.lock"
    lock(str(file), 20, "root", datetime.now(UTC))
    assert (file.is_symlink(), file.stat().st_uid, victim.read_text()) == (False, 0, "untouched")
    assert read_lock(str(file), datetime.now(UTC)) is not None
    unlock(str(file))
    file.symlink_to(victim)
    assert unlock(str(file))
    assert victim.read_text() == "untouched"


def test_what_stands_in_the_way_is_told(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    (tmp_path / "file").write_text("")
    (tmp_path / "lock").mkdir()
    for path, told in (
        (tmp_path / "file" / "lock", r"cannot be written \(Not a directory\)"),
        (tmp_path / "none" / "deeper" / "lock", r"cannot be written \(No such file or directory\)"),
        (tmp_path / "lock", r"cannot be written \(Is a directory\)"),
    ):
        with pytest.raises(PermanentError, match=told):
            lock(str(path), 20, "", now)
    with pytest.raises(PermanentError, match=r"cannot be removed \(Is a directory\)"):
        unlock(str(tmp_path / "lock"))
    assert [one.name for one in (tmp_path / "lock").iterdir()] == []
    for command in (lambda: lock("", 20, "", now), lambda: unlock("")):
        with pytest.raises(PermanentError, match="VM_AGENT_DEPLOY_LOCK_FILE is off"):
            command()


def test_the_directory_is_made_for_others_to_look_into(tmp_path: Path) -> None:
    os.umask(0o077)
    try:
        lock(str(tmp_path / "run" / "deploy.lock"), 20, "", datetime.now(UTC))
    finally:
        os.umask(0o022)
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o755


def test_lock_status_unlock_as_people_call_them(place: Site) -> None:
    """A lock is seen by the running agent, told by `status`, and gone after `unlock`."""
    place.systemd_says(shown("failed/failed", 0))
    agent = place.run_agent(VM_AGENT_UNIT_SOURCE="systemctl")
    given = {"VM_AGENT_LISTEN_ADDRESS": "127.0.0.1", "VM_AGENT_LISTEN_PORT": str(agent.port)}
    done = place.command("lock", "--minutes", "20", "--holder", "release 1.2")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("locked until ")
    assert "(release 1.2): nothing is restarted, no alert is sent; `vm-agent unlock` ends it" in done.stdout
    until(lambda: decode_report(agent.ask("/health")[2].decode()).sample.deploy_lock)
    status = place.command("status", **given)
    assert status.returncode == 2  # the status stays true
    assert "(release 1.2): nothing is restarted, no alert is sent" in status.stdout
    numbers = json.loads(agent.ask("/metrics")[2])["metrics"]
    assert {"name": "health.deploy_lock", "value": 1.0} in numbers
    again = place.command("lock", SUDO_USER="ada")
    assert "takes the place of the lock until " in again.stdout
    assert "(ada): nothing is restarted" in again.stdout
    assert place.command("unlock").stdout == "unlocked\n"
    assert place.command("unlock").stdout == "there is no deploy lock\n"
    until(lambda: decode_report(agent.ask("/health")[2].decode()).sample.deploy_lock is None)


def test_a_lock_that_cannot_be_written_is_an_exit_code_and_a_sentence(place: Site) -> None:
    done = place.command("lock", VM_AGENT_DEPLOY_LOCK_FILE="/proc/deploy.lock")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("vm-agent: deploy lock /proc/deploy.lock cannot be written (")
    done = place.command("lock", VM_AGENT_DEPLOY_LOCK_FILE="off")
    assert (done.returncode, "the agent heeds no deploy lock" in done.stderr) == (3, True)


def settings(place: Site) -> dict[str, str]:
    (place.directory / "allow").write_text("web.service\n")
    (place.directory / "allow").chmod(0o644)
    return {
        "VM_AGENT_UNITS": "web",
        "VM_AGENT_UNIT_SOURCE": "systemctl",
        "VM_AGENT_ALLOW_LIST": str(place.directory / "allow"),
        "VM_AGENT_ROOT_STATE_DIR": str(place.directory / "root"),
    }


def test_check_restart_and_alert_hold_back_and_remediate_does_not(place: Site, server: Playback) -> None:
    """Who calls `remediate` has decided: the watchdog heeds the lock itself, and a person may force it."""
    given = {**settings(place), "VM_AGENT_ALERT_WEBHOOK_URL": f"{server.url}/hook"}
    place.systemd_says(shown("failed/failed", 0))
    assert place.command("lock", "--holder", "release 1.2", **given).returncode == 0
    done = place.command("check", "--restart", "--alert", **given)
    assert done.returncode == 2
    assert "not restarted: a deployment holds this VM until " in done.stdout
    assert [call for call in place.calls() if not call.startswith("show")] == []
    assert server.requests == []
    done = place.command("remediate", "--unit", "web.service", "--token", "t-1", **given)
    assert "restart -- web.service" in place.calls()
    assert place.command("unlock", **given).returncode == 0
    assert place.command("check", "--alert", **given).returncode == 2
    assert [json.loads(request.body)["kind"] for request in server.requests] == ["fired"]


def test_check_takes_a_unit_that_is_starting_for_no_trouble(place: Site) -> None:
    given = settings(place)
    moment = f"{datetime.now(UTC) - timedelta(seconds=5):%a %Y-%m-%d %H:%M:%S} UTC"
    place.systemd_says(shown("activating/start", 41) + f"InactiveExitTimestamp={moment}\n")
    done = place.command("check", **given)
    assert (done.returncode, "web.service is starting (for " in done.stdout) == (0, True), done.stdout
    done = place.command("check", **given, VM_AGENT_STARTUP_GRACE_SECONDS="0")
    assert (done.returncode, "web.service is down (activating/start)" in done.stdout) == (2, True)
