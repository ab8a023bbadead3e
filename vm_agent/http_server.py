"""Serves any number of connections from one thread. Knows HTTP and limits, nothing of what is served.

Beyond ``max_connections`` the connection that has been silent longest gives way to the new one: nobody can
shut others out by holding connections open. A client that does nothing costs no thread and no wake-up.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import selectors
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from vm_agent.http_answer import Answer, sentence
from vm_agent.http_connection import Connection, Patience, PlainStream, Stream
from vm_agent.http_request import Refused, Request

_LOG = logging.getLogger(__name__)
_ACCEPTS_A_TURN = 64
_SWEEP_SECONDS = 0.25
_PAUSE_SECONDS = 0.2
_LOG_EVERY_SECONDS = 60.0
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@dataclass(slots=True)
class Counts:
    """What the server did; changed by its thread only."""

    requests: int = 0
    refused: int = 0
    failed: int = 0
    closed_for_room: int = 0


class Server:
    """Serves ``listener`` (bound and listening) until ``stop``."""

    def __init__(
        self,
        listener: socket.socket,
        answer: Callable[[Request], Answer],
        max_connections: int,
        patience: Patience,
        stream: Callable[[socket.socket], Stream] = PlainStream,
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._answer_request = answer
        self._max_connections = max_connections
        self._patience = patience
        self._stream = stream
        self._connections: OrderedDict[int, Connection] = OrderedDict()  # the longest silent one first
        self._again: deque[Connection] = deque()
        self._sweep_at, self._swept_at = float("inf"), float("-inf")
        self._paused_until: float | None = None
        self._logged_at = -_LOG_EVERY_SECONDS
        self._stopping = False
        self._sleeper, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._sleeper, selectors.EVENT_READ)
        self._selector.register(listener, selectors.EVENT_READ)
        self.counts = Counts()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    def stop(self) -> None:
        """Make ``run`` return soon; from any thread, and also where ``run`` has ended by itself."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def run(self) -> None:
        """Serve. Nothing that a client does ends this; what does is a fault of ours and is raised."""
        try:
            while not self._stopping:
                self._turn()
        finally:
            self.close()

    def close(self) -> None:
        """Close the port and every connection."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        self._selector.close()
        for own in (self._listener, self._sleeper, self._waker):
            own.close()

    def _turn(self) -> None:
        ready = self._selector.select(self._wait_seconds(time.monotonic()))
        now = time.monotonic()
        for connection in [self._again.popleft() for _ in range(len(self._again))]:
            self._advance(connection, now)
        for key, _ in ready:
            if key.data is not None:
                self._advance(key.data, now)
            elif key.fileobj is self._listener:
                self._accept(now)
        if self._paused_until is not None and now >= self._paused_until:
            self._paused_until = None
            self._selector.register(self._listener, selectors.EVENT_READ)
        if self._connections and now >= self._sweep_at:
            self._sweep(now)

    def _wait_seconds(self, now: float) -> float | None:
        """Return how long nothing needs doing, None for ever."""
        if self._again:
            return 0.0
        due = [self._sweep_at] if self._connections else []
        due += [] if self._paused_until is None else [self._paused_until]
        return max(0.0, min(due) - now) if due else None

    def _accept(self, now: float) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            try:
                accepted, _peer = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    continue  # the client was gone before it was let in
                if not self._make_room():
                    self._pause(now)
                    return
                continue
            accepted.setblocking(False)
            fd = accepted.fileno()
            connection = Connection(fd, self._stream(accepted), self._answer, self._patience, now)
            self._connections[fd] = connection
            self._selector.register(fd, selectors.EVENT_READ, connection)
            self._sweep_by(connection.deadline)
            if len(self._connections) > self._max_connections:
                self._make_room()

    def _pause(self, now: float) -> None:
        """Leave the port alone for a moment: out of files, it would stay ready and keep the thread busy."""
        self._selector.unregister(self._listener)
        self._paused_until = now + _PAUSE_SECONDS

    def _make_room(self) -> bool:
        """Close the connection that has been silent longest."""
        if not self._connections:
            return False
        self.counts.closed_for_room += 1
        self._drop(next(iter(self._connections.values())))
        return True

    def _advance(
        self, connection: Connection, now: float, step: Callable[[float], None] | None = None
    ) -> None:
        """Let ``connection`` do its next steps; whatever goes wrong ends it alone."""
        if connection.closed:
            return
        wrote = connection.wants_write
        try:
            (step or connection.advance)(now)
        except OSError:  # reset, broken pipe, a failed handshake: the client's business
            self._drop(connection)
        except Exception:  # noqa: BLE001 - one request must not end the server
            self._tell("a connection broke")
            self._drop(connection)
        if connection.closed:
            self._drop(connection)
            return
        self._connections.move_to_end(connection.fd)
        self._sweep_by(connection.deadline)
        if connection.has_more:
            self._again.append(connection)
        if connection.wants_write != wrote:
            events = selectors.EVENT_WRITE if connection.wants_write else selectors.EVENT_READ
            self._selector.modify(connection.fd, events, connection)

    def _drop(self, connection: Connection) -> None:
        if self._connections.get(connection.fd) is connection:
            del self._connections[connection.fd]
            self._selector.unregister(connection.fd)  # before the number is free for another
        connection.close()

    def _sweep_by(self, deadline: float) -> None:
        self._sweep_at = max(min(self._sweep_at, deadline), self._swept_at + _SWEEP_SECONDS)

    def _sweep(self, now: float) -> None:
        """End the patience with all whose time is up, and note when the next one's is."""
        for connection in [found for found in self._connections.values() if found.deadline <= now]:
            self._advance(connection, now, connection.give_up)
        self._swept_at = now
        self._sweep_at = float("inf")
        self._sweep_by(min((found.deadline for found in self._connections.values()), default=float("inf")))

    def _answer(self, request: Request | Refused) -> Answer:
        """Return the answer to ``request``, whatever making it does."""
        if isinstance(request, Refused):
            self.counts.refused += 1
            allow = (("Allow", "GET, HEAD"),) if request.status == 405 else ()
            return sentence(request.status, request.message, *allow)
        self.counts.requests += 1
        try:
            return self._answer_request(request)
        except Exception:  # noqa: BLE001 - one request must not end the server
            self.counts.failed += 1
            self._tell("a request broke")
            return sentence(500, "this request broke something; the journal of vm-agent says what")

    def _tell(self, what: str) -> None:
        """Log the failure at hand, once a minute at most: clients must not fill the journal."""
        now = time.monotonic()
        if now >= self._logged_at + _LOG_EVERY_SECONDS:
            self._logged_at = now
            _LOG.exception(what)
