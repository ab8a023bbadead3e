"""A private network for boxes: a bridge on the host with a free subnet, gone again when its owner is.

Several runs may have one each. Knows nothing of what is plugged in. Linux and root only; uses ``ip``.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from devcloud.vms.helpers import python_module

_NAME = re.compile(r"vmw\d+")
_MARK = "devcloud-bridge:"
_FIRST_SUBNET, _LAST_SUBNET = 31, 254
_FIRST_VM = 10
_TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class VmNetwork:
    """Where boxes are plugged in; the host itself is ``gateway`` to them."""

    bridge: str
    subnet: ipaddress.IPv4Network

    @property
    def gateway(self) -> str:
        return str(self.subnet[1])

    def address(self, number: int) -> str:
        """The address of VM ``number``, counted from 1."""
        if not 1 <= number <= self.subnet.num_addresses - _FIRST_VM - 2:
            raise ValueError(f"VM number {number}: {self.subnet} has no address for it")
        return str(self.subnet[_FIRST_VM + number])

    def interface(self, address: str) -> str:
        """The host's end of the cable to the VM with that address."""
        return f"{self.bridge}p{int(ipaddress.IPv4Address(address)) - int(self.subnet.network_address)}"


class BridgeNetwork:
    """Owns a bridge through a small process that removes it, also when this process is killed."""

    def __init__(self, prefix: str = "10.87") -> None:
        self._prefix = prefix
        self._guard: asyncio.subprocess.Process | None = None

    async def start(self) -> VmNetwork:
        """Make a bridge on a subnet ``PREFIX.N.0/24`` that nothing else uses."""
        self._guard = await asyncio.create_subprocess_exec(
            *python_module("devcloud.vms.bridge", self._prefix),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._guard.stdout is not None
        line = await asyncio.wait_for(self._guard.stdout.readline(), _TIMEOUT_SECONDS)
        answer = json.loads(line or '{"error": "its process ended"}')
        if "error" in answer:
            await self.stop()
            raise OSError(f"network for VMs: {answer['error']}")
        return VmNetwork(answer["bridge"], ipaddress.IPv4Network(answer["subnet"]))

    async def stop(self) -> None:
        """Remove the bridge."""
        guard, self._guard = self._guard, None
        if guard is not None:
            assert guard.stdin is not None
            guard.stdin.close()
            await asyncio.wait_for(guard.wait(), _TIMEOUT_SECONDS)


def ip(*arguments: str) -> str:
    """Run ``ip``; raises ``OSError`` with its message."""
    done = subprocess.run(["ip", *arguments], text=True, capture_output=True, check=False, timeout=10)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def remove_leftovers() -> None:
    """Remove bridges of ours whose guard was killed."""
    for entry in Path("/sys/class/net").iterdir():
        if not _NAME.fullmatch(entry.name) or not (entry / "bridge").is_dir():
            continue
        try:
            owner = (entry / "ifalias").read_text().strip()
            if owner.startswith(_MARK) and not _is_guard(owner.removeprefix(_MARK)):
                ip("link", "del", entry.name)
        except OSError:  # another run was faster
            continue


def _is_guard(pid: str) -> bool:
    try:
        return b"devcloud.vms.bridge" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def used_networks() -> Sequence[ipaddress.IPv4Network]:
    """The networks that this host has routes to."""
    routes = json.loads(ip("-j", "-4", "route", "show", "table", "all"))
    return [ipaddress.IPv4Network(route["dst"]) for route in routes if route["dst"] != "default"]


def make_bridge(prefix: str, guard_pid: int) -> VmNetwork:
    """Make the bridge with the first free number; the kernel decides races by refusing a name twice."""
    used = used_networks()
    for number in range(_FIRST_SUBNET, _LAST_SUBNET + 1):
        network = VmNetwork(f"vmw{number}", ipaddress.IPv4Network(f"{prefix}.{number}.0/24"))
        if any(network.subnet.overlaps(other) for other in used):
            continue
        try:
            ip("link", "add", network.bridge, "type", "bridge")
        except OSError as error:
            if "File exists" in str(error):
                continue
            raise
        ip("link", "set", network.bridge, "alias", f"{_MARK}{guard_pid}")
        ip("addr", "add", f"{network.gateway}/{network.subnet.prefixlen}", "dev", network.bridge)
        ip("link", "set", network.bridge, "up")
        return network
    raise OSError(f"no free subnet in {prefix}.{_FIRST_SUBNET}-{_LAST_SUBNET}.0/24")


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        remove_leftovers()
        network = make_bridge(sys.argv[1], os.getpid())
    except OSError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return 1
    try:
        print(json.dumps({"bridge": network.bridge, "subnet": str(network.subnet)}), flush=True)
        sys.stdin.read()
    finally:
        ip("link", "del", network.bridge)
    return 0
