"""Delivers notices through the HTTP channels that are configured."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import aiohttp

from vm_alerts.http import HttpChannel, check_answer
from vm_alerts.message import build_message
from vm_health.errors import TransientError
from vm_health.state import Notice

log = logging.getLogger("vm_watchdog.alerts")

TIMEOUT_SECONDS = 15


class ChannelSender:
    """Sends each notice to every channel. The queue's retry repeats all of them: receivers deduplicate."""

    def __init__(self, channels: Sequence[HttpChannel], dashboard_url: str, portal_url: str) -> None:
        self._channels = tuple(channels)
        self._dashboard_url = dashboard_url
        self._portal_url = portal_url
        self._session: aiohttp.ClientSession | None = None

    async def send(self, notice: Notice) -> None:
        """Deliver ``notice``; without a channel the log line is all there is."""
        message = build_message(notice, self._dashboard_url, self._portal_url)
        log.info(
            "alert", extra={"kind": notice.kind, "title": message.title, "channels": len(self._channels)}
        )
        for channel in self._channels:
            request = channel.request(message)
            try:
                async with self._get_session().request(
                    request.method,
                    request.url,
                    data=request.body,
                    headers=dict(request.headers),
                    allow_redirects=False,
                ) as response:
                    check_answer(channel.name, response.status, response.headers.get("Retry-After"))
            except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
                # The exception's own text may hold the URL, and the URL may be the secret.
                raise TransientError(f"channel {channel.name}: {type(error).__name__}") from None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _get_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS))
        return self._session
