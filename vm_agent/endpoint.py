"""The endpoint of the agent: binds the port and serves the last report from a thread of its own.

Never collects and waits for no client. How much a client gets is set by the limits in ``AgentConfig``.
"""

from __future__ import annotations

import errno
import logging
import resource
import socket
import threading
from collections.abc import Callable, Mapping

from vm_agent.board import Board
from vm_agent.config import AgentConfig
from vm_agent.http_connection import Patience, PlainStream, Stream
from vm_agent.http_server import Server
from vm_agent.pages import Pages
from vm_health.errors import ConfigError

_LOG = logging.getLogger(__name__)
_BACKLOG = 1024
_OTHER_FILES = 64  # that the rest of the agent may have open
_FILES_BY_DEFAULT = 1024
_STOP_SECONDS = 1.0
_REPORT_ROUTES = (
    (socket.AF_INET, "192.0.2.1"),  # RFC 5737 and
    (socket.AF_INET6, "2001:db8::1"),  # RFC 3849: documentation only; choosing a route there sends nothing
)


class Endpoint:
    """The server. The port is bound in the constructor, so that a taken one is told at start.

    Raises:
        ConfigError: address, port or certificate can't be used; it names the setting.
    """

    def __init__(self, config: AgentConfig, board: Board, own: Callable[[], Mapping[str, float]]) -> None:
        self._own = own
        stream = _stream(config)
        self.scheme = "https" if config.tls_cert_file else "http"
        listener = _listen(config.listen_address, config.listen_port)
        self.port = int(listener.getsockname()[1])
        self._server = Server(
            listener,
            Pages(board, self._numbers, config.token).answer,
            _room_for(config.max_connections),
            Patience(config.idle_timeout_seconds, config.request_timeout_seconds),
            stream,
        )
        self._thread: threading.Thread | None = None

    def start(self, on_broken: Callable[[], None]) -> None:
        """Serve from a thread; should that thread die, ``on_broken`` is called from it."""

        def serve() -> None:
            try:
                self._server.run()
            except Exception:  # noqa: BLE001 - logged whole, and whoever started it is told
                _LOG.exception("endpoint broke")
                on_broken()

        self._thread = threading.Thread(target=serve, name="endpoint", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Free the port and close every connection."""
        if self._thread is None:
            self._server.close()
        else:
            self._server.stop()
            self._thread.join(_STOP_SECONDS)

    def _numbers(self) -> dict[str, float]:
        counts = self._server.counts
        return {
            **self._own(),
            "http_requests": counts.requests,
            "http_refused": counts.refused,
            "http_failed": counts.failed,
            "http_closed_for_room": counts.closed_for_room,
            "http_connections": self._server.connections,
        }


def advertised(configured: str, scheme: str, address: str, port: int) -> str:
    """Return the URL that the watchdog is told: as configured, else of the first address; "" without one."""
    if configured:
        return configured
    host = address
    if address in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = _first_address(_REPORT_ROUTES[: 1 if address == "0.0.0.0" else 2])  # noqa: S104
    if not host:
        return ""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _first_address(routes: tuple[tuple[socket.AddressFamily, str], ...]) -> str:
    """Return the address that packets to elsewhere leave from, "" without a route (no network yet)."""
    for family, elsewhere in routes:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((elsewhere, 9))
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return ""


def _stream(config: AgentConfig) -> Callable[[socket.socket], Stream]:
    """Return what makes an accepted socket one that requests can be read from."""
    if not config.tls_cert_file:
        return PlainStream
    from vm_agent.tls import Certificate, TlsStream  # noqa: PLC0415 - OpenSSL, only where it is wanted

    certificate = Certificate(config.tls_cert_file, config.tls_key_file)
    return lambda accepted: TlsStream(accepted, certificate)


def _listen(address: str, port: int) -> socket.socket:
    found = None
    try:
        family, _, _, _, where = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, socket.SOCK_STREAM)
        # Not SO_REUSEPORT: a second agent would share the port without anybody noticing.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        if family == socket.AF_INET6:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))
        found.bind(where)
        found.listen(_BACKLOG)
    except OSError as error:
        if found is not None:
            found.close()
        raise ConfigError("settings of vm-agent", [_bind_fault(address, port, error)]) from error
    return found


def _room_for(max_connections: int) -> int:
    """Let the process have that many connections open; returns how many it may."""
    wanted = max_connections + _OTHER_FILES
    try:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if resource.RLIM_INFINITY != soft < wanted:
            soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    except (OSError, ValueError):  # a sandbox may forbid both calls
        soft = _FILES_BY_DEFAULT
    if resource.RLIM_INFINITY != soft < wanted:
        _LOG.warning(
            "fewer connections than VM_AGENT_MAX_CONNECTIONS: the limit of open files is too low",
            extra={"max_connections": max(1, soft - _OTHER_FILES), "open_files": soft},
        )
        return max(1, soft - _OTHER_FILES)
    return max_connections


def _bind_fault(address: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"VM_AGENT_LISTEN_PORT must be a free port, was {port}: {address}:{port} is in use already"
    if error.errno == errno.EACCES:
        return f"VM_AGENT_LISTEN_PORT must be a port that this user may open, was {port}"
    return f"VM_AGENT_LISTEN_ADDRESS must be an address of this machine, was {address} ({error.strerror})"
