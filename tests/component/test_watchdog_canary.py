"""The watchdog's own senses: its event's round trip through ingestion and query, and the way out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError

from devcloud.cloud import CloudOptions, LocalCloud
from devcloud.faults import Fault
from devcloud.listener import Listener
from tests.component.devcloud_site import Site
from tests.fake_ports import FakeCanary
from vm_health.errors import ConfigError
from vm_watchdog.adapters.canary import IngestionCanary
from vm_watchdog.adapters.dead_man import DeadManPing
from vm_watchdog.adapters.log_query import LogAnalyticsTelemetry
from vm_watchdog.ports import CANARY_ID, Canary, TickRecord

pytest_plugins = ["tests.component.devcloud_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="session")

SECRET = "s3cr3t-t0ken"
Open = Callable[..., IngestionCanary]


def moment() -> datetime:
    """Now, as exact as ingestion keeps it."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


@pytest_asyncio.fixture(loop_scope="session")
async def opened(site: Site) -> AsyncIterator[Open]:
    """Makes canaries of the local cloud, and closes them."""
    canaries: list[IngestionCanary] = []

    def make(
        connection_string: str = site.cloud.connection_string,
        credential: Any = None,
        probe_url: str = "",
        timeout_seconds: float = 5.0,
    ) -> IngestionCanary:
        canaries.append(IngestionCanary(connection_string, credential, probe_url, timeout_seconds))
        return canaries[-1]

    yield make
    for canary in canaries:
        await canary.close()


def problems(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged, with the problem where there is one."""
    return [
        f"{record.levelname} {record.getMessage()}: {getattr(record, 'problem', '')}".removesuffix(": ")
        for record in caplog.records
        if record.name.startswith("vm_watchdog.")
    ]


async def test_the_event_comes_back_through_the_fleet_query(site: Site, opened: Open) -> None:
    now = moment()
    canary: Canary = opened()
    assert canary.sends
    await canary.send(now)
    telemetry = LogAnalyticsTelemetry(site.logs, site.cloud.workspace_id, timedelta(hours=1))
    found = await telemetry.newest_snapshots()
    assert found.canary_at == now
    assert CANARY_ID not in found.snapshots


async def test_both_send_only_where_they_are_told_to(opened: Open) -> None:
    fake = FakeCanary()
    for canary in (fake, opened("")):
        assert not canary.sends
        await canary.send(moment())
        assert await canary.egress_problem() == ""
    assert fake.sent == []


@pytest.mark.parametrize("text", [SECRET, f"InstrumentationKey={SECRET};IngestionEndpoint=https://x.example"])
async def test_a_connection_string_that_is_none_is_named_and_not_repeated(opened: Open, text: str) -> None:
    with pytest.raises(ConfigError, match="InstrumentationKey=<uuid>") as refused:
        opened(text)
    assert SECRET not in str(refused.value)


async def test_where_only_tokens_count_one_is_sent(
    site: Site, opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cloud = LocalCloud(tmp_path, [], options=CloudOptions(require_entra=True))
    await cloud.start()

    class OwnIdentity:
        """A token of that cloud for whatever is asked for."""

        def __init__(self) -> None:
            self.scopes: list[str] = []

        async def get_token(self, *scopes: str, **_options: object) -> AccessToken:
            self.scopes += scopes
            minted = cloud.tokens.mint("https://monitor.azure.com")
            return AccessToken(minted.text, minted.expires_on)

    identity = OwnIdentity()
    try:
        await opened(cloud.connection_string).send(moment())
        assert "answered 401" in problems(caplog)[0]
        caplog.clear()
        await opened(cloud.connection_string, identity).send(moment())
    finally:
        await cloud.stop()
    assert problems(caplog) == []
    assert identity.scopes == ["https://monitor.azure.com/.default"]


@pytest.mark.parametrize(
    "error", [ClientAuthenticationError("no identity here"), RuntimeError(SECRET), TimeoutError()]
)
async def test_without_a_token_nothing_is_sent_and_nothing_raised(
    site: Site, opened: Open, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    class NoIdentity:
        async def get_token(self, *_scopes: str, **_options: object) -> AccessToken:
            raise error

    await opened(credential=NoIdentity()).send(moment())
    (told,) = problems(caplog)
    assert told.startswith("WARNING the watchdog's own event is not sent")
    assert SECRET not in told


async def test_trouble_is_told_when_it_begins_changes_and_ends(
    site: Site, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    canary = opened()
    caplog.set_level(logging.INFO, "vm_watchdog")
    site.cloud.faults.add(Fault("ingestion", status=503, times=3))
    site.cloud.faults.add(Fault("ingestion", status=439, times=2))
    for _ in range(6):
        await canary.send(moment())
    host = site.cloud.ingestion_url.partition("://")[2]
    assert problems(caplog) == [
        f"WARNING the watchdog's own event is not sent: {host} answered 503",
        f"WARNING the watchdog's own event is not sent: {host} answered 439",
        "INFO the watchdog's own event is sent again",
    ]
    assert site.cloud.instrumentation_key not in caplog.text


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("ingestion", mode="disconnect"), "ServerDisconnectedError"),
        (Fault("ingestion", delay_seconds=30), "no answer within 0.3 s"),
        (
            Fault("ingestion", status=307, headers={"Location": "https://evil.example/"}),
            "that is not Azure's",
        ),
        (Fault("ingestion", status=308), "that is not Azure's"),
        (Fault("ingestion", status=307, headers={"Location": "/v2.1/track"}, times=9), "too many redirects"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.mode or str(value.status),
)
async def test_whatever_goes_wrong_is_told_and_never_raised(
    site: Site, opened: Open, caplog: pytest.LogCaptureFixture, fault: Fault, said: str
) -> None:
    site.cloud.faults.add(fault)
    await opened(timeout_seconds=0.3 if fault.delay_seconds else 5.0).send(moment())
    (told,) = problems(caplog)
    assert said in told


async def test_a_redirect_within_the_same_origin_is_followed(
    site: Site, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    site.cloud.faults.add(Fault("ingestion", status=307, headers={"Location": "/v2/track"}))
    await opened().send(moment())
    assert problems(caplog) == []


# --- the way out, and the monitor outside ----------------------------------------------------------------


@dataclass
class Outside:
    """A web server that answers with ``status``, or as slowly as the test likes."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    answer: Callable[[], Awaitable[None]] | None = None

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.method} {request.path_qs}")
        if self.answer is not None:
            await self.answer()
        return web.Response(status=self.status, headers=self.headers, text="x" * 10_000)


@pytest_asyncio.fixture(loop_scope="session")
async def outside() -> AsyncIterator[Outside]:
    served = Outside()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", served.handle)
    listener = Listener(app, ["127.0.0.1"], 0)
    await listener.start()
    served.url = listener.origins[0]
    yield served
    await listener.stop()


@pytest.mark.parametrize("status", [200, 204, 301, 302, 401, 404, 429])
async def test_any_answer_below_500_shows_the_way_out(opened: Open, outside: Outside, status: int) -> None:
    outside.status, outside.headers = status, {"Location": f"{outside.url}/elsewhere"}
    canary = opened("", probe_url=f"{outside.url}/known")
    assert await canary.egress_problem() == ""
    assert outside.asked == ["GET /known"]


async def test_a_way_out_that_is_none_is_told_each_time(opened: Open, outside: Outside) -> None:
    outside.status = 502
    canary = opened("", probe_url=f"{outside.url}/{SECRET}")
    for _ in range(2):
        assert await canary.egress_problem() == "127.0.0.1 can't be reached: it answered 502"


async def test_an_address_where_nobody_listens(opened: Open) -> None:
    problem = await opened("", probe_url=f"http://127.0.0.1:9/{SECRET}").egress_problem()
    assert problem.startswith("127.0.0.1 can't be reached: ClientConnectorError")
    assert SECRET not in problem
    assert len(problem) < 300


async def test_an_address_that_never_answers(opened: Open, outside: Outside) -> None:
    outside.answer = never
    canary = opened("", probe_url=outside.url, timeout_seconds=0.2)
    assert await canary.egress_problem() == "127.0.0.1 can't be reached: no answer within 0.2 s"


async def never() -> None:
    """Answers when the other side has gone."""
    await asyncio.Event().wait()


A_TICK = TickRecord(datetime(2026, 11, 24, tzinfo=UTC), datetime(2026, 11, 24, tzinfo=UTC), 3)


async def test_the_monitor_is_pinged_once_a_tick(outside: Outside, caplog: pytest.LogCaptureFixture) -> None:
    ping = DeadManPing(f"{outside.url}/ping/{SECRET}?rid=1", timeout_seconds=5.0)
    for _ in range(2):
        await ping.ping(A_TICK)
    await ping.close()
    assert outside.asked == [f"GET /ping/{SECRET}?rid=1"] * 2
    assert problems(caplog) == []


async def test_without_an_address_there_is_no_ping(caplog: pytest.LogCaptureFixture) -> None:
    ping = DeadManPing("", timeout_seconds=5.0)
    await ping.ping(A_TICK)
    await ping.close()
    assert problems(caplog) == []


async def test_a_ping_that_fails_is_told_once_and_without_its_address(
    outside: Outside, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vm_watchdog")
    ping = DeadManPing(f"{outside.url}/{SECRET}", timeout_seconds=0.2)
    for status in (404, 404, 302, 200):
        outside.status = status
        await ping.ping(A_TICK)
    outside.answer = never
    await ping.ping(A_TICK)
    for url in (f"http://127.0.0.1:9/{SECRET}", f"http://{SECRET}.invalid:port/", f"{SECRET}"):
        other = DeadManPing(url, timeout_seconds=0.2)
        await other.ping(A_TICK)
        await other.close()
    await ping.close()
    assert problems(caplog)[:4] == [
        "WARNING the outside monitor was not pinged: it answered 404",
        "WARNING the outside monitor was not pinged: it answered 302",
        "INFO the outside monitor is pinged again",
        "WARNING the outside monitor was not pinged: no answer within 0.2 s",
    ]
    assert len(problems(caplog)) == 7
    assert SECRET not in caplog.text + "".join(problems(caplog))
