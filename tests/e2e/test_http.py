"""The function app over HTTP: who may ask, what people's requests do, what is shown of a hostile name."""

from __future__ import annotations

import json

import pytest

from devcloud.vms.machine import AGENT_UNIT
from tests.e2e.site import Site, changed_file

pytestmark = pytest.mark.asyncio(loop_scope="session")

SETTINGS_FILE = "/etc/vm-agent/agent.env"
HOSTILE = "/run/<script>alert('x')</script>&"


def url(site: Site, path: str) -> str:
    return f"http://127.0.0.1:{site.stack.app.port}/api/{path}"


def key(site: Site) -> dict[str, str]:
    return {"x-functions-key": site.stack.function_key}


async def test_a_nudge_needs_the_key_and_a_vm(site: Site) -> None:
    """401 without the key, 400 with what is no VM's id, 202 and a look at once with one."""
    vm_id = site.stack.vms["web-1"].spec.vm_id
    kind = {"Content-Type": "application/json"}
    right = key(site) | kind
    for body, headers, status in (
        (json.dumps({"vm_id": vm_id}), kind, 401),
        (json.dumps({"vm_id": vm_id}), kind | {"x-functions-key": site.stack.function_key + "x"}, 401),
        (json.dumps({"vm_id": vm_id}), key(site) | {"Content-Type": "text/plain"}, 415),
        ("{", right, 400),
        ("[" * 5_000, right, 400),
        ("\0" * 100_000, right, 413),
        (json.dumps({"vm_id": "/subscriptions/../../$(reboot)"}), right, 400),
        (json.dumps({"vm_id": [vm_id]}), right, 400),
    ):
        async with site.http.post(url(site, "nudge"), data=body, headers=headers) as response:
            assert response.status == status, body[:100]
            if status != 401:
                assert response.content_type == "application/problem+json"
    reads = len(site.stack.cloud.calls.matching("arm", "get", "web-1"))
    async with site.http.post(url(site, "nudge"), json={"vm_id": vm_id}, headers=key(site)) as response:
        assert response.status == 202
    await site.stack.cloud.calls.wait_for("arm", "get", vm="web-1", count=reads + 1)


async def test_a_vm_that_nudges_without_end_is_told_when_to_come_back(site: Site) -> None:
    """One that no inventory knows, so that the others' nudges are heard as before."""
    vm_id = site.stack.vms["web-1"].spec.vm_id.replace("web-1", "nobody")
    answers = []
    for _ in range(6):
        async with site.http.post(url(site, "nudge"), json={"vm_id": vm_id}, headers=key(site)) as response:
            answers.append((response.status, response.headers.get("Retry-After", "")))
    assert answers[0] == (202, "")
    status, retry_after = answers[-1]
    assert status == 429
    assert 1 <= int(retry_after) <= 5


async def test_live_tells_of_the_last_tick(site: Site) -> None:
    """Anybody may ask; no key, and nothing but when and what is frozen."""
    async with site.http.get(url(site, "live")) as response:
        body = await response.json()
    assert response.status == 200
    assert body["live"] is True
    assert 0 <= body["last_tick_age_seconds"] < 10
    assert body["frozen"] == []


async def test_everything_but_live_wants_a_key(site: Site) -> None:
    """Answered by the host, before the product sees the request."""
    for method, path in (
        ("GET", "status"),
        ("GET", "vms/web-1"),
        ("GET", "vms/web-1/history"),
        ("POST", "vms/web-1/restart"),
        ("GET", "silences"),
        ("POST", "silences"),
        ("DELETE", "silences/x"),
        ("POST", "thaw"),
        ("GET", "openapi.json"),
    ):
        async with site.http.request(method, url(site, path)) as response:
            assert response.status == 401, path


async def test_a_person_restarts_a_unit_and_the_history_tells_who_and_why(site: Site) -> None:
    """Through the same command, with the same fence in the VM, and in one call to read back."""
    vm, unit = site.vm("web-1")
    old_pid = (await vm.unit_properties(unit))["MainPID"]
    commands = len(site.commands("web-1"))
    body = {"unit": unit, "by": "ann", "why": "it leaks memory"}
    async with site.http.post(url(site, "vms/WEB-1/restart"), json=body, headers=key(site)) as response:
        answer = await response.json()
    assert response.status == 202, answer
    await site.decision("web-1", "restart_done: ")
    assert (await vm.unit_properties(unit))["MainPID"] not in ("0", old_pid)
    assert len(site.commands("web-1")) == commands + 1
    async with site.http.get(url(site, "vms/web-1/history?since=2m"), headers=key(site)) as response:
        events = {event["kind"]: event for event in reversed((await response.json())["events"])}
    asked = events["requested"]["detail"]
    assert (asked["by"], asked["why"], asked["token"]) == ("ann", "it leaks memory", answer["token"])
    assert events["restart_done"]["detail"]["token"] == answer["token"]


async def test_a_silence_holds_the_restart_until_it_is_ended(site: Site) -> None:
    """The worker stays down for as long as people want it; then the watchdog does its work."""
    vm, unit = site.vm("api-1")
    commands = len(site.commands("api-1"))
    body = {"vm": "api-1", "stops": "action", "until": "10m", "by": "ann", "why": "I am looking at it"}
    async with site.http.post(url(site, "silences"), json=body, headers=key(site)) as response:
        silence = await response.json()
    assert response.status == 201, silence
    await vm.kill_unit(unit)
    await site.decision("api-1", "held: ")
    async with site.http.get(url(site, "vms/api-1"), headers=key(site)) as response:
        seen = await response.json()
    assert (seen["status"], [one["id"] for one in seen["silences"]]) == ("CRITICAL", [silence["id"]])
    assert "I am looking at it" in seen["units"][0]["held"]
    assert len(site.commands("api-1")) == commands
    ended = url(site, f"silences/{silence['id']}?by=ann")
    async with site.http.delete(ended, headers=key(site)) as response:
        assert response.status == 200
    await site.decision("api-1", "restart: ")
    kinds = [
        row["Kind"] for row in await site.history("api-1", "silenced", "held", "silence_ended", "restart")
    ]
    assert kinds[-4:] == ["silenced", "held", "silence_ended", "restart"]


async def test_the_dashboard_escapes_what_a_vm_says(site: Site) -> None:
    """A name that is markup goes all the way from a VM's settings to page, JSON and alert, and stays text."""
    async with site.http.get(url(site, "fleet")) as response:
        assert response.status == 401
    vm, _ = site.vm("web-1")
    settings = vm.outside(SETTINGS_FILE).read_text()
    with changed_file(vm, SETTINGS_FILE, f'{settings}VM_AGENT_HEARTBEAT_FILES="{HOSTILE}"\n'):
        await vm.systemctl("restart", AGENT_UNIT)
        row = await site.until("web-1", lambda row: bool(row["cause"] == "heartbeat_missing"))
        async with site.http.get(site.stack.dashboard_url) as response:
            page = await response.text()
        fired = await site.alert("web-1", "fired")
    await vm.systemctl("restart", AGENT_UNIT)
    assert HOSTILE in row["reason"]
    assert HOSTILE in fired["subjects"]
    assert response.content_type == "text/html"
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;" in page
