"""An answer and its head as bytes. Pure.

A body may come in parts, so that what a thousand connections are sent can be one and the same object.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

TEXT = "text/plain; charset=utf-8"
_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back; ``headers`` are those beyond the usual ones."""

    status: int
    content_type: str
    parts: tuple[bytes, ...]
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def body(self) -> bytes:
        """The body in one piece."""
        return b"".join(self.parts)


def sentence(status: int, text: str, *headers: tuple[str, str]) -> Answer:
    """Return an answer that says one thing in plain text."""
    return Answer(status, TEXT, (text.encode() + b"\n",), headers)


def head(answer: Answer, *, keep_alive: bool, now_seconds: float) -> bytes:
    """Return status line and headers; ``now_seconds`` is the time since the epoch."""
    length = sum(map(len, answer.parts))
    more = "".join(f"{name}: {value}\r\n" for name, value in answer.headers)
    return (
        f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Unknown')}\r\n"
        f"Server: vm-agent\r\nDate: {_date(int(now_seconds))}\r\n"
        f"Content-Type: {answer.content_type}\r\nContent-Length: {length}\r\n"
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
        f"{more}Connection: {'keep-alive' if keep_alive else 'close'}\r\n\r\n"
    ).encode("latin-1")


@functools.lru_cache(maxsize=1)
def _date(seconds: int) -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(seconds))
