"""Faults over HTTP, the record of calls, listening, and the webhook sink."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import aiohttp
import pytest

from devcloud.cloud import CloudOptions, LocalCloud
from devcloud.faults import Fault, Faults
from devcloud.webhook_sink import WebhookSink
from tests.component.devcloud_site import Site

pytest_plugins = ["tests.component.devcloud_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="session")

PATH = "/_devcloud/faults"
TOKEN = "/msi/token?resource=r&api-version=2019-08-01"


async def test_faults_are_set_listed_used_and_cleared_over_http(site: Site) -> None:
    """Through one server for another; each use is spent, then the answer is normal."""
    url = site.cloud.url_for("identity")
    fault = {"service": "identity", "status": 503, "headers": {"Retry-After": "7"}, "times": 2}
    async with site.http.post(site.cloud.ingestion_url + PATH, json=fault) as response:
        assert response.status == 201
    headers = {"X-IDENTITY-HEADER": site.cloud.identity_header}
    async with site.http.get(url + TOKEN, headers=headers) as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "7")
    async with site.http.get(url + PATH) as response:
        assert [entry["times"] for entry in await response.json()] == [1]
    async with site.http.delete(url + PATH) as response:
        assert response.status == 204
    async with site.http.get(url + TOKEN, headers=headers) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"service": "armm"}, ["service: got 'armm', must be one of arm, ingestion, logs, identity"]),
        ({"service": "arm", "stauts": 429}, ["stauts: unknown"]),
        ({"status": "429", "times": 1.5}, ["service:", "status: got '429', must be int", "times: got 1.5"]),
        ({"service": "arm", "mode": "slow"}, ["mode: got 'slow', must be one of disconnect"]),
        ([], ["a fault is a JSON object, got list"]),
    ],
)
async def test_a_bad_fault_is_refused_with_every_reason(site: Site, body: object, words: list[str]) -> None:
    """All at once, and nothing is queued."""
    async with site.http.post(site.cloud.identity_url.replace("/msi/token", PATH), json=body) as response:
        assert response.status == 400
        error = (await response.json())["error"]
    assert [word for word in words if word not in error] == []
    assert site.cloud.faults.waiting() == []


async def test_first_fault_that_matches_wins() -> None:
    """Service, operation and VM must all match; order is kept."""
    faults = Faults()
    faults.add(Fault("arm", "get", "web-1", status=1))
    faults.add(Fault("arm", "*", "*", status=2, times=2))
    faults.add(Fault("arm", "run_command", status=3, times=0))
    taken = [
        faults.take("arm", "get", "WEB-1"),
        faults.take("arm", "get", "web-1"),
        faults.take("arm", "list_all"),
        faults.take("logs", "get", "web-1"),
        faults.take("arm", "run_command", "web-1"),
        faults.take("arm", "run_command_put", "web-2"),
        faults.take("arm", "run_commands_get", "web-2"),
    ]
    assert [fault.status if fault else None for fault in taken] == [1, 2, 2, None, 3, 3, None]


async def test_delay_and_disconnect(site: Site) -> None:
    """A slow answer is slow for real; a disconnect gives no answer and is recorded as none."""
    url, headers = site.cloud.url_for("identity") + TOKEN, {"X-IDENTITY-HEADER": site.cloud.identity_header}
    site.cloud.faults.add(Fault("identity", "app_service_token", delay_seconds=5))
    with pytest.raises(TimeoutError):
        await site.http.get(url, headers=headers, timeout=aiohttp.ClientTimeout(total=0.1))
    seen = len(site.cloud.calls.matching("identity", "app_service_token"))
    site.cloud.faults.add(Fault("identity", "app_service_token", mode="disconnect", times=0))
    with pytest.raises(aiohttp.ClientError):
        await site.http.get(url, headers=headers)
    calls = await site.cloud.calls.wait_for("identity", "app_service_token", count=seen + 1)
    assert calls[-1].status == 0


async def test_a_port_in_use_is_an_error_and_leaves_nothing_open(tmp_path: Path) -> None:
    """Start is all or nothing; stop may be called again."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        cloud = LocalCloud(tmp_path, [], options=CloudOptions(arm_port=taken.getsockname()[1]))
        with pytest.raises(OSError, match="in use"):
            await cloud.start()
    ports = [int(cloud.url_for(service).rpartition(":")[2]) for service in ("identity", "ingestion", "logs")]
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
    await cloud.stop()


async def test_webhook_sink_keeps_what_arrives_and_wakes_who_waits(site: Site) -> None:
    """A waiter sees the request; refusals come first and don't count as accepted."""
    sink = WebhookSink()
    await sink.start()
    try:
        sink.refuse_next(1, 429, {"Retry-After": "3"})
        waiting = asyncio.create_task(sink.wait_for(1, "team"))
        async with site.http.post(sink.hook_url("team"), json={"n": 1}) as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "3")
        assert not waiting.done()
        async with site.http.post(sink.hook_url("other"), json={}) as response:
            assert response.status == 200
        async with site.http.post(sink.hook_url("team"), json={"n": 2}, headers={"X-A": "b"}) as response:
            assert response.status == 200
        (entry,) = await waiting
        assert (entry.body, entry.headers["X-A"]) == ({"n": 2}, "b")
        async with site.http.post(sink.hook_url("team"), data=b"no json") as response:
            assert response.status == 400
        async with site.http.get(f"{sink.url}/received") as response:
            listed = [(entry["name"], entry["status"]) for entry in await response.json()]
        assert listed == [("team", 429), ("other", 200), ("team", 200)]
        with pytest.raises(TimeoutError):
            await sink.wait_for(5, timeout_seconds=0.05)
    finally:
        await sink.stop()
