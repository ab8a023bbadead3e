"""The spool on a real disk: order, bounds, restarts, crashes, damage, and disks that take nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.component.agent_site import ROOT
from tests.conftest import require
from vm_agent.files import DirectoryLock, FileLock, read_bounded, write_atomically
from vm_agent.segments import Item
from vm_agent.spool import Spool

ROOM = 1_000_000


def items(first: int, last: int, length: int = 100) -> list[Item]:
    return [Item(float(number), f"{number} ".ljust(length, "x")) for number in range(first, last + 1)]


def numbers(found: list[Item]) -> list[int]:
    return [int(item.text.split()[0]) for item in found]


def drain(spool: Spool) -> list[int]:
    """Take everything out, as after a good send."""
    found: list[int] = []
    while batch := spool.front():
        found += numbers(batch)
        spool.settle()
    return found


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "spool"


def a_spool(directory: Path, max_bytes: int = ROOM, max_memory_bytes: int = ROOM) -> Spool:
    spool = Spool(str(directory), max_bytes, max_memory_bytes)
    spool.open()
    return spool


def restarted(spool: Spool, directory: Path, **bounds: int) -> Spool:
    """What a new process finds; the old one's lock is gone with it."""
    spool.close()
    return a_spool(directory, **bounds)


def test_order_and_times_survive_a_restart_and_nothing_is_left_behind(directory: Path) -> None:
    spool = a_spool(directory)
    for number in range(1, 3001):
        spool.append(items(number, number))
    assert len(list(directory.iterdir())) > 2  # several segments
    again = restarted(spool, directory)
    assert again.waiting == 3000
    assert again.size == spool.size
    assert again.front()[:2] == items(1, 2)
    again.append(items(3001, 3001))
    assert drain(again) == list(range(1, 3002))
    assert list(directory.iterdir()) == []
    assert (again.waiting, again.size, again.problem, again.dropped.total()) == (0, 0, "", 0)


def test_new_items_never_join_a_batch_that_is_being_sent(directory: Path) -> None:
    spool = a_spool(directory)
    spool.append(items(1, 2))
    assert numbers(spool.front()) == [1, 2]
    spool.append(items(3, 3))
    assert numbers(spool.front()) == [1, 2]
    spool.settle()
    assert drain(spool) == [3]


def test_what_is_kept_of_a_batch_stays_in_front_and_survives_a_restart(directory: Path) -> None:
    spool = a_spool(directory)
    spool.append(items(1, 4))
    batch = spool.front()
    spool.append(items(5, 5))
    spool.settle([batch[1], batch[3]])
    assert spool.waiting == 3
    assert drain(restarted(spool, directory)) == [2, 4, 5]


def test_without_room_the_oldest_go_and_every_one_is_counted(directory: Path) -> None:
    spool = a_spool(directory, max_bytes=100_000)
    for number in range(1, 2001):
        spool.append(items(number, number))
        assert spool.size <= 100_000
    on_disk = sum(file.stat().st_size for file in directory.iterdir())
    assert 85_000 < on_disk == spool.size
    left = drain(spool)
    assert left == list(range(2001 - len(left), 2001))
    assert spool.dropped == {"no_room": 2000 - len(left)}


def test_less_room_after_a_restart_drops_the_oldest(directory: Path) -> None:
    spool = a_spool(directory)
    for number in range(1, 2001):
        spool.append(items(number, number))
    again = restarted(spool, directory, max_bytes=160_000)
    left = drain(again)
    assert left
    assert left == list(range(2001 - len(left), 2001))
    assert again.dropped == {"no_room": 2000 - len(left)}


def test_a_torn_tail_and_a_damaged_line_cost_themselves_alone(directory: Path) -> None:
    spool = a_spool(directory)
    spool.append(items(1, 4))
    (file,) = directory.iterdir()
    content = file.read_bytes()
    file.write_bytes(content.replace(b"2 xx", b"2 yx")[:-30])
    again = restarted(spool, directory)
    assert again.waiting == 4
    again.append(items(5, 5))
    assert drain(again) == [1, 3, 5]
    assert again.dropped == {"damaged": 2}


@pytest.mark.parametrize("content", [b"", b"\n\n\n", os.urandom(5000), b"\x00" * 5000, b"deadbeef 1"])
def test_a_file_of_rubbish_is_passed_over(directory: Path, content: bytes) -> None:
    directory.mkdir(parents=True)
    (directory / "000000000007.spool").write_bytes(content)
    (directory / "000000000008.spool.new").write_bytes(b"half of it")
    (directory / "notes.txt").write_text("somebody's")
    spool = a_spool(directory)
    spool.append(items(1, 1))
    assert drain(spool) == [1]
    assert [file.name for file in directory.iterdir()] == ["notes.txt"]


def test_a_segment_that_vanished_is_counted(directory: Path) -> None:
    spool = a_spool(directory)
    spool.append(items(1, 3))
    (file,) = directory.iterdir()
    file.unlink()
    spool.append(items(4, 4))  # into a file of its own: the old one is not made anew
    assert drain(spool) == [4]
    assert spool.dropped["damaged"] == 3


def test_a_directory_that_cannot_be_made_means_memory_and_recovers(tmp_path: Path) -> None:
    """A file stands where the directory should: as unwritable for root as for anybody."""
    blocker = tmp_path / "state"
    blocker.write_text("")
    directory = blocker / "spool"
    spool = a_spool(directory)
    spool.append(items(1, 2))
    assert "telemetry waits in memory" in spool.problem
    assert spool.waiting == 2
    blocker.unlink()
    spool.append(items(3, 3))
    assert spool.problem == ""
    assert drain(restarted(spool, directory)) == [1, 2, 3]


def test_memory_holds_less_and_drops_its_oldest(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    spool = a_spool(tmp_path / "state" / "spool", max_bytes=400_000, max_memory_bytes=50_000)
    for number in range(1, 1001):
        spool.append(items(number, number))
        assert spool.size <= 50_000
    left = drain(spool)
    assert left == list(range(1001 - len(left), 1001))
    assert spool.dropped == {"no_room": 1000 - len(left)}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    require(os.geteuid() == 0, "root, to mount a small file system")
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, check=False)
    require(mounted.returncode == 0, f"mount: {mounted.stderr.decode()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_loses_nothing_and_leaves_no_half_lines(small_disk: Path) -> None:
    """What was written stays, the rest waits in memory, and when there is room again all is in order."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 200_000)
    directory = small_disk / "spool"
    spool = a_spool(directory)
    for number in range(1, 1001):
        spool.append(items(number, number), durable=True)
    assert "No space left on device" in spool.problem
    assert spool.waiting == 1000
    written = b"".join(file.read_bytes() for file in sorted(directory.iterdir()))
    assert written.endswith(b"\n")
    ballast.unlink()
    spool.append(items(1001, 1001))
    assert spool.problem == ""
    again = restarted(spool, directory)
    assert drain(again) == list(range(1, 1002))
    again.close()


def test_a_disk_that_became_read_only_does_not_stop_sending(small_disk: Path) -> None:
    directory = small_disk / "spool"
    spool = a_spool(directory)
    spool.append(items(1, 2))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    spool.append(items(3, 3))
    assert "Read-only file system" in spool.problem
    batch = spool.front()
    spool.settle(batch[1:])
    assert numbers(spool.front()) == [2]
    assert drain(spool) == [2, 3]
    assert spool.waiting == 0
    spool.close()


_WRITER = """
import sys
from vm_agent.segments import Item
from vm_agent.spool import Spool
spool = Spool(sys.argv[1], 10_000_000)
spool.open()
number = 0
while True:
    number += 1
    spool.append([Item(float(number), f"{number} ".ljust(100, "x"))])
    print(number, flush=True)
"""


def test_kill_9_loses_nothing_that_was_appended(directory: Path) -> None:
    """Whatever the writer was doing: every item that it told of is there, in order, and whole."""
    for _ in range(3):
        command = [sys.executable, "-c", _WRITER, str(directory)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(300)]
        process.send_signal(signal.SIGKILL)
        told += [int(line) for line in process.stdout.read().splitlines()]
        process.wait()
        process.stdout.close()
        spool = a_spool(directory)
        found = drain(spool)
        assert found[: len(told)] == told
        assert len(found) - len(told) <= 1  # written, and killed before it could tell
        spool.close()


def test_two_agents_never_share_a_spool(directory: Path) -> None:
    first, second = a_spool(directory), a_spool(directory)
    first.append(items(1, 1))
    second.append(items(2, 2))
    assert "another agent uses it" in second.problem
    assert (numbers(first.front()), numbers(second.front())) == ([1], [2])
    assert len(list(directory.iterdir())) == 1


def test_only_the_agents_user_can_read_it(directory: Path) -> None:
    spool = a_spool(directory)
    spool.append(items(1, 1))
    (file,) = directory.iterdir()
    assert file.stat().st_mode & 0o077 == 0
    assert directory.stat().st_mode & 0o077 == 0


def test_small_files_follow_no_link_and_are_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("others'")
    (tmp_path / "state.new").symlink_to(target)
    write_atomically(str(tmp_path / "state"), b"ours")
    assert (target.read_text(), (tmp_path / "state").read_bytes()) == ("others'", b"ours")
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(OSError, match="symbolic"):
        read_bounded(str(tmp_path / "link"), 100)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is not a file"):
        read_bounded(str(tmp_path / "pipe"), 100)  # and does not wait for a writer
    with pytest.raises(ValueError, match="is larger than 2 bytes"):
        read_bounded(str(tmp_path / "state"), 2)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_root_writes_belongs_to_the_directorys_owner(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12346)
    write_atomically(str(tmp_path / "state"), b"x")
    lock = FileLock(str(tmp_path / "lock"))
    assert lock.take()
    lock.release()
    for name in ("state", "lock"):
        found = (tmp_path / name).stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (12345, 12346, 0o600)


def test_a_lock_has_one_holder_and_no_directory_is_nobodys(tmp_path: Path) -> None:
    one, other = DirectoryLock(str(tmp_path)), DirectoryLock(str(tmp_path))
    assert one.take()
    assert not other.take()
    one.release()
    assert other.take()
    with pytest.raises(FileNotFoundError):
        DirectoryLock(str(tmp_path / "none")).take()
