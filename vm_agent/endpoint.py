"""Serves the last report over HTTP. Never collects; waits for nothing but the client, and for it briefly.

A client gets five seconds for its whole request and 8 KiB for line and headers; sixteen are served at once.
"""

from __future__ import annotations

import io
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any

from vm_agent.pages import Page, page
from vm_health.errors import ConfigError
from vm_health.model import HealthReport

_LOG = logging.getLogger(__name__)
MAX_HEAD_BYTES = 8 * 1024
REQUEST_TIMEOUT_SECONDS = 5.0
MAX_CONNECTIONS = 16
_REPORT_ROUTE = ("192.0.2.1", 9)  # RFC 5737: documentation only; choosing a route to it sends nothing


class Endpoint(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """The server. Binding happens in the constructor's name, so that a taken port is told at start."""

    allow_reuse_address = True
    allow_reuse_port = False  # else a second agent would share the port without anybody noticing
    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        address: str,
        port: int,
        current: Callable[[], HealthReport],
        own: Callable[[], Mapping[str, float]],
    ) -> None:
        self.current = current
        self.own = own
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            super().__init__((address, port), _Handler)
        except OSError as error:
            raise ConfigError("settings of vm-agent", [_bind_fault(address, port, error)]) from error

    def start(self) -> None:
        """Serve from a thread."""
        threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.5}, name="endpoint", daemon=True
        ).start()

    @property
    def port(self) -> int:
        """The port in use; also where 0 was asked for."""
        return int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own; without a free place it is closed at once."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve, then give the place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news; anything else is a fault of ours."""
        _LOG.debug("request ended early", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """One request, one answer, connection closed."""

    server: Endpoint
    protocol_version = "HTTP/1.0"
    timeout = REQUEST_TIMEOUT_SECONDS

    def handle(self) -> None:
        """Read the head within its limits, then let the base class take it apart."""
        head = self._read_head()
        self.close_connection = True
        self.command, self.requestline, self.request_version = "", "", "HTTP/1.0"
        if not head:
            return
        self.rfile = io.BufferedReader(io.BytesIO(head))
        self.raw_requestline = self.rfile.readline()
        if b"\r\n\r\n" not in head and b"\n\n" not in head:
            self.send_error(431)
        elif self.parse_request():
            self._answer()

    def _read_head(self) -> bytes:
        """Return all up to the blank line, at most 8 KiB; nothing where the client was too slow or left."""
        deadline = time.monotonic() + REQUEST_TIMEOUT_SECONDS
        head = b""
        while b"\r\n\r\n" not in head and b"\n\n" not in head and len(head) < MAX_HEAD_BYTES:
            self.connection.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                part = self.connection.recv(MAX_HEAD_BYTES - len(head))
            except OSError:  # a time-out is one
                return b""
            if not part:
                return b""
            head += part
        self.connection.settimeout(REQUEST_TIMEOUT_SECONDS)
        return head

    def _answer(self) -> None:
        if self.command not in ("GET", "HEAD"):
            self._send(Page(405, "text/plain; charset=utf-8", b"GET or HEAD\n"), {"Allow": "GET, HEAD"})
            return
        path = self.path.partition("?")[0]
        self._send(page(path, self.server.current(), self.server.own()))

    def _send(self, found: Page, headers: Mapping[str, str] | None = None) -> None:
        self.request_version = "HTTP/1.0"  # the base class holds what it can't read for HTTP/0.9: no headers
        self.send_response(found.status)
        for name, value in {
            "Content-Type": found.content_type,
            "Content-Length": str(len(found.body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(found.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that could not be understood, without repeating any of it."""
        self._send(Page(code, "text/plain; charset=utf-8", b"request not understood\n"))

    def version_string(self) -> str:
        """Name the server without telling its version."""
        return "vm-agent"

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged: a probe a minute would be all there is in the journal."""


def advertised(configured: str, address: str, port: int) -> str:
    """Return the URL that the watchdog is told: as configured, else of the first address; "" without one."""
    if configured:
        return configured
    host = address
    if address in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = _first_address()
    if not host:
        return ""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _first_address() -> str:
    """Return the address that packets to elsewhere leave from, "" without a route (no network yet)."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(_REPORT_ROUTE)
            return str(probe.getsockname()[0])
    except OSError:
        return ""


def _bind_fault(address: str, port: int, error: OSError) -> str:
    import errno  # noqa: PLC0415 - only to explain a failure

    if error.errno == errno.EADDRINUSE:
        return f"VM_AGENT_LISTEN_PORT must be a free port, was {port}: {address}:{port} is in use already"
    if error.errno == errno.EACCES:
        return f"VM_AGENT_LISTEN_PORT must be a port that this user may open, was {port}"
    return f"VM_AGENT_LISTEN_ADDRESS must be an address of this machine, was {address} ({error.strerror})"
