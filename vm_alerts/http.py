"""An outgoing request as data, and what a channel's answer means. Sending is the caller's job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from vm_alerts.message import AlertMessage
from vm_health.errors import PermanentError, TransientError


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request that is ready to be sent; ``url`` may be a secret and stays out of every repr."""

    url: str = field(repr=False)
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    method: str = "POST"


class HttpChannel(Protocol):
    """A channel that is one HTTP request a message."""

    @property
    def name(self) -> str: ...

    def request(self, message: AlertMessage) -> HttpRequest: ...


def check_answer(channel: str, status: int, retry_after: str | None) -> None:
    """Accept 2xx; say of everything else whether another try may help.

    Raises:
        TransientError: 408, 425, 429 and 5xx, with the seconds that ``Retry-After`` asks for.
        PermanentError: anything else; redirects too, for an alert must not be led elsewhere.
    """
    if 200 <= status < 300:
        return
    if status in (408, 425, 429) or status >= 500:
        seconds = float(retry_after) if retry_after and retry_after.isdecimal() else None
        raise TransientError(f"channel {channel} answered {status}", seconds)
    raise PermanentError(f"channel {channel} answered {status}")
