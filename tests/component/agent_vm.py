"""A VM with a real systemd and the agent as its own unit, asked from outside as the watchdog asks."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from devcloud.vms.base import ScriptResult, VmSpec
from devcloud.vms.bridge import BridgeNetwork
from devcloud.vms.factory import create_vm
from devcloud.vms.machine import AGENT_UNIT, Machine
from devcloud.vms.units import UnitFile
from tests.component.vm_fixtures import eventually, need
from vm_health.model import Finding, HealthReport, UnitSample
from vm_health.wire import decode_report

# What vm-agent.service gives a process of its user, as far as it bears on what that may ask of systemd.
AS_AGENT = (
    "setpriv --reuid vm-agent --regid vm-agent --init-groups"
    " --no-new-privs --inh-caps=-all --bounding-set=-all"
)


class AgentVm:
    """The VM and its agent."""

    def __init__(self, vm: Machine) -> None:
        self.vm = vm

    async def look(self) -> tuple[int, HealthReport] | None:
        """Return what /health says now; None for no answer."""
        return await asyncio.to_thread(_ask, self.vm.spec.address)

    async def until(
        self, holds: Callable[[HealthReport], object], what: str, seconds: float = 15
    ) -> HealthReport:
        """Return the first report for which it holds."""
        found: list[HealthReport] = []

        async def seen() -> bool:
            answer = await self.look()
            found[:] = [answer[1]] if answer else []
            return bool(found and holds(found[0]))

        await eventually(seen, what, seconds)
        return found[0]

    async def shell(self, script: str) -> ScriptResult:
        """Run a script as root in the VM, which must succeed."""
        done = await self.vm.run_script(script, {}, 30)
        assert done.exit_code == 0, f"{script}: {done.stdout}{done.stderr}"
        return done

    async def drop_in(self, unit: str, *lines: str, name: str = "90-test") -> None:
        """Change a unit's [Service] settings."""
        text = "[Service]\n" + "\n".join(lines) + "\n"
        self.vm.write_file(f"/etc/systemd/system/{unit}.d/{name}.conf", text)
        await self.shell("systemctl daemon-reload")

    async def agent(self) -> dict[str, str]:
        """Return the properties of the agent's unit."""
        return await self.vm.unit_properties(AGENT_UNIT)


@contextlib.asynccontextmanager
async def agent_vm(directory: Path, units: Sequence[UnitFile], **settings: str) -> AsyncIterator[AgentVm]:
    """A VM whose agent watches ``units`` and has taken its first sample."""
    need("systemd")
    bridge = BridgeNetwork()
    network = await bridge.start()
    given = {
        "VM_AGENT_UNITS": ",".join(unit.name for unit in units),
        "VM_AGENT_SAMPLE_INTERVAL_SECONDS": "0.5",
        "VM_AGENT_IMDS_URL": "http://127.0.0.1:9",  # nobody answers there
        "VM_AGENT_DISK_WARNING_PERCENT": "99.8",  # a disk of the machine that tests is not the matter
        "VM_AGENT_DISK_CRITICAL_PERCENT": "99.9",
        **settings,
    }
    vm = create_vm("systemd", VmSpec("web-1", network.address(1)), directory, network, given, units)
    try:
        await vm.start()  # systemd has booted once vm-agent.service said READY=1
        yield AgentVm(vm)
    finally:
        await vm.stop()
        await bridge.stop()


def unit_of(report: HealthReport, name: str) -> UnitSample:
    """The unit as the agent sees it."""
    return next(unit for unit in report.sample.units if unit.name == name)


def findings_of(report: HealthReport, subject: str) -> dict[str, Finding]:
    """What the report says against ``subject``, by code."""
    return {finding.code.value: finding for finding in report.findings if finding.subject == subject}


def _ask(address: str) -> tuple[int, HealthReport] | None:
    connection = HTTPConnection(address, 8080, timeout=3)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        text = answer.read().decode()
        json.loads(text)
        return answer.status, decode_report(text)
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()
