"""Hostile requests from a seed: what is sent, and how the client behaves then."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from tests.component.endpoint_client import connect

_VALID = (
    b"GET /health HTTP/1.1\r\nHost: vm\r\n\r\n",
    b"HEAD /health?strict=1 HTTP/1.0\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1\r\n\r\n",
    b"GET /?format=html HTTP/1.1\r\nAccept: text/html\r\nConnection: keep-alive\r\n\r\n",
    b"GET http://vm:8080/metrics?format=prometheus HTTP/1.1\r\nAuthorization: Basic YTpi\r\n\r\n",
    b"POST /health HTTP/1.1\r\nContent-Length: 10\r\n\r\n0123456789",
    b"GET /%2e%2e/%00%ff HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
)
_TRICKS = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b"\r\n\r\n",
        b"%",
        b"?",
        b"&",
        b"=",
        b",",
        b";q=",
        b"\xff",
    ),
    *(b"HTTP/1.1", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(
        b"Accept: */*;q=nan\r\n",
        b"Connection: close\r\n",
        b" folded\r\n",
        b"Host: a\r\nHost: b\r\n",
        b"/" * 100,
    ),
)


@dataclass(frozen=True, slots=True)
class Attack:
    """Bytes to send, and what is done after: read all, end and read, leave, or reset."""

    sent: bytes
    manner: str


class Fuzz:
    """An endless source of attacks, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._kinds: tuple[Callable[[], bytes], ...] = (
            self._noise,
            *(self._mutated,) * 5,
            self._truncated,
            self._pipelined,
            self._huge,
        )

    def attack(self) -> Attack:
        """Return the next one."""
        manner = self._random.choices(("end", "leave", "reset"), (8, 1, 1))[0]
        return Attack(self._random.choice(self._kinds)(), manner)

    def _noise(self) -> bytes:
        return self._random.randbytes(self._random.randrange(1, 400))

    def _mutated(self) -> bytes:
        found = bytearray(self._random.choice(_VALID))
        for _ in range(self._random.randrange(1, 6)):
            at, what = self._random.randrange(len(found) + 1), self._random.randrange(4)
            if what == 0:
                found[at:at] = self._random.choice(_TRICKS)
            elif what == 1:
                del found[at : at + self._random.randrange(1, 9)]
            elif what == 2:
                found[at : at + 1] = self._random.randbytes(1)
            else:
                found[at:at] = found[self._random.randrange(len(found) + 1) :][:20]
        return bytes(found) or b"\n"

    def _truncated(self) -> bytes:
        found = self._random.choice(_VALID)
        return found[: self._random.randrange(1, len(found))]

    def _pipelined(self) -> bytes:
        return b"".join(
            self._mutated() if self._random.random() < 0.1 else self._random.choice(_VALID[:5])
            for _ in range(self._random.randrange(2, 30))
        )

    def _huge(self) -> bytes:
        filling = self._random.choice((b"x", b" ", b"\r\n", b"a: b\r\n", b"%41", b"\0", b"?a=b&", b";q=0.1,"))
        size = self._random.choice((7_000, 8_190, 8_192, 9_000, 60_000))
        head = self._random.choice((b"", b"GET /", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nAccept: "))
        return (head + filling * (size // len(filling)))[:size] + self._random.choice((b"", b"\r\n\r\n"))


def carry_out(port: int, attack: Attack) -> bytes | None:
    """Attack; returns what came back, None where nobody listened to it or the server reset the connection."""
    with connect(port) as connection:
        try:
            connection.sendall(attack.sent)
            if attack.manner == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if attack.manner != "end":
                return None
            connection.shutdown(socket.SHUT_WR)
            found = b""
            while part := connection.recv(262_144):
                found += part
        except (ConnectionResetError, BrokenPipeError):
            return None
        return found
