"""One HTTP exchange with a time-out and a bounded answer. Follows no redirect and uses no cookie or proxy."""

from __future__ import annotations

import functools
import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vm_health.errors import TransientError
from vm_health.version import VERSION

if TYPE_CHECKING:
    import ssl

MAX_ANSWER_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def exchange(
    method: str,
    url: str,
    *,
    timeout_seconds: float,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """Send one request and read its answer; ``tls`` is for a server with a certificate of its own.

    Raises:
        TransientError: there was no (readable) answer; the text names the host, never a header or the query.
    """
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection: http.client.HTTPConnection
    try:
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(
                parts.hostname or "", parts.port, timeout=timeout_seconds, context=tls or _tls()
            )
        else:
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_seconds)
        try:
            sent = {"User-Agent": f"vm-agent/{VERSION}", "Connection": "close", **(headers or {})}
            connection.request(method, target, body or None, sent)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read(MAX_ANSWER_BYTES))
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise TransientError(f"{parts.netloc}: {type(error).__name__}: {error}"[:300]) from error


@functools.cache
def _tls() -> ssl.SSLContext:
    """Return the context for all https calls: the system's certificates, or what SSL_CERT_FILE names."""
    import ssl  # noqa: PLC0415 - loads megabytes of certificates, only where https is spoken

    return ssl.create_default_context()
