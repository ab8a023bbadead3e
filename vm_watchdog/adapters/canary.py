"""The watchdog's own senses: one event a tick into telemetry, and a look at a known address.

It never raises and never retries: an event that does not arrive is what the fleet query then tells. What goes
wrong is logged when it begins, when it changes and when it ends. No key, token or URL is logged.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp

from vm_health.errors import ConfigError, WatchdogError
from vm_watchdog.azure_errors import translated
from vm_watchdog.ingestion_target import IngestionTarget, read_connection_string, redirect_target
from vm_watchdog.ports import CANARY_ID

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

log = logging.getLogger("vm_watchdog.canary")

EVENT_NAME = "watchdog.canary"
ROLE = "vm-watchdog"
TOKEN_SCOPE = "https://monitor.azure.com/.default"  # noqa: S105 - a scope, no secret
MAX_REDIRECTS = 3
MAX_PROBLEM_CHARS = 200


class IngestionCanary:
    """Sends to Application Insights with aiohttp, with the connection string's key and, where a credential is
    given, with an Entra token. Without a connection string nothing is sent; without a URL nothing is asked.

    Raises:
        ConfigError: the connection string is not one.
    """

    def __init__(
        self,
        connection_string: str,
        credential: AsyncTokenCredential | None,
        probe_url: str,
        timeout_seconds: float,
    ) -> None:
        self._target = _target(connection_string) if connection_string else None
        self._credential = credential
        self._probe_url = probe_url
        self._timeout_seconds = timeout_seconds
        self._session: aiohttp.ClientSession | None = None
        self._told = ""

    @property
    def sends(self) -> bool:
        """Whether own events are sent, so that one must come back through telemetry."""
        return self._target is not None

    async def send(self, now: datetime) -> None:
        """Send one event with the time ``now``; a failure is logged, never raised."""
        if self._target is None:
            return
        try:
            async with asyncio.timeout(self._timeout_seconds):
                problem = await self._post(self._target, now)
        except TimeoutError:
            problem = f"no answer within {self._timeout_seconds:g} s"
        except Exception as error:  # noqa: BLE001 - a credential may raise anything, and no tick may end by it
            problem = _words(error)
        self._tell(problem)

    async def egress_problem(self) -> str:
        """Say what is wrong with the way out: any answer below 500 from the known address is a good one."""
        if not self._probe_url:
            return ""
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._get_session().get(self._probe_url, allow_redirects=False) as response,
            ):
                problem = "" if response.status < 500 else f"it answered {response.status}"
        except TimeoutError:
            problem = f"no answer within {self._timeout_seconds:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            problem = _words(error)
        return f"{_host(self._probe_url)} can't be reached: {problem}" if problem else ""

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _post(self, target: IngestionTarget, now: datetime) -> str:
        """Send the event; return what went wrong, empty where it was taken."""
        headers = {"Content-Type": "application/json"}
        if self._credential is not None:
            with translated("a token for telemetry"):
                token = await self._credential.get_token(TOKEN_SCOPE)
            headers["Authorization"] = f"Bearer {token.token}"
        body = json.dumps([_envelope(target.instrumentation_key, now)]).encode()
        url = target.track_url
        for _ in range(1 + MAX_REDIRECTS):
            async with self._get_session().post(
                url, data=body, headers=headers, allow_redirects=False
            ) as response:
                if response.status not in (307, 308):
                    return "" if response.status == 200 else f"{target.host} answered {response.status}"
                url = redirect_target(response.headers.get("Location", ""), url)
            if not url:
                return f"{target.host} sends on to a host that is not Azure's"
        return f"{target.host}: too many redirects"

    def _tell(self, problem: str) -> None:
        if problem and problem != self._told:
            log.warning("the watchdog's own event is not sent", extra={"problem": problem})
        elif self._told and not problem:
            log.info("the watchdog's own event is sent again")
        self._told = problem

    def _get_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            # One call of a kind a minute: a kept connection would be a dead one. And aiohttp makes its own
            # TLS context when it is imported, before anybody could name a CA (SSL_CERT_FILE).
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True, ssl=ssl.create_default_context()),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": ROLE},
            )
        return self._session


def _target(connection_string: str) -> IngestionTarget:
    try:
        return read_connection_string(connection_string)
    except ValueError as error:
        raise ConfigError("the watchdog's own telemetry", [f"its setting must be {error}"]) from None


def _envelope(instrumentation_key: str, now: datetime) -> dict[str, Any]:
    moment = now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "name": "Microsoft.ApplicationInsights.Event",
        "time": moment,
        "iKey": instrumentation_key,
        "tags": {"ai.cloud.role": ROLE, "ai.cloud.roleInstance": CANARY_ID},
        "data": {
            "baseType": "EventData",
            "baseData": {
                "ver": 2,
                "name": EVENT_NAME,
                "properties": {"vm_id": CANARY_ID, "sent_at": moment},
            },
        },
    }


def _words(error: Exception) -> str:
    """Say what happened. Of errors that may repeat a URL, which may hold a key, only the kind is told."""
    if isinstance(error, aiohttp.ClientConnectorError | WatchdogError):
        return f"{type(error).__name__}: {error}"[:MAX_PROBLEM_CHARS]
    return type(error).__name__


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "the known address"
    except ValueError:
        return "the known address"
