"""The Prober port: against a real server that is good, broken, slow or hostile, and never elsewhere."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace

import pytest
from aiohttp import web

from devcloud.listener import Listener
from tests.builders import VM_ID, a_report, a_vm_id, answers, at
from tests.fakes import FakeProber
from vm_health.model import HealthReport, ProbeOutcome, ProbeResult
from vm_health.wire import encode_report
from vm_watchdog.adapters.http_probe import MAX_BODY_BYTES, HttpProber, is_allowed
from vm_watchdog.ports import Prober

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]
PRIVATE = [
    ipaddress.ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
]
EVERYWHERE = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Endpoint:
    """A VM's endpoint that answers as the test says, and counts who came by."""

    answer: Answer | None = None
    requests: list[web.Request] = field(default_factory=list)
    url: str = ""
    port: int = 0

    def serve(self, status: int, body: str | bytes, **headers: str) -> None:
        async def fixed(_request: web.Request) -> web.StreamResponse:
            raw = body.encode() if isinstance(body, str) else body
            return web.Response(status=status, body=raw, headers=headers)

        self.answer = fixed

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        assert self.answer is not None
        return await self.answer(request)


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    served = Endpoint()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", served.handle)
    listener = Listener(app, ["127.0.0.1"], 0)
    await listener.start()
    served.url, served.port = listener.origins[0], listener.port
    yield served
    await listener.stop()


@pytest.fixture
async def prober() -> AsyncIterator[HttpProber]:
    made = HttpProber(LOOPBACK, timeout_seconds=2, concurrency=4)
    yield made
    await made.close()


@pytest.fixture(params=["fake", "http"])
def port(request: pytest.FixtureRequest, endpoint: Endpoint) -> tuple[Prober, Callable[[HealthReport], None]]:
    """Both implementations of the port, each with a way to say what is served at the endpoint's URL."""
    if request.param == "fake":
        fake = FakeProber()

        def serve_fake(report: HealthReport) -> None:
            fake.results[endpoint.url] = answers(report)

        return fake, serve_fake

    def serve_http(report: HealthReport) -> None:
        endpoint.serve(503 if report.status.exit_code == 2 else 200, encode_report(report))

    return request.getfixturevalue("prober"), serve_http


Port = tuple[Prober, Callable[[HealthReport], None]]


async def test_a_healthy_vm(port: Port, endpoint: Endpoint) -> None:
    prober, serve = port
    report = a_report(age=3.5, taken_at=at(-3.5))
    serve(report)
    assert await prober.probe(VM_ID, endpoint.url) == ProbeResult(
        ProbeOutcome.OK, "/health answered 200", report
    )


async def test_a_vm_with_a_unit_down(port: Port, endpoint: Endpoint) -> None:
    prober, serve = port
    down = a_report(down="web.service")
    serve(down)
    assert await prober.probe(VM_ID, endpoint.url) == ProbeResult(
        ProbeOutcome.UNHEALTHY, "/health answered 503", down
    )


async def test_a_report_without_an_id_is_taken(port: Port, endpoint: Endpoint) -> None:
    """An agent whose metadata service is not there knows no id; the address was ours."""
    prober, serve = port
    serve(replace(a_report(), vm_id=""))
    assert (await prober.probe(VM_ID, endpoint.url)).outcome is ProbeOutcome.OK


async def test_another_vms_report_is_no_answer(port: Port, endpoint: Endpoint) -> None:
    prober, serve = port
    serve(replace(a_report(), vm_id=a_vm_id("other")))
    result = await prober.probe(VM_ID, endpoint.url)
    assert (result.outcome, result.report) == (ProbeOutcome.UNREACHABLE, None)
    assert "another VM" in result.detail


# --- hostile and broken endpoints ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, "", "not a report"),
        (200, "ok", "not a report"),
        (200, "{}", "not a report"),
        (503, "<html>gateway</html>", "not a report"),
        (200, b"\xff\xfe\x00", "not a report"),
        (200, "[" * 40_000, "not a report"),
        (200, " " * (MAX_BODY_BYTES + 1), "more than"),
        (200, "x" * 300_000, "more than"),
        (204, "", "answered 204"),
        (404, "not here", "answered 404"),
        (500, encode_report(a_report()), "answered 500"),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_whatever_is_no_report_is_unreachable(
    endpoint: Endpoint, prober: HttpProber, status: int, body: str | bytes, says: str
) -> None:
    endpoint.serve(status, body)
    result = await prober.probe(VM_ID, endpoint.url)
    assert (result.outcome, result.report) == (ProbeOutcome.UNREACHABLE, None)
    assert says in result.detail
    assert len(result.detail) <= 200


async def test_a_redirect_is_not_followed(endpoint: Endpoint, prober: HttpProber) -> None:
    endpoint.serve(302, "", Location=f"{endpoint.url}/elsewhere")
    result = await prober.probe(VM_ID, endpoint.url)
    assert (result.outcome, result.detail) == (ProbeOutcome.UNREACHABLE, "/health answered 302")
    assert [request.path for request in endpoint.requests] == ["/health"]


async def test_a_body_without_an_end_is_cut_off(endpoint: Endpoint, prober: HttpProber) -> None:
    async def forever(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 65_536)

    endpoint.answer = forever
    result = await prober.probe(VM_ID, endpoint.url)
    assert (result.outcome, result.report) == (ProbeOutcome.UNREACHABLE, None)
    assert "more than" in result.detail


async def test_a_compressed_bomb_is_cut_off(endpoint: Endpoint, prober: HttpProber) -> None:
    async def bomb(request: web.Request) -> web.StreamResponse:
        response = web.Response(body=b" " * 50_000_000)
        response.enable_compression(web.ContentCoding.gzip)
        return response

    endpoint.answer = bomb
    result = await prober.probe(VM_ID, endpoint.url)
    assert (result.outcome, result.report) == (ProbeOutcome.UNREACHABLE, None)


async def test_an_endpoint_that_hangs_costs_the_timeout_and_no_more(endpoint: Endpoint) -> None:
    never = asyncio.Event()

    async def hang(_request: web.Request) -> web.StreamResponse:
        await never.wait()
        return web.Response()

    endpoint.answer = hang
    prober = HttpProber(LOOPBACK, timeout_seconds=0.2, concurrency=4)
    result = await asyncio.wait_for(prober.probe(VM_ID, endpoint.url), 2)
    never.set()
    await prober.close()
    assert (result.outcome, result.detail) == (ProbeOutcome.UNREACHABLE, "no answer within 0.2 s")


async def test_a_body_that_trickles_costs_the_timeout_and_no_more(endpoint: Endpoint) -> None:
    never = asyncio.Event()

    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"{")
        await never.wait()
        return response

    endpoint.answer = trickle
    prober = HttpProber(LOOPBACK, timeout_seconds=0.2, concurrency=4)
    result = await asyncio.wait_for(prober.probe(VM_ID, endpoint.url), 2)
    never.set()
    await prober.close()
    assert result.outcome is ProbeOutcome.UNREACHABLE


async def test_nobody_there(prober: HttpProber) -> None:
    result = await prober.probe(VM_ID, "http://127.0.0.1:9")
    assert (result.outcome, result.report) == (ProbeOutcome.UNREACHABLE, None)


async def test_what_is_sent_names_the_watchdog_and_no_secret(endpoint: Endpoint, prober: HttpProber) -> None:
    endpoint.serve(200, encode_report(a_report()), **{"Set-Cookie": "a=b"})
    for _ in range(2):
        await prober.probe(VM_ID, f"{endpoint.url}/ignored/path?query=1#part")
    for request in endpoint.requests:
        assert (request.method, request.path_qs) == ("GET", "/health")
        assert request.headers["User-Agent"] == "vm-watchdog"
        assert not {"Cookie", "Authorization"} & set(request.headers)


# --- where a probe may go --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        "http://127.0.0.1:{port}",
        "http://127.0.0.1.:{port}",
        "http://localhost:{port}",
        "http://127.1:{port}",
        "http://2130706433:{port}",
        "http://0x7f000001:{port}",
        "http://0177.0.0.1:{port}",
        "http://127.0.0.1%00:{port}",
        "http://１２７.0.0.1:{port}",
        "http://127。0。0。1:{port}",
        "http://[::ffff:127.0.0.1]:{port}",
        "http://[::1]:{port}",
        "http://0:{port}",
        "http://0.0.0.0:{port}",
        "http://user@127.0.0.1:{port}",
        "http://10.0.0.1@127.0.0.1:{port}",
        "http://10.0.0.1:80@127.0.0.1:{port}",
        "http://10.0.0.1\\@127.0.0.1:{port}",
        "http://127.0.0.1:{port}#@10.0.0.1",
    ],
)
async def test_no_spelling_leads_outside_the_networks(endpoint: Endpoint, form: str) -> None:
    """The endpoint comes from a VM: it must not send the watchdog to itself or to others."""
    endpoint.serve(200, encode_report(a_report()))
    prober = HttpProber(PRIVATE, timeout_seconds=1, concurrency=4)
    result = await prober.probe(VM_ID, form.format(port=endpoint.port))
    await prober.close()
    assert endpoint.requests == []
    assert result.outcome in (ProbeOutcome.NOT_CONFIGURED, ProbeOutcome.UNREACHABLE)
    assert result.report is None
    assert result.detail


@pytest.mark.parametrize(
    "text",
    [
        "",
        "web-1:8080",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "http://",
        "http:///health",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:port",
        "http://[::1",
        "http://user:password@127.0.0.1",
        "http://169.254.169.254",
        "http://[fe80::1]",
        "http://[fe80::1%25eth0]",
        "http://224.0.0.1",
        "javascript:alert(1)",
        "\x00",
    ],
)
async def test_what_is_no_endpoint_is_told_and_not_tried(text: str) -> None:
    prober = HttpProber(EVERYWHERE, timeout_seconds=1, concurrency=4)
    result = await prober.probe(VM_ID, text)
    await prober.close()
    assert (result.outcome, result.report) == (ProbeOutcome.NOT_CONFIGURED, None)
    assert result.detail


async def test_a_name_is_probed_where_its_address_is_inside_the_networks(
    endpoint: Endpoint, prober: HttpProber
) -> None:
    endpoint.serve(200, encode_report(a_report()))
    assert (await prober.probe(VM_ID, f"http://localhost:{endpoint.port}")).outcome is ProbeOutcome.OK


async def test_a_name_outside_the_networks_says_so(endpoint: Endpoint) -> None:
    prober = HttpProber(PRIVATE, timeout_seconds=1, concurrency=4)
    result = await prober.probe(VM_ID, f"http://localhost:{endpoint.port}")
    await prober.close()
    assert "no address of localhost is inside WATCHDOG_PROBE_NETWORKS" in result.detail


@pytest.mark.parametrize("host", ["web-1.invalid", "WEB_1.sub.invalid", "4web.invalid.", "x.1a.invalid"])
async def test_ordinary_names_are_tried(host: str) -> None:
    prober = HttpProber(PRIVATE, timeout_seconds=1, concurrency=4)
    result = await prober.probe(VM_ID, f"http://{host}:8080")
    await prober.close()
    assert result.outcome is ProbeOutcome.UNREACHABLE


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("10.0.0.4", True),
        ("172.16.0.1", True),
        ("172.32.0.1", False),
        ("192.168.1.1", True),
        ("fd00::4", True),
        ("::ffff:10.0.0.4", True),
        ("::ffff:8.8.8.8", False),
        ("8.8.8.8", False),
        ("127.0.0.1", False),
        ("::1", False),
        ("169.254.169.254", False),
        ("168.63.129.16", False),
        ("0.0.0.0", False),
    ],
)
def test_the_default_networks(address: str, allowed: bool) -> None:
    assert is_allowed(ipaddress.ip_address(address), PRIVATE) is allowed


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1"],
)
def test_never_probed_whatever_the_networks(address: str) -> None:
    assert not is_allowed(ipaddress.ip_address(address), EVERYWHERE)
