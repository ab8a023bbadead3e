"""What the running agent costs its VM: memory beside a bare Python's, and CPU time for one sample."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from benchmarks.figures import Figure, other_pythons
from benchmarks.options import Options
from devcloud.cloud import LocalCloud
from devcloud.vms.base import VmSpec
from devcloud.vms.bridge import BridgeNetwork
from devcloud.vms.factory import best_kind, create_vm
from devcloud.vms.machine import AGENT_UNIT, Machine
from devcloud.vms.units import UnitFile

_GOAL_MB = 20.0
_SAMPLES = 60
_UNITS = ("one.service", "two.service", "three.service")
_BARE = "import time; print(flush=True); time.sleep(1000)"
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


# Every process of a machine maps these; all other files are, on most VMs, the agent's alone.
_COMMON = ("/libc.so", "/libc-", "/libm.so", "/libm-", "/ld-linux", "/ld-", "/locale/", "/gconv/")


@dataclass(frozen=True, slots=True)
class Memory:
    """A process's memory in MB (10**6 bytes).

    ``pss`` depends on who else runs: of a page that N processes map, each counts one Nth. ``alone`` is what
    it would be without any other Python: the pages of all files but the C library's are counted whole.
    """

    rss: float
    pss: float
    uss: float
    alone: float


def measure(options: Options) -> list[Figure]:
    """One agent with three units, endpoint and telemetry, in a VM that runs nothing else."""
    with tempfile.TemporaryDirectory() as directory:
        return asyncio.run(_measure(Path(directory), options))


async def _measure(directory: Path, options: Options) -> list[Figure]:
    kind = best_kind()
    bridge = BridgeNetwork()
    network = await bridge.start() if kind == "systemd" else None
    host = "127.0.0.1" if network is None else network.gateway
    spec = VmSpec("bench", "127.0.0.11" if network is None else network.address(1))
    cloud = LocalCloud(directory, [], extra_hosts=[] if network is None else [host])
    sleepers = [UnitFile(name, exec_start="/bin/sleep infinity") for name in _UNITS]
    settings = _agent_settings(spec, cloud, host)
    await cloud.start()
    settings["APPLICATIONINSIGHTS_CONNECTION_STRING"] = cloud.connection_string_for(host)
    vm = create_vm(kind, spec, directory / spec.name, network, settings, sleepers)
    try:
        await vm.start()
        return await _watch(vm, kind, options)
    finally:
        await vm.stop()
        await cloud.stop()
        await bridge.stop()


def _agent_settings(spec: VmSpec, cloud: LocalCloud, host: str) -> dict[str, str]:
    return {
        "VM_AGENT_UNITS": ",".join(_UNITS),
        "VM_AGENT_VM_ID": spec.vm_id,
        "VM_AGENT_LISTEN_ADDRESS": spec.address,
        # In production's proportion of one report to four samples, thirty times as fast.
        "VM_AGENT_SAMPLE_INTERVAL_SECONDS": "0.5",
        "VM_AGENT_REPORT_INTERVAL_SECONDS": "2",
    }


async def _watch(vm: Machine, kind: str, options: Options) -> list[Figure]:
    bare = await asyncio.create_subprocess_exec(sys.executable, "-c", _BARE, stdout=subprocess.PIPE)
    assert bare.stdout is not None
    await bare.stdout.readline()
    try:
        first, cpu_before = await _samples(vm, 1), _cpu_seconds(await vm.main_pid(AGENT_UNIT))
        options.progress(f"agent: {_SAMPLES} samples")
        last = await _samples(vm, first + _SAMPLES)
        pid = await vm.main_pid(AGENT_UNIT)
        cpu = (_cpu_seconds(pid) - cpu_before) / (last - first)
        agent, base = _memory(pid), _memory(bare.pid)
        others = other_pythons([pid, bare.pid])
    finally:
        bare.kill()
        await bare.wait()
    return [
        Figure("bare Python, PSS without other Pythons", "MB", (base.alone,), note=_sizes(base)),
        Figure("agent, PSS without other Pythons", "MB", (agent.alone,), _GOAL_MB, _sizes(agent)),
        Figure("agent / bare Python", "times", (agent.alone / base.alone,)),
        Figure("agent, PSS as it was", "MB", (agent.pss,), note=f"beside {others + 2} more Pythons"),
        Figure("agent, CPU for one sample", "ms", (cpu * 1000,), note=_cpu_note(kind)),
    ]


def _cpu_note(kind: str) -> str:
    answering = "a real systemd" if kind == "systemd" else "the stand-in systemctl"
    return f"with its systemctl, {answering}, and a report every 4th"


async def _samples(vm: Machine, wanted: int) -> int:
    """Wait until the agent has taken ``wanted`` samples; returns how many it has."""
    url = f"http://{vm.spec.address}:8080/metrics"
    async with aiohttp.ClientSession() as session, asyncio.timeout(120):
        while True:
            try:
                async with session.get(url) as response:
                    found = int((await response.json())["agent"]["samples"])
            except aiohttp.ClientError:  # it starts
                found = 0
            if found >= wanted:
                return found
            await asyncio.sleep(min(5.0, max(0.1, (wanted - found) * 0.4)))


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / _TICKS_PER_SECOND


def _sizes(memory: Memory) -> str:
    return f"RSS {memory.rss:.1f}, USS {memory.uss:.1f}"


def _memory(pid: int) -> Memory:
    sizes, alone, path = Counter[str](), 0, ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, colon, rest = line.partition(":")
        if not colon or " " in name:  # a mapping's head: addresses, mode, offset, device, inode, path
            path = [*line.split(maxsplit=5), ""][5]
        elif rest.endswith(" kB"):
            size = int(rest.split()[0])
            sizes[name] += size
            if name == ("Pss" if any(part in path for part in _COMMON) else "Rss"):
                alone += size
    rss, pss, uss = (sizes[name] for name in ("Rss", "Pss", "Private_Clean"))
    return Memory(*(size * 1024 / 1e6 for size in (rss, pss, uss + sizes["Private_Dirty"], alone)))
