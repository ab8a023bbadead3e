"""Takes the head of one HTTP/1.x request apart; what could be read in two ways is refused. Pure.

Requests have no bodies here: that, and a head that ends in exactly one way, leaves nothing to smuggle.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, unquote_plus

MAX_HEAD_BYTES = 8 * 1024
MAX_HEADERS = 100
_TOKEN = b"!#$%&'*+-.^_`|~" + (string.ascii_letters + string.digits).encode()  # RFC 9110, 5.6.2
_VISIBLE = bytes(range(0x21, 0x7F))
_IN_VALUE = b"\t " + _VISIBLE + bytes(range(0x80, 0x100))
_SINGLE = ("host", "content-length", "authorization")


class Refused(Exception):  # noqa: N818 - said as the server says it
    """A request that gets ``status`` and ``message`` for an answer, and then the connection's end."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Request:
    """A request understood. Path and query are decoded; names of headers are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    keep_alive: bool = True


def head_length(received: bytes) -> int:
    """Return the length of the request's head at the front of ``received``, 0 while it isn't whole.

    Raises:
        Refused: it is longer than it may be, or already shows that it will never be a request.
    """
    if received[0] not in _TOKEN:
        raise Refused(400, "a request begins with GET or HEAD")
    end = received.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
    line_end = received.find(b"\n", 0, MAX_HEAD_BYTES if end < 0 else end)
    if line_end == 0 or (line_end > 0 and received[line_end - 1] != 0x0D):
        raise Refused(400, "lines must end in CR LF")
    if end < 0 and len(received) >= MAX_HEAD_BYTES:
        raise Refused(431, f"a request has at most {MAX_HEAD_BYTES} bytes")
    return 0 if end < 0 else end + 4


def parse(head: bytes) -> Request:
    """Return the request whose head, blank line included, is ``head``.

    Raises:
        Refused: with the status and the sentence to answer.
    """
    if b"\0" in head:
        raise Refused(400, "a request holds no NUL")
    line, *lines = head[:-4].split(b"\r\n")
    method, target, minor = _request_line(line)
    headers = _headers(lines)
    if method not in ("GET", "HEAD"):
        raise Refused(405, "GET or HEAD")
    if "transfer-encoding" in headers:
        raise Refused(501, "requests with a body are not served")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise Refused(400, "Content-Length must be a number")
    if length.strip("0"):
        raise Refused(413, "requests with a body are not served")
    path, query = _target(target)
    wishes = {wish.strip().lower() for wish in headers.get("connection", "").split(",")}
    keep_alive = "close" not in wishes and (minor > 0 or "keep-alive" in wishes)
    return Request(method, path, query, headers, keep_alive)


def _request_line(line: bytes) -> tuple[str, str, int]:
    """Return method, target and HTTP/1's minor version."""
    parts = line.split(b" ")
    if len(parts) != 3 or not all(parts):
        raise Refused(400, "a request begins with a line such as: GET /health HTTP/1.1")
    method, target, version = parts
    if method.translate(None, _TOKEN) or target.translate(None, _VISIBLE):
        raise Refused(400, "method and target must be plain ASCII; encode the rest as %XX")
    if len(version) != 8 or version[:5] != b"HTTP/" or version[6:7] != b".":
        raise Refused(400, "the version must be HTTP/1.0 or HTTP/1.1")
    if version[5:6] != b"1" or not version[7:].isdigit():
        raise Refused(505, "HTTP/1.0 or HTTP/1.1")
    return method.decode(), target.decode(), int(version[7:])


def _headers(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > MAX_HEADERS:
        raise Refused(431, f"a request has at most {MAX_HEADERS} headers")
    found: dict[str, str] = {}
    for line in lines:
        raw_name, colon, raw_value = line.partition(b":")
        # An empty name, a blank before the colon and a folded line all leave something that is no token.
        if not colon or not raw_name or raw_name.translate(None, _TOKEN):
            raise Refused(400, "a header is a name, a colon and a value")
        if raw_value.translate(None, _IN_VALUE):
            raise Refused(400, "a header's value holds no control characters")
        name, value = raw_name.decode().lower(), raw_value.strip(b" \t").decode("latin-1")
        if name in found and name in _SINGLE:
            raise Refused(400, f"{name} may be given once")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _target(target: str) -> tuple[str, dict[str, str]]:
    """Return path and query of an origin-form or (as sent to proxies) absolute-form target."""
    if target.lower().startswith(("http://", "https://")):
        rest = target.partition("://")[2]
        begin = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
        target = rest[begin:] if rest[begin:].startswith("/") else "/" + rest[begin:]
    if not target.startswith("/") or "#" in target:
        raise Refused(400, "the target must be a path such as /health")
    path, _, query = target.partition("?")
    values: dict[str, str] = {}
    for item in query.split("&"):
        name, _, value = item.partition("=")
        if name:
            values.setdefault(unquote_plus(name), unquote_plus(value))
    return unquote(path), values
