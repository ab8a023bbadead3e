"""The agent and a real systemd: heard at once over the bus, after a bus that went away too, and without one.

Samples by schedule are an hour apart here where it is about signals: what is seen within seconds was heard.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from devcloud.vms.base import VmSpec
from devcloud.vms.bridge import BridgeNetwork
from devcloud.vms.factory import create_vm
from devcloud.vms.machine import AGENT_UNIT, Machine
from tests.component.vm_fixtures import APP, LOOP, app, eventually, loop, need

SELDOM = {"VM_AGENT_SAMPLE_INTERVAL_SECONDS": "3600"}
OFTEN = {"VM_AGENT_SAMPLE_INTERVAL_SECONDS": "0.2"}


class AgentVm:
    """A VM whose agent is asked from outside."""

    def __init__(self, vm: Machine) -> None:
        self.vm = vm
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))

    async def ask(self, path: str) -> dict[str, Any]:
        async with self._http.get(f"http://{self.vm.spec.address}:8080{path}") as answer:
            found: dict[str, Any] = await answer.json(content_type=None)
            return found

    async def unit(self, name: str) -> dict[str, Any]:
        report = await self.ask("/health")
        return next((unit for unit in report["units"] if unit["name"] == name), {})

    async def state(self, name: str) -> str:
        unit = await self.unit(name)
        return f"{unit.get('active_state')}/{unit.get('sub_state')}"

    async def own(self, name: str) -> float:
        """A number of the agent about itself."""
        return float((await self.ask("/metrics"))["agent"][name])

    async def until(self, holds: Callable[[], Awaitable[bool]], what: str) -> None:
        async def served() -> bool:
            try:
                return await holds()
            except (aiohttp.ClientError, TimeoutError):
                return False

        await eventually(served, what, timeout_seconds=15)

    async def close(self) -> None:
        await self._http.close()


Start = Callable[[dict[str, str]], Awaitable[AgentVm]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Makes the VM with these settings; its two workers run and the agent answers when it returns."""
    need("systemd")
    bridge = BridgeNetwork()
    made: list[AgentVm] = []

    async def make(settings: dict[str, str]) -> AgentVm:
        network = await bridge.start()
        environment = {"VM_AGENT_UNITS": f"{APP},{LOOP}", **settings}
        spec = VmSpec("web-1", network.address(1))
        vm = create_vm("systemd", spec, tmp_path / "vm", network, environment, [app(), loop()])
        found = AgentVm(vm)
        made.append(found)
        await vm.start()

        async def is_up() -> bool:
            return (await found.state(APP), await found.state(LOOP)) == ("active/running", "active/running")

        await found.until(is_up, "the agent sees both workers")
        return found

    try:
        yield make
    finally:
        for one in made:
            await one.close()
            await one.vm.stop()
        await bridge.stop()


async def _hears(agent: AgentVm) -> None:
    async def listens() -> bool:
        return await agent.own("unit_signals_active") == 1

    await agent.until(listens, "changes are heard")


async def test_a_kill_is_reported_at_once_and_again_after_the_bus_was_restarted(start: Start) -> None:
    agent = await start(SELDOM)
    await _hears(agent)
    assert await agent.own("units_dbus_active") == 1
    before = await agent.unit(LOOP)
    assert (before["service_type"], before["memory_bytes"] > 0) == ("simple", True)
    assert before["active_since"] is not None

    await agent.vm.kill_unit(LOOP)  # comes back by itself

    async def is_back() -> bool:
        unit = await agent.unit(LOOP)
        return bool(unit["restarts"] == 1 and unit["sub_state"] == "running")

    await agent.until(is_back, "the restart is seen")
    after = await agent.unit(LOOP)
    assert (after["recent_restarts"], after["main_pid"] != before["main_pid"]) == (1, True)

    bus = await agent.vm.main_pid("dbus.service")
    assert bus
    await agent.vm.kill_unit("dbus.service")
    await agent.vm.systemctl("start", "dbus.service")

    async def reconnected() -> bool:
        log = (await agent.vm.run_script(f"journalctl -u {AGENT_UNIT} -o cat", {}, 10)).stdout
        return log.count("changes of units are heard") == 2

    await agent.until(reconnected, "it listens to the new bus")
    pid = await agent.vm.main_pid(APP)
    assert pid
    await agent.vm.kill_unit(APP)

    async def is_down() -> bool:
        return await agent.state(APP) == "failed/failed"

    await agent.until(is_down, "the kill is seen")
    report = await agent.ask("/health")
    assert report["status"] == "CRITICAL"
    assert (await agent.unit(APP))["result"] == "signal"
    assert await agent.own("units_dbus_active") == 1


async def test_a_unit_that_says_something_and_a_question_about_a_missing_one_wake_nobody(
    start: Start,
) -> None:
    agent = await start({**SELDOM, "VM_AGENT_UNITS": f"{APP},{LOOP},missing.service,{AGENT_UNIT}"})
    await _hears(agent)
    assert (await agent.unit("missing.service"))["load_state"] == "not-found"
    await asyncio.sleep(0.6)  # the samples of the start are over
    before = await agent.own("samples")
    for _ in range(5):
        await agent.vm.systemctl("show", "missing.service")
    await asyncio.sleep(0.6)
    assert await agent.own("samples") == before


async def test_without_a_bus_systemctl_tells_and_the_schedule_goes_on(start: Start) -> None:
    agent = await start({**OFTEN, "VM_AGENT_SYSTEM_BUS": "unix:path=/nowhere/bus"})
    assert (await agent.own("units_systemctl_active"), await agent.own("unit_signals_active")) == (1, 0)
    assert (await agent.unit(APP))["memory_bytes"] > 0
    await agent.vm.kill_unit(APP)

    async def is_down() -> bool:
        return await agent.state(APP) == "failed/failed"

    await agent.until(is_down, "the kill is seen")
    assert (await agent.ask("/health"))["failures"] == []


async def test_restarts_are_remembered_across_restarts_of_the_agent_and_a_boot(start: Start) -> None:
    agent = await start(SELDOM)
    await _hears(agent)

    async def counts(wanted: int) -> None:
        async def holds() -> bool:
            unit = await agent.unit(LOOP)
            return bool(unit["recent_restarts"] == wanted and unit["sub_state"] == "running")

        await agent.until(holds, f"{wanted} recent restarts")

    await agent.vm.kill_unit(LOOP)
    await counts(1)
    await agent.vm.systemctl("restart", AGENT_UNIT)
    await counts(1)
    await agent.vm.systemctl("stop", AGENT_UNIT)
    await agent.vm.kill_unit(LOOP)  # while nobody looks

    async def is_back() -> bool:
        shown = await agent.vm.unit_properties(LOOP)
        return (shown["SubState"], shown["NRestarts"]) == ("running", "2")

    await eventually(is_back, "it came back")
    await agent.vm.systemctl("start", AGENT_UNIT)
    await counts(2)
    await agent.vm.systemctl("restart", LOOP)  # by hand: systemd's own count begins anew
    await agent.vm.kill_unit(LOOP)
    await counts(3)
    checked = await agent.vm.run_script("set -a; . /etc/vm-agent/agent.env; vm-agent check --json", {}, 20)
    assert '"recent_restarts":3' in checked.stdout, checked.stderr
    await agent.vm.restart()
    await counts(3)


NOISY = "systemd-run --quiet --unit=noisy -p SyslogLevel=err sh -c 'echo boom password=hunter2; sleep 600'"


async def test_errors_in_a_units_journal_are_counted_once_and_without_their_secrets(start: Start) -> None:
    agent = await start(
        {**OFTEN, "VM_AGENT_LOG_INTERVAL_SECONDS": "1", "VM_AGENT_UNITS": f"{APP},{LOOP},noisy"}
    )
    assert (await agent.vm.run_script(NOISY, {}, 10)).exit_code == 0

    async def logs() -> dict[str, tuple[int, str]]:
        report = await agent.ask("/health")
        return {log["source"]: (log["errors"], log["last"]) for log in report.get("logs", [])}

    async def is_seen() -> bool:
        return (await logs()).get("noisy.service") == (1, "boom password=***")

    await agent.until(is_seen, "the error is counted")
    looks = await agent.own("samples")

    async def has_looked_on() -> bool:
        return await agent.own("samples") > looks + 12  # two seconds and so two looks at the journal

    await agent.until(has_looked_on, "more samples")
    assert (await logs())["noisy.service"] == (1, "boom password=***")
    assert (await logs())[APP] == (0, "")
    report = await agent.ask("/health")
    assert [finding["code"] for finding in report["findings"]] == ["log_errors"]
    assert report["system"]["clock_synchronized"] is None  # a container's clock is its host's
    assert [disk["mount"] for disk in report["disks"]] == ["/"]


CLONE = """
export GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@x GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@x
git init -q -b main /srv/origin && git -C /srv/origin commit -q --allow-empty -m one
git clone -q /srv/origin /srv/app && git -C /srv/origin commit -q --allow-empty -m two
git -C /srv/app fetch -q
"""


async def test_the_unprivileged_agent_judges_a_checkout_that_is_roots(start: Start) -> None:
    agent = await start({**OFTEN, "VM_AGENT_GIT_CHECKOUTS": "/srv/app", "VM_AGENT_GIT_INTERVAL_SECONDS": "1"})
    (missing,) = (await agent.ask("/health"))["checkouts"]
    assert missing["problem"] == "cannot be judged: No such file or directory"
    cloned = await agent.vm.run_script(CLONE, {}, 20)
    assert cloned.exit_code == 0, cloned.stderr

    async def is_behind() -> bool:
        (found,) = (await agent.ask("/health"))["checkouts"]
        return (found["problem"], found["branch"], found["behind"]) == ("", "main", 1)

    await agent.until(is_behind, "the checkout is one commit behind")
