"""Tells an outside monitor that a tick has completed, as Healthchecks and its like expect it: a GET of a URL.

The URL is the credential: neither it nor any error that could repeat it is logged.
"""

from __future__ import annotations

import asyncio
import logging

import aiohttp

from vm_watchdog.ports import TickRecord

log = logging.getLogger("vm_watchdog.dead_man")


class DeadManPing:
    """Pings with aiohttp; an empty URL pings nothing."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._session: aiohttp.ClientSession | None = None
        self._told = ""

    async def ping(self, record: TickRecord) -> None:
        """Ping once; a failure is logged, never raised: a monitor that hears nothing will speak up."""
        if not self._url:
            return
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._get_session().get(self._url, allow_redirects=False) as response,
            ):
                problem = "" if 200 <= response.status < 300 else f"it answered {response.status}"
        except TimeoutError:
            problem = f"no answer within {self._timeout_seconds:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            problem = type(error).__name__
        self._tell(problem)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _tell(self, problem: str) -> None:
        if problem and problem != self._told:
            log.warning("the outside monitor was not pinged", extra={"problem": problem})
        elif self._told and not problem:
            log.info("the outside monitor is pinged again")
        self._told = problem

    def _get_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            # One call a minute: a kept connection would be a dead one.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "vm-watchdog"},
            )
        return self._session
