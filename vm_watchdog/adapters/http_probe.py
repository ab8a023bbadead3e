"""Looks at a VM's ``/health`` from outside. A hostile VM can make it neither fetch nor hold anything else:
only allowed networks, no redirects, bounded body and time."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import re
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from vm_health.errors import WireError
from vm_health.model import ProbeOutcome, ProbeResult
from vm_health.wire import MAX_REPORT_CHARS, decode_report

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_BODY_BYTES = 4 * MAX_REPORT_CHARS  # UTF-8 needs up to four bytes a character
MAX_KNOWN = 20_000
_HOST_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*(?!0x[0-9a-f]*\.?$)[0-9-]*[a-z_][a-z0-9_-]{0,62}\.?")
_REPORT_STATUSES = {200: ProbeOutcome.OK, 503: ProbeOutcome.UNHEALTHY}


class HttpProber:
    """Probes with aiohttp, at most ``concurrency`` at once; each probe ends within ``timeout_seconds``."""

    def __init__(self, networks: Sequence[IpNetwork], timeout_seconds: float, concurrency: int) -> None:
        self._networks = tuple(networks)
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._concurrency = concurrency
        self._session: aiohttp.ClientSession | None = None
        self._known: dict[str, tuple[URL | None, str]] = {}

    async def probe(self, vm_id: str, endpoint: str) -> ProbeResult:
        """Get the report of ``vm_id`` from ``endpoint`` (a base URL); failures of any kind are a result."""
        url, problem = self._known.get(endpoint) or self._learn(endpoint)
        if url is None:
            return ProbeResult(ProbeOutcome.NOT_CONFIGURED, problem)
        try:
            async with self._get_session().get(url, allow_redirects=False) as response:
                body = await response.content.read(MAX_BODY_BYTES + 1)
                while len(body) <= MAX_BODY_BYTES and not response.content.at_eof():
                    body += await response.content.read(MAX_BODY_BYTES + 1 - len(body))
                return _read_answer(vm_id, response.status, body)
        except TimeoutError:
            return ProbeResult(ProbeOutcome.UNREACHABLE, f"no answer within {self._timeout.total:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return ProbeResult(ProbeOutcome.UNREACHABLE, f"{type(error).__name__}: {error}"[:200])

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _learn(self, endpoint: str) -> tuple[URL | None, str]:
        """Judge an endpoint once: it is the same at every tick. Names are resolved anew at each probe."""
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        url, problem = self._health_url(endpoint)
        self._known[endpoint] = (None if problem else URL(url), problem)
        return self._known[endpoint]

    def _health_url(self, endpoint: str) -> tuple[str, str]:
        """Return the URL to get, or what is wrong with ``endpoint``."""
        try:
            parts = urlsplit(endpoint)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            return "", f"endpoint is not a URL: {error}"
        if parts.scheme not in ("http", "https") or not host or parts.username is not None:
            return "", "endpoint must be http(s)://host[:port]"
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            # A name: the resolver holds its addresses against the networks. aiohttp asks it for nothing that
            # looks like an address once normalised (full-width digits, "127.1"), so that only names may pass.
            if not _HOST_NAME.fullmatch(host):
                return "", "endpoint must have a host name or an IP address"
        else:
            if not is_allowed(address, self._networks):
                return "", f"endpoint {address} is outside WATCHDOG_PROBE_NETWORKS"
        return f"{parts.scheme}://{parts.netloc}/health", ""

    def _get_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=self._concurrency, resolver=_GuardedResolver(self._networks), force_close=True
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "vm-watchdog", "Accept": "application/json"},
                max_line_size=8_190,
                max_field_size=8_190,
            )
        return self._session


def is_allowed(address: IpAddress, networks: Sequence[IpNetwork]) -> bool:
    """Tell whether a probe may go to ``address``; link-local (the metadata service) never may."""
    mapped = getattr(address, "ipv4_mapped", None)
    address = address if mapped is None else mapped
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        return False
    return any(address in network for network in networks if network.version == address.version)


class _GuardedResolver(AbstractResolver):
    """Resolves names to allowed addresses only, so that a name can't lead where an address may not."""

    def __init__(self, networks: Sequence[IpNetwork]) -> None:
        self._networks = networks

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the allowed addresses of ``host``."""
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, family=family, type=socket.SOCK_STREAM
        )
        allowed = [
            ResolveResult(hostname=host, host=str(where[0]), port=port, family=kind, proto=proto, flags=0)
            for kind, _, proto, _, where in found
            if is_allowed(ipaddress.ip_address(str(where[0]).partition("%")[0]), self._networks)
        ]
        if not allowed:
            raise OSError(errno.EACCES, f"no address of {host} is inside WATCHDOG_PROBE_NETWORKS")
        return allowed

    async def close(self) -> None:
        """Nothing is held."""


def _read_answer(vm_id: str, status: int, body: bytes) -> ProbeResult:
    outcome = _REPORT_STATUSES.get(status)
    if outcome is None:
        return ProbeResult(ProbeOutcome.UNREACHABLE, f"/health answered {status}")
    if len(body) > MAX_BODY_BYTES:
        return ProbeResult(ProbeOutcome.UNREACHABLE, f"/health sent more than {MAX_BODY_BYTES} bytes")
    try:
        report = decode_report(body.decode("utf-8"))
    except (WireError, UnicodeDecodeError) as error:
        return ProbeResult(ProbeOutcome.UNREACHABLE, f"/health is not a report: {error}"[:200])
    if report.vm_id and report.vm_id != vm_id:
        return ProbeResult(ProbeOutcome.UNREACHABLE, "the endpoint answers for another VM")
    return ProbeResult(outcome, f"/health answered {status}", report)
