"""The endpoint's parts in this process, where a test can break them."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devcloud.tls import Certificates, make_certificates
from tests.component.agent_site import until
from tests.component.endpoint_client import GET_HEALTH, connect, health, read_reply
from tests.unit.agent_builders import NOW
from vm_agent.board import Board, empty_report
from vm_agent.config import load
from vm_agent.endpoint import Endpoint
from vm_agent.http_answer import Answer, sentence
from vm_agent.http_connection import Patience
from vm_agent.http_request import Request
from vm_agent.http_server import Server
from vm_agent.tls import Certificate, TlsStream


class Running:
    """A server on a free port, run by a thread."""

    def __init__(self, answer: Callable[[Request], Answer]) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(listener.getsockname()[1])
        self.server = Server(listener, answer, 100, Patience())
        self._thread = threading.Thread(target=self.server.run)
        self._thread.start()

    def close(self) -> None:
        self.server.stop()
        self._thread.join(5)
        assert not self._thread.is_alive()


def answer_or_break(request: Request) -> Answer:
    if request.path == "/break":
        raise RuntimeError("a fault of ours")
    if request.path == "/broken-answer":
        return Answer(200, "text/plain", ("not bytes",))  # type: ignore[arg-type]
    return sentence(200, request.path)


@pytest.fixture
def running() -> Iterator[Running]:
    found = Running(answer_or_break)
    yield found
    found.close()


def test_a_request_that_breaks_is_answered_500_and_ends_nothing(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(running.port) as connection:
        connection.sendall(b"GET /break HTTP/1.1\r\n\r\n" * 50 + b"GET /fine HTTP/1.1\r\n\r\n")
        replies = [read_reply(connection) for _ in range(51)]
        assert [reply.status for reply in replies] == [500] * 50 + [200]
        assert replies[-1].body == b"/fine\n"
    with connect(running.port) as connection:
        connection.sendall(b"GET /broken-answer HTTP/1.1\r\n\r\n")
        assert connection.recv(1) == b""
    assert health(running.port).status == 200
    faults = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.message for record in faults] == ["a request broke"]  # told once a minute, not 51 times
    assert running.server.counts.failed == 50


def test_stopping_closes_port_and_connections() -> None:
    found = Running(answer_or_break)
    with connect(found.port) as connection:
        connection.sendall(GET_HEALTH)
        assert read_reply(connection).status == 200
        found.close()
        assert connection.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            connect(found.port)


def polls() -> set[int]:
    """The epoll instances of this process."""
    return {int(fd.name) for fd in Path("/proc/self/fd").iterdir() if "eventpoll" in os.path.realpath(fd)}


def test_a_dying_server_thread_is_told() -> None:
    board = Board(empty_report("vm1", "", "", NOW), 60.0)
    config = load({"VM_AGENT_LISTEN_ADDRESS": "127.0.0.1", "VM_AGENT_LISTEN_PORT": "0"})
    before = polls()
    endpoint = Endpoint(config, board, dict)
    (poll,) = polls() - before
    broken = threading.Event()
    endpoint.start(broken.set)
    assert health(endpoint.port).status == 503
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "endpoint")
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), poll)  # what no request can do: the loop's own epoll is gone
    with contextlib.suppress(OSError), connect(endpoint.port):
        assert broken.wait(5)
    assert broken.wait(5)
    thread.join(5)
    with pytest.raises(ConnectionRefusedError):
        connect(endpoint.port)
    endpoint.close()


def test_a_renewed_certificate_is_used_and_a_broken_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (make_certificates(tmp_path / name, ["127.0.0.1"]) for name in ("first", "second"))
    used = tmp_path / "used"
    shutil.copytree(tmp_path / "first", used)
    seconds = 0.0
    certificate = Certificate(str(used / "server.pem"), str(used / "server.key"), lambda: seconds)
    serial = serial_seen(certificate, first)
    shutil.copy(second.cert_file, used / "server.pem")  # the key is not there yet
    seconds = 11.0
    assert serial_seen(certificate, first) == serial
    assert "KEY_VALUES_MISMATCH" in str([vars(record) for record in caplog.records])
    shutil.copy(second.key_file, used / "server.key")
    seconds = 22.0
    assert serial_seen(certificate, second) != serial


def serial_seen(certificate: Certificate, trusted: Certificates) -> object:
    """Shake hands over a socket pair and return the serial number that was shown."""
    near, far = socket.socketpair()
    trusting = ssl.create_default_context(cafile=str(trusted.ca_file))
    stream = TlsStream(far, certificate)
    far.setblocking(False)
    shown: list[object] = []

    def shake() -> None:
        with trusting.wrap_socket(near, server_hostname="127.0.0.1") as connection:
            shown.append((connection.getpeercert() or {})["serialNumber"])

    client = threading.Thread(target=shake)
    client.start()
    until(lambda: stream.receive(1) is not None)
    client.join(5)
    stream.close()
    return shown[0]
