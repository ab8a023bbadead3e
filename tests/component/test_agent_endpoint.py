"""The endpoint of a running agent, asked as monitors, scrapers, people and enemies ask."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open

from devcloud.tls import make_certificates
from tests.component.agent_site import Agent, Site, shown, until
from tests.component.endpoint_client import (
    GET_HEALTH,
    Footprint,
    allow_open_files,
    connect,
    health,
    open_connections,
    read_all,
    read_reply,
    send,
)
from vm_health.wire import decode_report

pytest_plugins = ["tests.component.agent_fixtures"]
TOKEN = "correct-horse-battery"
QUIET = "3600"  # one sample: nothing in the process moves but the endpoint


@pytest.fixture
def agent(place: Site) -> Agent:
    """An agent that has looked once and found all well."""
    found = place.run_agent(VM_AGENT_SAMPLE_INTERVAL_SECONDS=QUIET)
    until(lambda: found.ask("/health")[0] == 200)
    return found


def test_head_answers_as_get_without_a_body(agent: Agent) -> None:
    with connect(agent.port) as connection:
        connection.sendall(b"HEAD /metrics HTTP/1.1\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n")
        head, get = read_reply(connection, "HEAD"), read_reply(connection)
    moving = ("date", "content-length")
    assert head.status == get.status == 200
    assert abs(int(head.headers["content-length"]) - len(get.body)) < 10  # the age may gain a digit
    assert [{k: v for k, v in found.headers.items() if k not in moving} for found in (head, get)] == [
        {k: v for k, v in get.headers.items() if k not in moving}
    ] * 2


def test_strict_turns_a_warning_to_503(place: Site) -> None:
    agent = place.run_agent(VM_AGENT_HEARTBEAT_FILES=str(place.directory / "never-written"))
    until(lambda: agent.ask("/health")[0] == 200)
    assert [agent.ask(path)[0] for path in ("/health", "/health?strict=1", "/health?strict=0")] == [
        200,
        503,
        200,
    ]
    place.systemd_says(shown("failed/failed", 0))
    until(lambda: agent.ask("/health")[0] == 503)


def test_prometheus_gets_its_format_by_accept(agent: Agent) -> None:
    ask = (
        b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1\r\n\r\n"
    )
    with connect(agent.port) as connection:
        connection.sendall(ask)
        reply = read_reply(connection)
    assert reply.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in read_open(reply.body.decode())}
    up = families["vm_health_service_active"]
    assert [(sample.labels, sample.value) for sample in up.samples] == [({"unit": "web.service"}, 1)]


def test_connections_are_kept_and_requests_sent_ahead_are_answered_in_order(agent: Agent) -> None:
    targets = [b"/health", b"/nowhere", b"/metrics", b"http://vm:1/health?strict=1", b"/health?strict=x"] * 40
    with connect(agent.port) as connection:
        connection.sendall(b"".join(b"GET %b HTTP/1.1\r\n\r\n" % target for target in targets))
        assert [read_reply(connection).status for _ in targets] == [200, 404, 200, 200, 400] * 40
        connection.sendall(b"\r\n" + GET_HEALTH[:20])
        connection.sendall(GET_HEALTH[20:])
        assert read_reply(connection).headers["connection"] == "keep-alive"
        connection.sendall(b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n" + GET_HEALTH)
        assert read_reply(connection).headers["connection"] == "close"
        assert read_all(connection) == b""


MALFORMED = [
    (b"GET /health HTTP/1.1\r\nX: " + b"x" * 9000, b"431"),
    (b"G" * 9000, b"431"),
    (b"nonsense\r\n\r\n", b"400"),
    (b"GET /health HTTP/1.0\n\n", b"400"),
    (b"GET /health HTTP/9.9\r\n\r\n", b"505"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505"),
    (b"GET / HTTP/1.1\r\n" + b"".join(b"H%d: 1\r\n" % number for number in range(150)) + b"\r\n", b"431"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
    (b"GET /\0 HTTP/1.1\r\n\r\n", b"400"),
    (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET_HEALTH, b"501"),
    (b"GET / HTTP/1.1\r\nContent-Length: 44\r\n\r\n" + GET_HEALTH, b"413"),
    (b"POST /health HTTP/1.1\r\nContent-Length: 44\r\n\r\n" + GET_HEALTH, b"405"),
]


@pytest.mark.parametrize(("sent", "status"), MALFORMED)
def test_what_is_no_proper_request_gets_one_answer_and_the_end(
    agent: Agent, sent: bytes, status: bytes
) -> None:
    answer = send(agent.port, sent)
    assert (answer.split()[1], answer.count(b"HTTP/1.1 ")) == (status, 1)
    assert b"\r\nServer: vm-agent\r\n" in answer
    assert b"\r\nConnection: close\r\n" in answer


def test_a_refusal_arrives_though_the_client_goes_on_sending(agent: Agent) -> None:
    with connect(agent.port) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000)
        assert read_reply(connection).status == 405


def test_a_request_that_drips_in_is_ended_and_holds_up_nobody(place: Site) -> None:
    agent = place.run_agent(VM_AGENT_REQUEST_TIMEOUT_SECONDS="0.3", VM_AGENT_SAMPLE_INTERVAL_SECONDS=QUIET)
    stop = threading.Event()
    with connect(agent.port) as slow:

        def drip() -> None:
            for byte in GET_HEALTH * 100:
                try:
                    slow.send(bytes([byte]) if byte > 13 else b"x")
                except OSError:
                    return
                if stop.wait(0.02):
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        assert health(agent.port).body
        assert read_reply(slow).status == 408
        stop.set()
        dripping.join()


def test_a_connection_that_says_nothing_is_closed_in_time(place: Site) -> None:
    agent = place.run_agent(VM_AGENT_IDLE_TIMEOUT_SECONDS="0.3", VM_AGENT_SAMPLE_INTERVAL_SECONDS=QUIET)
    with connect(agent.port) as fresh, connect(agent.port) as used:
        used.sendall(GET_HEALTH)
        assert read_reply(used).body
        assert (read_all(fresh), read_all(used)) == (b"", b"")


def test_beyond_its_room_the_longest_silent_connection_gives_way(place: Site) -> None:
    agent = place.run_agent(VM_AGENT_MAX_CONNECTIONS="10", VM_AGENT_SAMPLE_INTERVAL_SECONDS=QUIET)
    with connect(agent.port) as first:
        first.sendall(GET_HEALTH)
        read_reply(first)
        others = [connect(agent.port) for _ in range(9)]
        for other in others:  # an answer shows that the server has let it in, one after the other
            other.sendall(GET_HEALTH)
            read_reply(other)
        first.sendall(GET_HEALTH)
        read_reply(first)  # no longer the one that was silent longest
        with connect(agent.port) as extra:
            extra.sendall(GET_HEALTH)
            assert read_reply(extra).body
            assert others[0].recv(1) == b""
            first.sendall(GET_HEALTH)
            assert read_reply(first).body
        for connection in others:
            connection.close()
    numbers = json.loads(agent.ask("/metrics")[2])["agent"]
    assert numbers["http_closed_for_room"] == 1


def test_a_thousand_idle_connections_cost_next_to_nothing(agent: Agent) -> None:
    allow_open_files(1500)
    with connect(agent.port) as asking:
        until(lambda: open_connections(asking) == 1)
        before = Footprint.of(agent.process.pid)
        idle = [connect(agent.port) for _ in range(1000)]
        until(lambda: open_connections(asking) == 1001)
        for _ in range(20):
            assert health(agent.port).body
        until(lambda: open_connections(asking) == 1001)
        during = Footprint.of(agent.process.pid)
        assert during.rss_bytes - before.rss_bytes < 2_000_000
        assert (during.threads, during.files) == (before.threads, before.files + 1000)
        for connection in idle:
            connection.close()
        until(lambda: open_connections(asking) == 1)
        assert Footprint.of(agent.process.pid).files == before.files


def test_who_sends_but_never_reads_is_not_answered_into_memory(agent: Agent) -> None:
    before = Footprint.of(agent.process.pid)
    with connect(agent.port) as greedy:
        greedy.setblocking(False)
        sent = 0
        ask = b"GET /?format=html HTTP/1.1\r\n\r\n" * 200
        while sent < 20_000_000:
            try:
                sent += greedy.send(ask)
            except BlockingIOError:  # the server has stopped to read
                break
            assert health(agent.port).body
        assert sent < 20_000_000
        assert health(agent.port).body
        assert Footprint.of(agent.process.pid).rss_bytes - before.rss_bytes < 2_000_000


def test_the_token_guards_page_and_metrics_and_is_never_logged(place: Site) -> None:
    agent = place.run_agent(VM_AGENT_TOKEN=TOKEN)
    until(lambda: agent.ask("/health")[0] == 200)
    status, headers, _ = agent.ask("/metrics")
    assert (status, "www-authenticate" in headers, agent.ask("/")[0]) == (401, True, 401)
    with connect(agent.port) as connection:
        connection.sendall(f"GET /metrics HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        assert read_reply(connection).status == 200
    assert TOKEN not in agent.log()


@pytest.fixture
def pki(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A CA, and a certificate with its key for 127.0.0.1."""
    found = make_certificates(tmp_path / "pki", ["127.0.0.1"])
    return Path(found.ca_file), Path(found.cert_file), Path(found.key_file)


def test_tls_serves_the_same_and_survives_who_does_not_speak_it(
    place: Site, pki: tuple[Path, Path, Path]
) -> None:
    ca_file, cert_file, key_file = pki
    agent = place.run_agent(
        VM_AGENT_TLS_CERT_FILE=str(cert_file),
        VM_AGENT_TLS_KEY_FILE=str(key_file),
        VM_AGENT_REQUEST_TIMEOUT_SECONDS="1",
    )
    port = int(agent.log().split("health=https://127.0.0.1:")[1].split("/")[0])
    trusting = ssl.create_default_context(cafile=str(ca_file))
    with connect(port) as silent, connect(port) as stuck:
        stuck.sendall(b"\x16\x03\x01\x02\x00")  # begins a handshake and leaves it at that
        assert send(port, GET_HEALTH).split()[1] == b"400"
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP" not in send(port, b"\x16" * 3000)
        with trusting.wrap_socket(connect(port), server_hostname="127.0.0.1") as connection:

            def endpoint() -> str:
                connection.sendall(GET_HEALTH * 30)
                return [decode_report(read_reply(connection).body.decode()).endpoint for _ in range(30)][-1]

            assert until(endpoint) == f"https://127.0.0.1:{port}"
            connection.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
            assert read_reply(connection, "HEAD").status == 200
            assert read_all(connection) == b""
        assert stuck.recv(100) == b""  # within the time for a request
        silent.setblocking(False)
        with pytest.raises(BlockingIOError):
            silent.recv(1)  # while the one that has said nothing may stay


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"VM_AGENT_TLS_CERT_FILE": "{cert}"}, "VM_AGENT_TLS_KEY_FILE must be set too"),
        ({"VM_AGENT_TLS_KEY_FILE": "{key}"}, "VM_AGENT_TLS_CERT_FILE must be set too"),
        (
            {"VM_AGENT_TLS_CERT_FILE": "{cert}", "VM_AGENT_TLS_KEY_FILE": "/nowhere/key"},
            "VM_AGENT_TLS_KEY_FILE must be a file that vm-agent may read, was /nowhere/key",
        ),
        (
            {"VM_AGENT_TLS_CERT_FILE": "{key}", "VM_AGENT_TLS_KEY_FILE": "{key}"},
            "must be a certificate chain and its key without password in PEM",
        ),
        (
            {"VM_AGENT_TOKEN": "short"},
            "VM_AGENT_TOKEN must be 16 to 512 plain ASCII characters, was a secret",
        ),
        (
            {"VM_AGENT_LISTEN_ADDRESS": "192.0.2.77"},
            "VM_AGENT_LISTEN_ADDRESS must be an address of this machine",
        ),
    ],
)
def test_what_can_not_work_is_told_at_start_with_its_setting(
    place: Site, pki: tuple[Path, Path, Path], settings: dict[str, str], fault: str
) -> None:
    _, cert_file, key_file = pki
    given = {name: text.format(cert=cert_file, key=key_file) for name, text in settings.items()}
    done = place.command("run", **{"VM_AGENT_LISTEN_PORT": "0", **given})
    assert done.returncode == 3
    assert fault in done.stderr
    assert "Traceback" not in done.stderr


def test_every_address_is_served_over_both_families(place: Site) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
    agent = place.run_agent(VM_AGENT_LISTEN_ADDRESS="::", VM_AGENT_ENDPOINT="http://127.0.0.1:1")
    listening = Path(f"/proc/{agent.process.pid}/net/tcp6").read_text().splitlines()
    owned = {target for fd in Path(f"/proc/{agent.process.pid}/fd").iterdir() if (target := _link(fd))}
    port = next(
        int(row.split()[1].split(":")[1], 16)
        for row in listening[1:]
        if f"socket:[{row.split()[9]}]" in owned
    )
    for address in ("::1", "127.0.0.1"):
        with connect(port, address) as connection:
            connection.sendall(GET_HEALTH)
            assert read_reply(connection).body


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""
