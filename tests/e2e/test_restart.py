"""A worker dies: who says so, when it is restarted, by what, how often, and what stays of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from devcloud.stack import crash_file_of
from tests.e2e.site import Site, changed_file, eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

FIRST_WAIT_SECONDS = 1.0
CLOCK_SLACK_SECONDS = 0.1


async def test_a_killed_worker_is_restarted_inside_its_vm_after_the_backoff(site: Site) -> None:
    """Two witnesses, one wait, one command, a new process; every step with its reason in the history."""
    vm, unit = site.vm("web-1")
    commands, known = len(site.commands("web-1")), len(await site.history("web-1"))
    old_pid = (await vm.unit_properties(unit))["MainPID"]
    await vm.kill_unit(unit)
    fired, resolved = await site.alert("web-1", "fired"), await site.alert("web-1", "resolved")
    now = await vm.unit_properties(unit)
    told = (await site.history("web-1"))[known:]
    events = {row["Kind"]: row for row in told}

    assert now["ActiveState"] == "active"
    assert now["MainPID"] not in ("0", old_pid)
    planned, tried, done = events["backoff"], events["restart"], events["restart_done"]
    assert (tried["At"] - planned["At"]).total_seconds() >= FIRST_WAIT_SECONDS - CLOCK_SLACK_SECONDS
    assert "restart attempt 1 of 6" in tried["Reason"]
    for witness in ("failed/failed, result signal", "running"):  # the VM's own word, and Azure's of the VM
        assert witness in tried["Detail"]["evidence"]

    assert len(site.commands("web-1")) == commands + 1
    token = tried["Detail"]["token"]
    said = done["Detail"]["result"]  # the agent's own line, from inside
    assert (said["result"], said["unit"], said["token"]) == ("restarted", unit, token)
    assert str(said["main_pid"]) == now["MainPID"]
    fence = vm.outside("/var/lib/vm-agent-remediate/fence.json")
    assert token in [entry["token"] for entry in json.loads(fence.read_text())["tokens"]]
    assert (fence.stat().st_uid, fence.stat().st_mode & 0o777) == (0, 0o600)
    await eventually(lambda: _is_deleted(site, token), "Azure keeps 25 commands a VM: this one is deleted")

    assert fired["incident_id"] == resolved["incident_id"]
    assert (fired["status"], fired["subjects"]) == ("CRITICAL", [unit])


async def _is_deleted(site: Site, token: str) -> bool:
    calls = site.stack.cloud.calls.matching("arm", "run_commands_delete", "web-1")
    return any(token in call.path and call.status == 202 for call in calls)


async def test_a_recheck_delivered_four_times_restarts_once(site: Site) -> None:
    """Queues deliver at least once: whoever saves first acts, the others leave."""
    vm, unit = site.vm("api-1")
    commands = len(site.commands("api-1"))
    await vm.kill_unit(unit)
    await site.decision("api-1", "backoff: ")
    message = json.dumps({"vm_id": vm.spec.vm_id.lower()})
    for _ in range(3):
        await site.rechecks.send_message(message, visibility_timeout=1)
    await site.decision("api-1", "restart: ")
    await site.healthy()
    await eventually(lambda: _is_empty(site), "every delivery has been handled")
    assert len(site.commands("api-1")) == commands + 1


async def _is_empty(site: Site) -> bool:
    return (await site.rechecks.get_queue_properties()).approximate_message_count == 0


async def test_the_vms_own_list_has_the_last_word(site: Site) -> None:
    """A unit that root on the VM has not allowed is not restarted, and the history says who refused."""
    vm, unit = site.vm("jobs-1")
    with changed_file(vm, "/etc/vm-agent/allow-units", "other.service\n"):
        await vm.kill_unit(unit)
        failed = await site.decision("jobs-1", "restart_failed: ")
        assert (await vm.unit_properties(unit))["ActiveState"] == "failed"
    assert failed.endswith("refused: the unit is not in the allow-list")
    await site.decision("jobs-1", "transition: CRITICAL -> HEALTHY")


async def test_a_watchdog_that_dies_in_a_backoff_goes_on_where_it_was(site: Site) -> None:
    """Attempts and the moment of the next one come back from Table Storage, and nothing is sent twice."""
    vm, unit = site.vm("api-1")
    commands, known = len(site.commands("api-1")), len(await site.history("api-1"))
    with changed_file(vm, crash_file_of("api-1"), ""):
        await vm.kill_unit(unit)
        await site.record("restart_sent", lambda extra: extra["vm"] == "api-1")
        before = _unit(await site.look("api-1"), unit)
        await site.stack.restart_app()
        await site.decision("api-1", "restart: restart attempt 2 of 6")
    assert before["attempts"] == 1
    await site.decision("api-1", "transition: CRITICAL -> HEALTHY")
    tries = [row for row in (await site.history("api-1"))[known:] if row["Kind"] == "restart"]
    assert [row["Detail"]["attempt"] for row in tries] == list(range(1, len(tries) + 1))
    assert tries[1]["At"].isoformat() >= before["not_before"]
    assert len(site.commands("api-1")) == commands + len(tries)


def _unit(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(unit for unit in row["units"] if unit["name"] == name)
    return found
