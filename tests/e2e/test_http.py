"""The function app's own pages: who may nudge, whether it lives, what is shown of a hostile name."""

from __future__ import annotations

import json

import pytest

from devcloud.vms.machine import AGENT_UNIT
from tests.e2e.site import Site, changed_file

pytestmark = pytest.mark.asyncio(loop_scope="session")

SETTINGS_FILE = "/etc/vm-agent/agent.env"
HOSTILE = "/run/<script>alert('x')</script>&"


async def test_a_nudge_needs_the_key_and_a_vm(site: Site) -> None:
    """401 without the key, 400 with what is no VM's id, 202 and a look at once with one."""
    url = f"http://127.0.0.1:{site.stack.app.port}/api/nudge"
    key = {"x-functions-key": site.stack.function_key}
    vm_id = site.stack.vms["web-1"].spec.vm_id
    for body, headers, status in (
        (json.dumps({"vm_id": vm_id}), {}, 401),
        (json.dumps({"vm_id": vm_id}), {"x-functions-key": site.stack.function_key + "x"}, 401),
        ("{", key, 400),
        ("[" * 5_000, key, 400),
        ("\0" * 100_000, key, 400),
        (json.dumps({"vm_id": "/subscriptions/../../$(reboot)"}), key, 400),
        (json.dumps({"vm_id": [vm_id]}), key, 400),
    ):
        async with site.http.post(url, data=body, headers=headers) as response:
            assert response.status == status, body[:100]
    reads = len(site.stack.cloud.calls.matching("arm", "get", "web-1"))
    async with site.http.post(url, data=json.dumps({"vm_id": vm_id}), headers=key) as response:
        assert response.status == 202
    await site.stack.cloud.calls.wait_for("arm", "get", vm="web-1", count=reads + 1)


async def test_live_tells_of_the_last_tick(site: Site) -> None:
    """Anybody may ask; no key, and nothing but the age."""
    async with site.http.get(f"http://127.0.0.1:{site.stack.app.port}/api/live") as response:
        body = await response.json()
    assert response.status == 200
    assert body["live"] is True
    assert 0 <= body["last_tick_age_seconds"] < 10


async def test_the_dashboard_escapes_what_a_vm_says(site: Site) -> None:
    """A name that is markup goes all the way from a VM's settings to page, JSON and alert, and stays text."""
    async with site.http.get(f"http://127.0.0.1:{site.stack.app.port}/api/fleet") as response:
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
