"""Telemetry against a real server: what is sent, kept, sent again, dropped, and with which token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.component.agent_site import KEY, VM_ID, Playback, Reply, Request, until
from vm_agent.aggregate import Aggregates, Series
from vm_agent.imds import MONITOR_RESOURCE, Imds, TokenCache
from vm_agent.spool import Spool
from vm_agent.telemetry import Telemetry
from vm_agent.urls import connection_string
from vm_health.backoff import BackoffPolicy
from vm_health.model import HealthReport, MemorySample, Sample, Status

pytest_plugins = ["tests.component.agent_fixtures"]
TAKEN_AT = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
REPORT = HealthReport(
    VM_ID, "vm1", "0.1.0", "boot", 1, Status.HEALTHY, (), Sample(TAKEN_AT, memory=MemorySample(2, 1, 50.0))
)
METRICS = Aggregates(
    VM_ID, "vm1", "0.1.0", TAKEN_AT, (Series("health.memory_usage", "", "", 2, 99.0, 49.0, 50.0),)
)
Start = Callable[..., Telemetry]


@pytest.fixture
def start(server: Playback, tmp_path: Path) -> Iterator[Start]:
    """Start telemetry towards ``server``, with retries that take no time."""
    started = []

    def begin(tokens: TokenCache | None = None, now: datetime = TAKEN_AT) -> Telemetry:
        found = Telemetry(
            connection_string(server.connection_string),
            tokens,
            Spool(str(tmp_path / "spool"), 1_000_000),
            retries=BackoffPolicy((0.02,), 0.2),
            now=lambda: now,
        )
        started.append(found)
        found.start()
        return found

    yield begin
    for telemetry in started:
        telemetry.stop(5)


def submit_both(telemetry: Telemetry) -> None:
    """Queue an event and a metric that go out together."""
    telemetry.submit(REPORT)
    telemetry.submit_metrics(METRICS)


def names(request: Request) -> list[str]:
    found = [item["data"]["baseData"] for item in request.items()]
    return [str(data["metrics"][0]["name"] if "metrics" in data else data["name"]) for data in found]


def test_a_report_and_metrics_arrive_whole(start: Start, server: Playback) -> None:
    telemetry = start()
    submit_both(telemetry)
    until(lambda: telemetry.counts.sent == 2)
    assert {request.headers["content-encoding"] for request in server.requests} == {"gzip"}
    assert [name for request in server.requests for name in names(request)] == [
        "vm.health",
        "health.memory_usage",
    ]
    items = [item for request in server.requests for item in request.items()]
    assert {item["iKey"] for item in items} == {KEY}
    assert items[1]["data"]["baseData"]["metrics"] == [
        {"name": "health.memory_usage", "value": 99.0, "count": 2, "min": 49.0, "max": 50.0}
    ]
    assert items[0]["data"]["baseData"]["measurements"]["telemetry_dropped"] == 0.0


def test_206_sends_only_the_retryable_item_again(server: Playback, tmp_path: Path) -> None:
    errors = [
        {"index": 1, "statusCode": 429, "message": "busy"},
        {"index": 0, "statusCode": 400, "message": "bad"},
    ]
    server.replies = [Reply(206, {"itemsReceived": 2, "itemsAccepted": 0, "errors": errors})]
    telemetry = by_hand(server, tmp_path)
    submit_both(telemetry)
    telemetry.turn()
    assert (telemetry.counts.refused, telemetry.counts.waiting) == (1, 1)
    telemetry.turn()
    assert [names(request) for request in server.requests] == [
        ["vm.health", "health.memory_usage"],
        ["health.memory_usage"],
    ]
    assert (telemetry.counts.sent, telemetry.counts.dropped, telemetry.counts.waiting) == (1, 1, 0)


@pytest.mark.parametrize("status", [401, 403, 408, 429, 500, 503, 404])
def test_a_refusal_that_may_pass_is_sent_again_with_its_own_time(
    start: Start, server: Playback, status: int
) -> None:
    server.replies = [Reply(status, headers={"Retry-After": "0"}), Reply(status)]
    telemetry = start()
    telemetry.submit(REPORT)
    until(lambda: telemetry.counts.sent == 1)
    first, _, last = server.requests
    assert first.items() == last.items()
    assert {item["time"] for item in last.items()} == {"2026-11-24T12:00:00.000Z"}
    assert telemetry.counts.retried == 2


def test_retry_after_is_waited_for(start: Start, server: Playback) -> None:
    """The service's word outweighs our own backoff, and a new report does not shorten it."""
    server.replies = [Reply(429, headers={"Retry-After": "3600"})]
    telemetry = start()
    telemetry.submit(REPORT)
    until(lambda: telemetry.counts.retried == 1)
    telemetry.submit(REPORT)
    assert until(lambda: telemetry.counts.waiting == 2)
    telemetry.stop(5)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 402, 439])
def test_a_refusal_for_good_is_dropped_and_the_next_report_goes_out(
    start: Start, server: Playback, status: int
) -> None:
    server.replies = [Reply(status)]
    telemetry = start()
    telemetry.submit(REPORT)
    until(lambda: telemetry.counts.dropped == 1)
    telemetry.submit(REPORT)
    until(lambda: telemetry.counts.sent == 1)
    assert len(server.requests) == 2
    last = server.requests[1].items()[0]["data"]["baseData"]
    assert last["measurements"]["telemetry_dropped"] == 1.0  # the report says so


def test_a_redirect_elsewhere_is_not_followed(start: Start, server: Playback) -> None:
    server.replies = [Reply(307, headers={"Location": "http://127.0.0.2:1/v2.1/track"})]
    telemetry = start()
    telemetry.submit(REPORT)
    until(lambda: telemetry.counts.sent == 1)
    assert len(server.requests) == 2


def test_a_redirect_on_the_same_host_is_followed_and_kept(start: Start, server: Playback) -> None:
    server.replies = [Reply(308, headers={"Location": "/v2/track"})]
    telemetry = start()
    telemetry.submit(REPORT)
    until(lambda: telemetry.counts.sent == 1)
    telemetry.submit(REPORT)
    until(lambda: telemetry.counts.sent == 2)
    assert [request.path for request in server.requests] == ["/v2.1/track", "/v2/track", "/v2/track"]


def by_hand(server: Playback, tmp_path: Path, now: Callable[[], datetime] = lambda: TAKEN_AT) -> Telemetry:
    """Telemetry without its thread: the test takes the turns."""
    return Telemetry(
        connection_string(server.connection_string),
        None,
        Spool(str(tmp_path / "spool"), 1_000_000),
        retries=BackoffPolicy((0.000001,)),
        now=now,
    )


@pytest.mark.parametrize(
    ("later", "sent"),
    [
        (timedelta(hours=47, minutes=59), 1),
        (timedelta(hours=48, minutes=1), 0),  # ingestion would stamp it anew
        (timedelta(hours=-23, minutes=-59), 1),
        (timedelta(hours=-24, minutes=-1), 0),  # the clock was set back: it would be stamped anew, too
    ],
)
def test_an_item_whose_time_would_not_be_kept_is_not_sent(
    server: Playback, tmp_path: Path, later: timedelta, sent: int
) -> None:
    telemetry = by_hand(server, tmp_path, lambda: TAKEN_AT + later)
    telemetry.submit(REPORT)
    telemetry.turn()
    assert len(server.requests) == sent
    assert (telemetry.counts.sent, telemetry.counts.expired, telemetry.counts.dropped) == (
        sent,
        1 - sent,
        1 - sent,
    )
    assert telemetry.counts.waiting == 0


def test_what_could_not_be_sent_goes_out_after_a_restart(
    start: Start, server: Playback, tmp_path: Path
) -> None:
    server.default = lambda request: Reply(503, headers={"Retry-After": "3600"})
    telemetry = start()
    submit_both(telemetry)
    until(lambda: telemetry.counts.retried and telemetry.counts.waiting == 2)
    telemetry.stop(5)
    spooled = b"".join(file.read_bytes() for file in (tmp_path / "spool").iterdir())
    assert b"vm.health" in spooled
    assert KEY.encode() not in spooled
    telemetry._spool.close()  # as the kernel does for a process that has ended
    server.requests.clear()
    server.default = lambda request: Reply()
    again = start()
    until(lambda: again.counts.sent == 2)
    items = [item for request in server.requests for item in request.items()]
    assert [item["time"] for item in items] == ["2026-11-24T12:00:00.000Z"] * 2
    assert not list((tmp_path / "spool").iterdir())


def test_without_a_directory_it_sends_and_says_what_is_wrong(server: Playback, tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("no directory")
    telemetry = by_hand(server, tmp_path)
    telemetry.submit(REPORT)
    telemetry.turn()
    assert telemetry.counts.sent == 1
    assert "telemetry waits in memory" in telemetry.problem


def test_no_network_at_boot_loses_nothing(start: Start, server: Playback) -> None:
    server.close()  # nobody listens on that port any more
    telemetry = start()
    telemetry.submit(REPORT)
    until(lambda: telemetry.counts.retried >= 4)
    telemetry.stop(5)
    assert telemetry.counts.dropped == 0
    assert telemetry.counts.waiting == 1


def test_entra_token_comes_from_the_metadata_service_and_is_renewed_when_refused(
    start: Start, server: Playback
) -> None:
    given = []

    def answer(request: Request) -> Reply:
        if request.path.startswith("/metadata/"):
            given.append(request)
            return Reply(
                200, {"access_token": f"token{len(given)}", "expires_in": "86400", "expires_on": "1"}
            )
        return Reply(200 if request.headers["authorization"] == "Bearer token2" else 401)

    server.default = answer
    telemetry = start(TokenCache(Imds(server.url), MONITOR_RESOURCE))
    telemetry.submit(REPORT)
    until(lambda: telemetry.counts.sent == 1)
    telemetry.submit(REPORT)
    until(lambda: telemetry.counts.sent == 2)
    assert len(given) == 2  # one refused, one kept for both reports
    assert given[0].path == (
        "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://monitor.azure.com/"
    )
    assert given[0].headers["metadata"] == "true"


def test_a_token_is_renewed_five_minutes_before_it_ends(server: Playback) -> None:
    server.replies = [Reply(200, {"access_token": name, "expires_in": "1000"}) for name in ("one", "two")]
    clock = [0.0]
    tokens = TokenCache(Imds(server.url), MONITOR_RESOURCE, lambda: clock[0])
    assert tokens.token() == "one"
    clock[0] = 699.0
    assert tokens.token() == "one"
    clock[0] = 700.0
    assert tokens.token() == "two"
