"""Application Insights' track endpoint in the local Azure, and the rows that it makes."""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from devcloud.cloud import CloudOptions, LocalCloud
from devcloud.faults import Fault
from tests.component.devcloud_site import Site

pytest_plugins = ["tests.component.devcloud_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="session")


class Sender:
    """Sends items marked as one test's own, and reads back the rows they became."""

    def __init__(self, site: Site, cloud: LocalCloud | None = None) -> None:
        self.site = site
        self.cloud = cloud or site.cloud
        self.mark = uuid.uuid4().hex

    def item(self, base_type: str = "EventData", time: str | None = None, **base: Any) -> dict[str, Any]:
        """A valid item, changed by ``base``."""
        own: dict[str, Any] = {
            "EventData": {"name": "vm.health"},
            "MetricData": {"metrics": [{"name": "health.status", "value": 2}]},
            "MessageData": {"message": "text", "severityLevel": 2},
        }[base_type]
        data = {"ver": 2, "properties": {"mark": self.mark}} | own | base
        return {
            "name": "Microsoft.ApplicationInsights.Item",
            "iKey": self.cloud.instrumentation_key,
            "time": time or datetime.now(UTC).isoformat(),
            "tags": {"ai.cloud.role": "vm-agent", "ai.cloud.roleInstance": "web-1"},
            "data": {"baseType": base_type, "baseData": data},
        }

    async def send(
        self, body: Any, path: str = "/v2.1/track", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """POST; anything but bytes goes as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        url = self.cloud.ingestion_url + path
        sent = {"Content-Type": "application/json"} | (headers or {})
        async with self.site.http.post(url, data=data, headers=sent) as response:
            return response.status, await response.json()

    def rows(self, table: str) -> list[dict[str, Any]]:
        """What the test's items became."""
        kql = f'{table} | where Properties.mark == "{self.mark}" | order by TimeGenerated asc'
        return self.cloud.engine.query(kql).records()


@pytest_asyncio.fixture(loop_scope="session")
async def sender(site: Site) -> AsyncIterator[Sender]:
    yield Sender(site)


async def test_three_kinds_of_items_become_rows_of_three_tables(sender: Sender) -> None:
    """One compressed array; numbers, tags and properties land in the true columns."""
    point = {"name": "health.disk", "value": 91.5, "count": 3, "min": 10, "max": 60}
    batch = [
        sender.item(name="vm.health", measurements={"disk": 91}),
        sender.item("MetricData", metrics=[point, {"name": "ignored", "value": 1}]),
        sender.item("MetricData"),
        sender.item("MessageData"),
    ]
    status, answer = await sender.send(
        gzip.compress(json.dumps(batch).encode()), headers={"Content-Encoding": "gzip"}
    )
    assert (status, answer["itemsReceived"], answer["itemsAccepted"], answer["errors"]) == (200, 4, 4, [])
    event, trace = sender.rows("AppEvents")[0], sender.rows("AppTraces")[0]
    first, second = sender.rows("AppMetrics")
    assert (event["Name"], event["AppRoleName"], event["AppRoleInstance"]) == (
        "vm.health",
        "vm-agent",
        "web-1",
    )
    assert json.loads(event["Measurements"]) == {"disk": 91.0}
    assert event["TenantId"] == sender.cloud.workspace_id
    assert abs(event["_TimeReceived"] - datetime.now(UTC)) < timedelta(seconds=10)
    assert (first["Sum"], first["ItemCount"], first["Min"], first["Max"]) == (91.5, 3, 10, 60)
    assert (second["Sum"], second["ItemCount"], second["Min"], second["Max"]) == (2, 1, 2, 2)
    assert (trace["Message"], trace["SeverityLevel"]) == ("text", 2)


async def test_one_object_a_line_on_the_old_path(sender: Sender) -> None:
    """``application/x-json-stream`` and ``/v2/track``; a single object is a batch of one."""
    stream = "\n".join(json.dumps(sender.item()) for _ in range(3)).encode()
    status, answer = await sender.send(stream, "/v2/track", {"Content-Type": "application/x-json-stream"})
    assert (status, answer["itemsAccepted"]) == (200, 3)
    assert (await sender.send(sender.item()))[0] == 200
    assert len(sender.rows("AppEvents")) == 4


async def test_a_batch_with_bad_items_is_taken_in_part(sender: Sender) -> None:
    """206: the errors carry the index of each refused item, the others are rows."""
    batch = [sender.item(), sender.item(name=""), sender.item(), sender.item() | {"iKey": "other"}]
    status, answer = await sender.send(batch)
    assert (status, answer["itemsReceived"], answer["itemsAccepted"]) == (206, 4, 2)
    assert [(error["index"], error["statusCode"]) for error in answer["errors"]] == [(1, 400), (3, 400)]
    assert "'name'" in answer["errors"][0]["message"]
    assert answer["errors"][1]["message"] == "Invalid instrumentation key"
    assert len(sender.rows("AppEvents")) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"properties": {"n": 1}}, "properties.n: got int, must be a string"),
        ({"properties": {"n": "x" * 8_193}}, "properties.n: got 8193 characters"),
        ({"properties": {"k" * 151: "x"}}, "properties: key"),
        ({"measurements": {"n": "1"}}, "n: got '1', must be a finite number"),
        ({"measurements": {"n": float("nan")}}, "n: got nan"),
        ({"name": "n" * 513}, "name: 513 characters"),
        ({"ver": 1}, "ver: got 1, must be 2"),
        ({"properties": {f"k{i}": "x" * 8_000 for i in range(9)}}, "must be at most 65536"),
    ],
)
async def test_refused_event_data(sender: Sender, change: dict[str, Any], words: str) -> None:
    """400 when no item is left, with the field and what it must be."""
    status, answer = await sender.send([sender.item(**change)])
    assert (status, answer["itemsAccepted"]) == (400, 0)
    assert words in answer["errors"][0]["message"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"time": "yesterday"}, "time: got 'yesterday'"),
        ({"time": None}, "time: got None"),
        ({"data": None}, "'data'"),
        ({"data": {"baseType": "PageViewData", "baseData": {"ver": 2}}}, "baseType: got 'PageViewData'"),
        ({"name": None}, "'name' on type 'Envelope'"),
    ],
)
async def test_refused_envelopes(sender: Sender, change: dict[str, Any], words: str) -> None:
    """The same around the data."""
    status, answer = await sender.send([sender.item() | change])
    assert status == 400
    assert words in answer["errors"][0]["message"]


@pytest.mark.parametrize("body", [b"nonsense", b"[]", b"\x1f\x8b not gzip"])
async def test_bodies_that_are_no_batch(sender: Sender, body: bytes) -> None:
    """400 for what can't be read."""
    assert (await sender.send(body))[0] == 400


@pytest.mark.parametrize(
    ("offset", "kept"),
    [
        (timedelta(hours=-47), True),
        (timedelta(hours=-49), False),
        (timedelta(hours=23), True),
        (timedelta(hours=25), False),
    ],
)
async def test_the_client_s_time_counts_within_limits(sender: Sender, offset: timedelta, kept: bool) -> None:
    """Beyond two days back or one ahead, the time of arrival stands in."""
    now = datetime.now(UTC)
    claimed = (now + offset).isoformat().replace("+00:00", "0Z")  # seven digits, as .NET writes
    assert (await sender.send([sender.item(time=claimed)]))[0] == 200
    time_generated = sender.rows("AppEvents")[0]["TimeGenerated"]
    assert abs(time_generated - (now + offset if kept else now)) < timedelta(seconds=10)


async def test_faults_of_ingestion(sender: Sender) -> None:
    """The daily cap's 439, a redirect, and a batch that is refused in part as throttled."""
    faults = sender.cloud.faults
    faults.add(Fault("ingestion", "track", status=439))
    assert (await sender.send([sender.item()]))[0] == 439
    faults.add(Fault("ingestion", "track", status=429, mode="partial"))
    status, answer = await sender.send([sender.item(), sender.item()])
    assert status == 206
    assert [(error["index"], error["statusCode"]) for error in answer["errors"]] == [(1, 429)]
    assert len(sender.rows("AppEvents")) == 1


async def test_a_token_may_be_demanded(site: Site, tmp_path: Path) -> None:
    """Entra-only: 401 without, 403 with another service's, 200 with the right one; never a bad one."""
    options = CloudOptions(require_entra=True)
    cloud = LocalCloud(tmp_path, [], options=options)
    await cloud.start()
    try:
        sender = Sender(site, cloud)
        right = f"Bearer {cloud.tokens.mint('https://monitor.azure.com').text}"
        wrong = f"Bearer {cloud.tokens.mint('https://vault.azure.net').text}"
        statuses = [
            (await sender.send([sender.item()], headers=headers))[0]
            for headers in ({}, {"Authorization": wrong}, {"Authorization": right})
        ]
    finally:
        await cloud.stop()
    assert statuses == [401, 403, 200]
    optional = Sender(site)
    assert (await optional.send([optional.item()], headers={"Authorization": "Bearer x"}))[0] == 401


async def test_the_connection_string_leads_here(site: Site) -> None:
    """Both fields that an agent reads."""
    fields = dict(part.split("=", 1) for part in site.cloud.connection_string.split(";"))
    assert fields["InstrumentationKey"] == site.cloud.instrumentation_key
    assert fields["IngestionEndpoint"] == site.cloud.ingestion_url + "/"
    assert "127.0.0.2" in site.cloud.connection_string_for("127.0.0.2")
