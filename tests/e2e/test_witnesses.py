"""A witness is missing, late or switched off: what the watchdog concludes, and what it leaves alone."""

from __future__ import annotations

import time

import pytest

from devcloud.faults import Fault
from devcloud.vms.machine import AGENT_UNIT
from tests.e2e.site import Site, eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

# After a boot there is a time in which the newest report of a VM is one from before.
SLOW_AGENT_FILE = f"/etc/systemd/system/{AGENT_UNIT}.d/slow.conf"
SLOW_AGENT = """\
[Service]
ExecStart=
ExecStart=/bin/sh -c 'sleep 2; exec /opt/vm-agent/bin/vm-agent run'
"""
EVENTS = """
SELECT json_extract_string(Properties, '$.vm_id'), epoch(TimeGenerated), epoch(_TimeReceived)
FROM AppEvents WHERE Name = 'vm.health'
"""


async def test_a_vm_that_was_switched_off_is_left_alone(site: Site) -> None:
    """Deallocated in a backoff: no restart, the incident ends; after the start no old news counts."""
    vm, unit = site.vm("jobs-1")
    commands = len(site.commands("jobs-1"))
    vm.write_file(SLOW_AGENT_FILE, SLOW_AGENT)
    await vm.kill_unit(unit)
    await site.decision("jobs-1", "backoff: ")
    await vm.stop()
    await site.decision("jobs-1", "-> STOPPED: ")  # by way of MAINTENANCE where a tick sees it deallocating
    resolved = await site.alert("jobs-1", "resolved")
    assert "the VM is deallocated" in resolved["reason"]
    assert (await site.look("jobs-1"))["incident"] is None

    await vm.start()
    vm.remove_file(SLOW_AGENT_FILE)
    await vm.systemctl("daemon-reload")
    await site.healthy()
    assert len(site.commands("jobs-1")) == commands
    # While it goes down, looks a second apart may have news of it; a look a minute has none.
    kinds = [alert.body["kind"] for alert in site.alerts if alert.body["vm"]["name"] == "jobs-1"]
    assert (kinds[0], kinds[-1], kinds.count("resolved")) == ("fired", "resolved", 1)


async def test_without_log_queries_the_endpoint_decides(site: Site) -> None:
    """Throttled, timed out, partial: no VM changes for it, and a worker that dies then is still restarted."""
    vm, unit = site.vm("api-1")
    commands = len(site.commands())
    for fault in (
        Fault("logs", "query", status=429, headers={"Retry-After": "1"}, times=0),
        Fault("logs", "query", status=504, times=0),
        Fault("logs", "query", mode="partial", times=0),
    ):
        site.stack.cloud.faults.clear()
        site.stack.cloud.faults.add(fault)
        start = len(site.stack.app.records)
        await site.record("tick", lambda extra: bool(extra["troubles"]), start)
    ticks = [record.extra for record in site.records if record.message == "tick"]
    assert {tuple(tick["statuses"].items()) for tick in ticks} == {(("HEALTHY", len(site.stack.vms)),)}
    assert (len(site.commands()), site.alerts) == (commands, [])

    await vm.kill_unit(unit)
    await site.decision("api-1", "transition: CRITICAL -> HEALTHY")
    assert len(site.commands()) == commands + 1


async def test_an_outage_of_ingestion_costs_no_alert_and_no_snapshot(site: Site) -> None:
    """Reports wait on the VMs and arrive with the time at which they were taken."""
    calls, vms = site.stack.cloud.calls, len(site.stack.vms)
    began, tried = time.time(), len(calls.matching("ingestion", "track"))
    site.stack.cloud.faults.add(Fault("ingestion", "track", status=503, times=0))
    # Every agent once, and the watchdog's own event of a few ticks.
    refused = await calls.wait_for("ingestion", "track", count=tried + vms + 3, timeout_seconds=20)
    site.stack.cloud.faults.clear()
    assert {call.status for call in refused[tried:]} == {503}

    def late() -> set[str]:
        """The VMs with a report from the outage that arrived seconds later."""
        _, rows = site.stack.cloud.tables.run(EVENTS)
        return {vm_id for vm_id, taken, received in rows if taken > began and received - taken > 3}

    await eventually(lambda: len(late()) == vms, "late reports of every VM")
    assert site.alerts == []
    assert [record.extra for record in site.records if record.message == "decision"] == []
