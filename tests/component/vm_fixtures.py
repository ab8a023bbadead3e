"""What the tests of both kinds of simulated VM share: making VMs, waiting, and the one contract suite."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache
from pathlib import Path

import pytest

from devcloud.vms.base import VmSpec
from devcloud.vms.bridge import BridgeNetwork
from devcloud.vms.cgroups import hierarchies
from devcloud.vms.factory import Kind, create_vm, worker_unit
from devcloud.vms.helpers import REPOSITORY
from devcloud.vms.machine import Machine
from devcloud.vms.systemd import supported
from devcloud.vms.units import UnitFile

APP = "app.service"
LOOP = "loop.service"
HEARTBEAT = "/var/lib/shop/heartbeat"
CRASH_FILE = "/var/lib/shop/crash"
HOSTILE_VALUES = {
    "QUOTES": """a 'b' "c" `id` \\ \\n""",
    "COMMAND": "$(touch /tmp/owned); ${HOME} && id | cat > /dev/null",
    "LINES": "one\ntwo\n\n",
    "UNICODE": "grüße 你好",
    "OPTION": "--help",
    "EMPTY": "",
}

_reason_against_systemd = cache(supported)


def need(kind: Kind) -> None:
    """Skip where the machine can't run this kind of VM; fail there in CI."""
    reason = _reason_against_systemd() if kind == "systemd" else None
    if reason and os.environ.get("CI") == "true":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


class Vms:
    """Makes VMs of one kind and takes them down at the end."""

    def __init__(self, kind: Kind, directory: Path) -> None:
        self._kind: Kind = kind
        self._directory = directory
        self._bridge = BridgeNetwork()
        self._made: list[Machine] = []
        self.bridge = ""

    async def start(self, *units: UnitFile, name: str = "web-1") -> Machine:
        """A running VM with these units."""
        need(self._kind)
        network = await self._bridge.start() if self._kind == "systemd" else None
        self.bridge = network.bridge if network else ""
        address = network.address(1) if network else "127.0.0.11"
        vm = create_vm(
            self._kind, VmSpec(name, address), self._directory / name, network, None, units or [app(), loop()]
        )
        self._made.append(vm)
        await vm.start()
        return vm

    async def close(self) -> None:
        for vm in self._made:
            await vm.stop()
        await self._bridge.stop()


@pytest.fixture
async def vms(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Vms]:
    """The test class says which kind."""
    made = Vms(request.cls.kind, tmp_path)
    try:
        yield made
    finally:
        await made.close()


def app() -> UnitFile:
    """A worker that stays down when it is killed."""
    return worker_unit(APP, HEARTBEAT)


def loop() -> UnitFile:
    """A worker that comes back, until it does so too often."""
    return worker_unit(LOOP, HEARTBEAT + "2", CRASH_FILE, restart="always", restart_seconds=0.05)


async def eventually(look: Callable[[], Awaitable[bool]], what: str, timeout_seconds: float = 30) -> None:
    """Look until it holds; for states that nobody announces."""
    deadline = time.monotonic() + timeout_seconds
    while not await look():
        assert time.monotonic() < deadline, f"not within {timeout_seconds} s: {what}"
        await asyncio.sleep(0.02)


async def gone(pid: int, timeout_seconds: float = 20) -> None:
    """Wait until the process ``pid`` has ended; the kernel tells."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), timeout_seconds)
    finally:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def traces(directory: Path) -> list[str]:
    """What this machine shows of VMs below ``directory``: processes and mounts."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes() + (entry.parent / "environ").read_bytes()
        except OSError:
            continue
        if str(directory).encode() in words and int(entry.parent.name) != os.getpid():
            found.append(f"process {entry.parent.name}: {words!r}")
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if str(directory) in line]
    return found


def interfaces_and_groups(bridge: str) -> set[str]:
    """The bridge, its cables and its boxes' control groups, as far as they are there; none for no bridge."""
    if not bridge:
        return set()
    found = {path.name for path in Path("/sys/class/net").glob(f"{bridge}*")}
    for hierarchy in hierarchies():
        found |= {str(path) for path in hierarchy.parent.glob(f"{bridge}p*")}
    return found


class VmContract:
    """What holds for a simulated VM of any kind."""

    kind: Kind

    async def test_runs_its_worker(self, vms: Vms) -> None:
        """A started VM has its unit's process, which writes its heartbeat."""
        vm = await vms.start()
        assert vm.power_state == "running"
        assert vm.vm_agent_ready
        shown = await vm.unit_properties(APP)
        assert (shown["ActiveState"], shown["SubState"]) == ("active", "running")
        pid = await vm.main_pid(APP)
        assert any(word.endswith("/worker.py") for word in command_of(pid))

        async def beats() -> bool:
            return vm.outside(HEARTBEAT).exists()

        await eventually(beats, "a heartbeat file")

    async def test_kill_is_seen_and_restart_gives_a_new_process(self, vms: Vms) -> None:
        """kill -9 makes the unit failed with the signal; a restart by script brings another pid."""
        vm = await vms.start()
        killed = await vm.kill_unit(APP, signal.SIGKILL)
        await gone(killed)

        async def failed() -> bool:
            return (await vm.unit_properties(APP))["ActiveState"] == "failed"

        await eventually(failed, "the unit is failed")
        shown = await vm.unit_properties(APP)
        assert (shown["SubState"], shown["Result"]) == ("failed", "signal")
        assert (shown["ExecMainStatus"], shown["MainPID"]) == ("9", "0")
        assert (await vm.systemctl("is-active", APP)).exit_code == 3
        assert (await vm.systemctl("is-system-running")).stdout == "degraded\n"

        result = await vm.run_script('systemctl restart "$UNIT"', {"UNIT": APP}, 10)
        assert result.exit_code == 0, result.stderr
        assert (await vm.unit_properties(APP))["ActiveState"] == "active"
        pid = await vm.main_pid(APP)
        assert pid != killed
        assert lives(pid)

    async def test_counts_a_crash_loop(self, vms: Vms) -> None:
        """A unit that crashes at every start is started again up to its limit, then stays failed."""
        vm = await vms.start()

        async def beats() -> bool:
            return vm.outside(HEARTBEAT + "2").exists()

        await eventually(beats, "the worker has begun")  # and so has not seen the crash file
        vm.write_file(CRASH_FILE, "")
        await vm.kill_unit(LOOP)

        async def settled() -> bool:
            return (await vm.unit_properties(LOOP))["ActiveState"] == "failed"

        await eventually(settled, "the start limit is hit")
        shown = await vm.unit_properties(LOOP)
        assert (shown["NRestarts"], shown["Result"], shown["ExecMainStatus"]) == ("5", "exit-code", "1")
        assert (await vm.systemctl("restart", LOOP)).exit_code == 1

        vm.remove_file(CRASH_FILE)
        assert (await vm.systemctl("reset-failed", LOOP)).exit_code == 0
        assert (await vm.systemctl("restart", LOOP)).exit_code == 0
        shown = await vm.unit_properties(LOOP)
        assert (shown["ActiveState"], shown["NRestarts"]) == ("active", "0")

    async def test_says_what_a_script_did(self, vms: Vms) -> None:
        """Exit code, both outputs, parameters as they were given, and no longer than allowed."""
        vm = await vms.start()
        result = await vm.run_script("echo out; echo err >&2; id -u; exit 7", {}, 10)
        assert (result.exit_code, result.stderr) == (7, "err\n")
        assert result.stdout == f"out\n{os.geteuid()}\n"
        assert (await vm.run_script("kill -9 $$", {}, 10)).exit_code == 137

        printing = "".join(f'printf "%s\\0" "${name}";' for name in HOSTILE_VALUES)
        echoed = await vm.run_script(printing, HOSTILE_VALUES, 10)
        assert echoed.stdout.split("\0")[:-1] == list(HOSTILE_VALUES.values())
        python = await vm.run_script(
            "#!/usr/bin/env python3\nimport os; print(os.environ['X'])", {"X": "y"}, 10
        )
        assert python.stdout == "y\n", python.stderr
        with pytest.raises(ValueError, match="A-B"):
            await vm.run_script("true", {"A-B": ""}, 10)

        begun = time.monotonic()
        late = await vm.run_script("echo begun; echo $$; sleep 60 & sleep 60", {}, 0.5)
        assert (late.timed_out, late.exit_code) == (True, -1)
        assert late.stdout.startswith("begun\n")
        assert time.monotonic() - begun < 5

    async def test_stop_leaves_nothing_and_start_brings_it_back(self, vms: Vms, tmp_path: Path) -> None:
        """After stop there is no process, mount, cable or group; the disk is there at the next start."""
        vm = await vms.start()
        pid = await vm.main_pid(APP)
        parts = interfaces_and_groups(vms.bridge)
        assert (len(parts) > 2) == (self.kind == "systemd")
        vm.write_file("/var/lib/shop/kept", "yes")
        one, other = (["sleep", f"6{number}.{os.getpid()}"] for number in (0, 1))  # no other run's
        left_behind = await vm.run_script(f"setsid {' '.join(one)} & echo started", {}, 5)
        assert (left_behind.exit_code, left_behind.stdout) == (0, "started\n")  # its child held up nobody
        running = asyncio.create_task(vm.run_script(" ".join(other), {}, 50))

        async def both_sleep() -> bool:
            return len(pids_of(one)) == len(pids_of(other)) == 1

        await eventually(both_sleep, "the scripts' processes")
        sleeping = pids_of(one) + pids_of(other)
        await vm.stop()
        assert vm.power_state == "deallocated"
        assert not vm.vm_agent_ready
        assert not any(map(lives, [pid, *sleeping]))
        assert (await running).exit_code == 137
        assert traces(tmp_path) == []
        assert interfaces_and_groups(vms.bridge) <= {vms.bridge}

        await vm.start()
        assert await vm.main_pid(APP) != pid
        assert vm.outside("/var/lib/shop/kept").read_text() == "yes"
        second = await vm.main_pid(APP)
        await vm.restart()
        assert vm.power_state == "running"
        assert not lives(second)

    async def test_ends_with_its_owner(self, vms: Vms, tmp_path: Path) -> None:
        """Nothing outlives an owner that is killed with SIGKILL, not even for its bridge and groups."""
        need(self.kind)
        command = [sys.executable, "-c", _OWNER, self.kind, str(tmp_path)]
        owner = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, cwd=REPOSITORY)
        assert owner.stdout is not None
        bridge, *pids = json.loads(await owner.stdout.readline())
        assert all(lives(pid) for pid in pids)
        owner.kill()
        await owner.wait()
        for pid in pids:
            await gone(pid)

        async def clean() -> bool:
            return not traces(tmp_path) and not interfaces_and_groups(bridge)

        await eventually(clean, f"gone: {traces(tmp_path)} {interfaces_and_groups(bridge)}")


def pids_of(command: list[str]) -> list[int]:
    everybody = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
    return [pid for pid in everybody if command_of(pid) == command]


def command_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    except OSError:
        return []


_OWNER = """
import asyncio, json, sys
from pathlib import Path
from tests.component.vm_fixtures import APP, LOOP, Vms

async def main():
    vms = Vms(sys.argv[1], Path(sys.argv[2]))
    vm = await vms.start()
    print(json.dumps([vms.bridge, await vm.main_pid(APP), await vm.main_pid(LOOP)]), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
