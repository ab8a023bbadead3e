"""A simulated VM with a real systemd, its network, and the agent's unit in it."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import re
from pathlib import Path

import pytest

from devcloud.vms.base import VmSpec
from devcloud.vms.bridge import BridgeNetwork, VmNetwork
from devcloud.vms.factory import Kind, create_vm
from devcloud.vms.machine import AGENT_UNIT, Machine
from devcloud.vms.systemd import SystemdVm
from tests.component.vm_fixtures import (
    APP,
    CRASH_FILE,
    HEARTBEAT,
    HOSTILE_VALUES,
    LOOP,
    VmContract,
    Vms,
    app,
    eventually,
    gone,
    interfaces_and_groups,
    need,
    parent_of,
    vms,
)

__all__ = ["vms"]

# What the agent asks for, and what else a look at a service shows.
PROPERTIES = (
    "Id,LoadState,ActiveState,SubState,Type,Result,NRestarts,MainPID,ActiveEnterTimestamp,"
    "ActiveEnterTimestampMonotonic,ActiveExitTimestamp,InactiveEnterTimestamp,InactiveExitTimestamp,"
    "StateChangeTimestamp,ExecMainCode,ExecMainStatus,Restart,Description"
)
# Each line is one command for both; "@" lines prepare.
SESSION = f"""
show --property={PROPERTIES} --no-pager app.service nope.service loop
show -p ActiveState --timestamp=unix -p ActiveEnterTimestamp -- app nope
show -p MainPID --value nope
show -p NoSuchProperty app
is-active app nope
is-active --quiet nope
is-failed app
is-system-running
start app
start nope
stop nope
restart nope.service
reset-failed nope
frobnicate
start
daemon-reload
enable app 2>/dev/null
disable app 2>/dev/null
@ systemctl kill-main app
is-active app
is-failed app
is-system-running
show -p {PROPERTIES} app
stop app
show -p {PROPERTIES} app
@ forget heartbeat
restart app
show -p {PROPERTIES} app
@ await heartbeat
stop app
show -p {PROPERTIES} app
@ stop loop, touch crash, restart loop, await failed
show -p {PROPERTIES} loop
restart loop
start loop
show -p {PROPERTIES} loop
reset-failed loop
show -p ActiveState,SubState,Result,NRestarts loop
@ rm crash
start loop
show -p {PROPERTIES} loop
"""


class TestSystemdVm(VmContract):
    """The contract, and what is special to this kind."""

    kind: Kind = "systemd"

    async def test_has_its_own_network_and_tree(self, vms: Vms) -> None:
        """It has its address, reaches the host at the gateway and can't change the host's files."""
        vm = await vms.start()
        gateway = vm.spec.address.rpartition(".")[0] + ".1"
        served = asyncio.Event()

        async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            served.set()
            writer.close()

        async with await asyncio.start_server(serve, gateway, 0) as server:
            port = str(server.sockets[0].getsockname()[1])
            reached = await vm.run_script(KNOCK, {"HOST": gateway, "PORT": port}, 10)
            assert reached.exit_code == 0, reached.stderr
            await asyncio.wait_for(served.wait(), 5)
        shown = json.loads((await vm.run_script("ip -j -4 addr show eth0", {}, 10)).stdout)
        assert shown[0]["addr_info"][0]["local"] == vm.spec.address

        # Its writes stay in its own tree; kernel settings and the code are read-only.
        mark = f"devcloud-test-{os.getpid()}"
        result = await vm.run_script(f"touch /etc/{mark} /tmp/{mark} /opt/vm-agent/src/{mark}", {}, 10)
        assert "/opt/vm-agent/src" in result.stderr
        assert vm.outside(f"/etc/{mark}").exists()
        assert not exists(f"/etc/{mark}")
        assert not exists(f"/tmp/{mark}")
        refused = await vm.run_script("echo 1 > /proc/sys/kernel/panic", {}, 10)
        assert "Read-only" in refused.stderr
        assert vm.outside("/var/run/systemd").is_dir()  # by way of an absolute link in the box
        assert str(vm.outside("/var/run/systemd")).startswith("/proc/")

    async def test_ending_by_itself_shows_outside(self, vms: Vms) -> None:
        """A VM that powers off, or whose guard is killed, is "stopped"; its next start leaves no trace."""
        vm = await vms.start()
        await vm.run_script("systemctl poweroff --force --force", {}, 10)

        async def stopped() -> bool:
            return vm.power_state == "stopped"

        await eventually(stopped, "the power state is 'stopped'")
        await vm.start()
        assert isinstance(vm, SystemdVm)
        guard = parent_of(vm.init_pid)
        os.kill(guard, 9)
        await gone(vm.init_pid)
        await eventually(stopped, "the power state is 'stopped'")
        assert any(path.endswith(f"-{guard}") for path in interfaces_and_groups(vms.bridge))
        await vm.start()
        assert (await vm.unit_properties(APP))["ActiveState"] == "active"
        assert not any(path.endswith(f"-{guard}") for path in interfaces_and_groups(vms.bridge))


async def test_stand_in_answers_as_the_real_one(tmp_path: Path) -> None:
    """The same session on both kinds gives the same output, messages and exit codes."""
    need("systemd")
    stand_in, real = Vms("process", tmp_path / "process"), Vms("systemd", tmp_path / "systemd")
    try:
        machines = await asyncio.gather(stand_in.start(), real.start())
        transcripts = await asyncio.gather(*map(play, machines))
    finally:
        await stand_in.close()
        await real.close()
    assert len(transcripts[1]) == sum(not line.startswith("@") for line in SESSION.strip().splitlines())
    for process, systemd in zip(*transcripts, strict=True):
        assert process == systemd


async def play(vm: Machine) -> list[str]:
    """Run the session; what must differ between two machines (pids, times) is made alike."""
    transcript = []
    for block in re.split(r"^(@.*)\n", SESSION.strip() + "\n", flags=re.MULTILINE):
        if block.startswith("@"):
            await prepare(vm, block)
            continue
        commands = [f"echo '== {line}'; systemctl {line}; echo rc=$?" for line in block.splitlines()]
        text = (await vm.run_script("exec 2>&1\nexport TZ=UTC\n" + "\n".join(commands), {}, 30)).stdout
        text = re.sub(r"(?<=MainPID=)[1-9]\d*|^[1-9]\d*$", "PID", text, flags=re.MULTILINE)
        text = re.sub(r"(?<=Timestamp=)(\w{3} [-\d]{10} [:\d]{8} UTC|@\d{10})", "TIME", text)
        text = re.sub(r"(?<=Monotonic=)[1-9]\d+", "TIME", text)
        transcript += text.split("== ")[1:]
    return transcript


async def prepare(vm: Machine, line: str) -> None:
    async def failed() -> bool:
        unit = APP if "kill-main" in line else LOOP
        return (await vm.unit_properties(unit))["ActiveState"] == "failed"

    async def beats() -> bool:
        return vm.outside(HEARTBEAT).exists()

    if line == "@ forget heartbeat":
        vm.remove_file(HEARTBEAT)
    elif line == "@ await heartbeat":  # only then does the worker know how to end by SIGTERM
        await eventually(beats, "a heartbeat")
    elif "rm crash" in line:
        vm.remove_file(CRASH_FILE)
    elif "kill-main" in line:
        await vm.kill_unit(APP)
        await eventually(failed, "failed")
    else:
        await vm.systemctl("stop", LOOP)
        vm.write_file(CRASH_FILE, "")
        await vm.systemctl("restart", LOOP)
        await eventually(failed, "failed")


async def test_agent_unit_in_a_box(tmp_path: Path) -> None:
    """The repository's own unit file is in force there: user, limits, settings; and verify finds no fault."""
    need("systemd")
    bridge = BridgeNetwork()
    network = await bridge.start()
    settings = {**HOSTILE_VALUES, "VM_AGENT_UNITS": APP}
    vm = create_vm("systemd", VmSpec("web-1", network.address(1)), tmp_path, network, settings, [app()])
    try:
        await vm.start()
        # The agent has its own tests: this shows what any program finds in the unit's sandbox.
        vm.write_file(
            "/etc/systemd/system/vm-agent.service.d/test.conf",
            f"[Service]\nType=simple\nExecStart=\nExecStart={PROBE}\n",
        )
        vm.write_file("/opt/probe.py", PROBE_CODE)
        result = await vm.run_script(f"systemctl daemon-reload; systemctl restart {AGENT_UNIT}", {}, 20)
        assert result.exit_code == 0, result.stderr
        report = vm.outside("/var/lib/vm-agent/report")

        async def written() -> bool:
            return report.exists()

        await eventually(written, "the probe's report")
        seen = json.loads(report.read_text())
        assert seen["environment"] == {name: settings[name] for name in seen["environment"]}
        assert seen["environment"].keys() == settings.keys()
        assert seen["uid"] != 0
        assert seen["systemctl"] == "active\n"
        assert seen["can_write_etc"] is False
        assert seen["heartbeat_readable"] is True
        allowed = vm.outside("/etc/vm-agent/allow-units")
        assert (allowed.read_text(), allowed.stat().st_uid) == (f"{APP}\n", 0)
        verified = await vm.run_script(f"systemd-analyze verify /etc/systemd/system/{AGENT_UNIT}", {}, 20)
        assert (verified.exit_code, verified.stderr) == (0, "")
        shown = await vm.unit_properties(AGENT_UNIT)
        assert (shown["MemoryMax"], shown["CPUQuotaPerSecUSec"]) == (str(128 * 2**20), "500ms")
    finally:
        await vm.stop()
        await bridge.stop()


KNOCK = """#!/opt/vm-agent/bin/python
import os, socket
socket.create_connection((os.environ["HOST"], int(os.environ["PORT"])), 3)
"""
PROBE = "/opt/vm-agent/bin/python -P /opt/probe.py"
PROBE_CODE = f"""
import ctypes, json, os, ssl, subprocess, time
names = {[*HOSTILE_VALUES, "VM_AGENT_UNITS"]!r}
report = {{
    "uid": os.getuid(),
    "environment": {{name: os.environ[name] for name in names if name in os.environ}},
    "systemctl": subprocess.run(["systemctl", "is-active", "{APP}"], capture_output=True, text=True).stdout,
    "can_write_etc": os.access("/etc", os.W_OK),
    "heartbeat_readable": os.access("/var/lib/shop/heartbeat", os.R_OK),
}}
with open("/var/lib/vm-agent/report.part", "w") as stream:
    json.dump(report, stream)
os.rename("/var/lib/vm-agent/report.part", "/var/lib/vm-agent/report")
time.sleep(600)
"""


async def test_two_networks_at_once_and_a_leftover() -> None:
    """Two runs get different subnets; a bridge whose guard was killed is removed by the next run."""
    need("systemd")
    first, second, third = BridgeNetwork(), BridgeNetwork(), BridgeNetwork()
    try:
        one, other = await first.start(), await second.start()
        assert one.bridge != other.bridge
        assert not one.subnet.overlaps(other.subnet)
        alias = alias_of(one.bridge)
        os.kill(int(alias.rpartition(":")[2]), 9)
        await first.stop()
        assert exists(f"/sys/class/net/{one.bridge}")
        await third.start()
        assert exists(f"/sys/class/net/{other.bridge}")
        assert alias not in [alias_of(interface) for interface in os.listdir("/sys/class/net")]
    finally:
        for network in (first, second, third):
            await network.stop()
    assert not exists(f"/sys/class/net/{other.bridge}")


def exists(path: str) -> bool:
    return Path(path).exists()


def alias_of(interface: str) -> str:
    return Path(f"/sys/class/net/{interface}/ifalias").read_text().strip()


def test_network_has_no_address_for_everybody() -> None:
    """A number outside the subnet is refused by its name."""
    with pytest.raises(ValueError, match="300"):
        VmNetwork("vmw31", ipaddress.IPv4Network("10.87.31.0/24")).address(300)
