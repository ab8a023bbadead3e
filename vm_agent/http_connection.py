"""One client's connection: reads requests, sends answers, never waits.

It holds at most one unfinished request (8 KiB) and one unsent answer, and reads on only when that is sent.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from vm_agent.http_answer import Answer, head
from vm_agent.http_request import MAX_HEAD_BYTES, Refused, Request, head_length, parse

REQUESTS_A_TURN = 16  # then the others come first, however many requests this one has sent ahead
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client is waited for: between requests, for one request, while it takes an answer."""

    idle_seconds: float = 75.0
    request_seconds: float = 5.0
    answer_seconds: float = 15.0


class Stream(Protocol):
    """A socket that never waits: None says that it would have to."""

    @property
    def handshaking(self) -> bool:
        """Whether the peer has begun to speak but can't say anything yet."""
        ...

    @property
    def wants_write(self) -> bool:
        """Whether the last None of ``receive`` was for want of room to write."""
        ...

    def receive(self, size: int) -> bytes | None:
        """Return some bytes, b"" at the end."""
        ...

    def send(self, parts: list[memoryview]) -> int | None:
        """Send from the front of ``parts``; returns the number of bytes taken."""
        ...

    def end(self) -> None:
        """Say that nothing more will be sent."""
        ...

    def close(self) -> None:
        """Free the socket."""
        ...


class PlainStream:
    """A TCP socket as it is."""

    __slots__ = ("_socket",)
    handshaking = False
    wants_write = False

    def __init__(self, accepted: socket.socket) -> None:
        self._socket = accepted

    def receive(self, size: int) -> bytes | None:
        """Return some bytes, b"" at the end, None where there are none yet."""
        try:
            return self._socket.recv(size)
        except BlockingIOError:
            return None

    def send(self, parts: list[memoryview]) -> int | None:
        """Send from all of ``parts`` in one call."""
        try:
            return self._socket.sendmsg(parts)
        except BlockingIOError:
            return None

    def end(self) -> None:
        """Send FIN."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Free the socket."""
        self._socket.close()


class Connection:
    """A connection and what it is at. ``deadline`` (monotonic) is when patience ends."""

    __slots__ = (
        "_answer",
        "_closing",
        "_drained",
        "_ending",
        "_in",
        "_out",
        "_patience",
        "_stream",
        "closed",
        "deadline",
        "fd",
        "has_more",
    )

    def __init__(
        self,
        fd: int,
        stream: Stream,
        answer: Callable[[Request | Refused], Answer],
        patience: Patience,
        now: float,
    ) -> None:
        self.fd = fd
        self._stream = stream
        self._answer = answer
        self._patience = patience
        self._in = b""
        self._out: list[memoryview] = []
        self._closing = False  # after the answer that is being sent
        self._ending = False  # our side has ended; what still comes is thrown away
        self._drained = 0
        self.closed = False
        self.has_more = False
        self.deadline = now + patience.idle_seconds

    @property
    def wants_write(self) -> bool:
        """Whether the next step needs room to write rather than something to read."""
        return bool(self._out) or self._stream.wants_write

    def advance(self, now: float) -> None:
        """Do what can be done without waiting. ``has_more`` says that there is more to do at once."""
        self.has_more = False
        for _ in range(REQUESTS_A_TURN):
            if not (self._send(now) if self._out else self._next(now)):
                return
        self.has_more = True

    def give_up(self, now: float) -> None:
        """End patience: a request that was begun is answered 408, everything else is closed."""
        if self._in and not self._out and not self._ending:
            self._refuse(Refused(408, "the request took too long"), now)
            self._send(now)
        else:
            self.close()

    def close(self) -> None:
        """Free the socket; may be called again."""
        if not self.closed:
            self.closed = True
            self._in, self._out = b"", []
            with contextlib.suppress(OSError):
                self._stream.close()

    def _next(self, now: float) -> bool:
        """Answer the request that is there, else read; tells whether to go on."""
        if self._ending:
            return self._drain()
        try:
            if self._in and (end := head_length(self._in)):
                request = parse(self._in[:end])
                self._in = self._in[end:].lstrip(b"\r\n")
                self._reply(self._answer(request), now, request.method == "HEAD", request.keep_alive)
                return True
            return self._read(now)
        except Refused as refused:
            self._refuse(refused, now)
            return True

    def _read(self, now: float) -> bool:
        received = self._stream.receive(MAX_HEAD_BYTES - len(self._in))
        if received == b"":
            self.close()
            return False
        is_first = not self._in
        if received:
            self._in = (self._in + received) if self._in else received.lstrip(b"\r\n")
        # One deadline for the whole of a request, from its first byte: a slow drip does not move it.
        if is_first and (self._in or self._stream.handshaking):
            self.deadline = min(self.deadline, now + self._patience.request_seconds)
        return received is not None

    def _refuse(self, refused: Refused, now: float) -> None:
        self._in = b""
        self._reply(self._answer(refused), now, is_head=False, keep_alive=False)

    def _reply(self, answer: Answer, now: float, is_head: bool, keep_alive: bool) -> None:
        self._closing = not keep_alive
        parts = () if is_head else answer.parts
        self._out = [memoryview(head(answer, keep_alive=keep_alive, now_seconds=time.time()))]
        self._out += [memoryview(part) for part in parts if part]
        self.deadline = now + self._patience.answer_seconds

    def _send(self, now: float) -> bool:
        sent = self._stream.send(self._out)
        if sent is None:
            return False
        while self._out and sent >= len(self._out[0]):
            sent -= len(self._out.pop(0))
        if self._out:
            self._out[0] = self._out[0][sent:]
            return True
        if self._closing:
            # Closing with something unread makes a reset, which can take the answer with it.
            self._stream.end()
            self._in, self._ending = b"", True
            self.deadline = now + _LINGER_SECONDS
        else:
            patience = self._patience
            self.deadline = now + (patience.request_seconds if self._in else patience.idle_seconds)
        return True

    def _drain(self) -> bool:
        received = self._stream.receive(MAX_HEAD_BYTES)
        if received is None:
            return False
        self._drained += len(received)
        if not received or self._drained > _LINGER_BYTES:
            self.close()
            return False
        return True
