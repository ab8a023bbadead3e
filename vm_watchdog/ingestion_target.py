"""What an Application Insights connection string says, and where its ingestion may send us on to. Pure.

The key and the token that go there are credentials: https, and plain http only where the host is written as
a loopback or private address. A name proves nothing about where it leads. The agent keeps the same rule.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import SplitResult, urljoin, urlsplit

DEFAULT_ENDPOINT = "https://dc.services.visualstudio.com"
TRACK_PATH = "/v2.1/track"
_KEY = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# Azure's own ingestion hosts, in its public, US government and China clouds.
_AZURE_HOSTS = (
    ".applicationinsights.azure.com",
    ".monitor.azure.com",
    ".services.visualstudio.com",
    ".applicationinsights.us",
    ".applicationinsights.azure.us",
    ".monitor.azure.us",
    ".applicationinsights.azure.cn",
    ".monitor.azure.cn",
)


@dataclass(frozen=True, slots=True)
class IngestionTarget:
    """Where telemetry goes. The key may write, so it is not shown."""

    instrumentation_key: str = field(repr=False)
    track_url: str

    @property
    def host(self) -> str:
        """The host and port, for people and logs."""
        return urlsplit(self.track_url).netloc


def read_connection_string(text: str) -> IngestionTarget:
    """Read ``Key=value`` pairs with semicolons between them.

    Raises:
        ValueError: with what it must be; never with what it was, which is a credential.
    """
    pairs = {
        key.strip().lower(): value.strip()
        for key, found, value in (part.partition("=") for part in text.split(";"))
        if found
    }
    key = pairs.get("instrumentationkey", "")
    if _KEY.fullmatch(key) is None:
        raise ValueError("a connection string with InstrumentationKey=<uuid>;IngestionEndpoint=<URL>")
    endpoint = pairs.get("ingestionendpoint") or DEFAULT_ENDPOINT
    parts = _split(endpoint)
    if parts is None or parts.query or parts.fragment:
        raise ValueError(
            "a connection string whose IngestionEndpoint is an https URL (http only to a private address)"
        )
    return IngestionTarget(key, endpoint.rstrip("/") + TRACK_PATH)


def redirect_target(location: str, current: str) -> str:
    """Return where a redirect leads, "" where it must not be followed: https on Azure's own hosts, and the
    origin that is being talked to already, are followed."""
    try:
        target = urljoin(current, location)
    except ValueError:
        return ""
    now, then = _split(current), _split(target)
    if not location or now is None or then is None:
        return ""
    is_azure = then.scheme == "https" and (then.hostname or "").lower().endswith(_AZURE_HOSTS)
    return target if is_azure or (then.scheme, then.netloc) == (now.scheme, now.netloc) else ""


def _split(url: str) -> SplitResult | None:
    """Split a usable URL; None for one with a user name, blanks, no host, or http to anywhere but near."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number
    except ValueError:
        return None
    if not parts.hostname or "@" in parts.netloc or not url.isascii() or not url.isprintable() or " " in url:
        return None
    is_usable = parts.scheme == "https" or (parts.scheme == "http" and _is_near(parts.hostname))
    return parts if is_usable else None


def _is_near(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        found = ip_address(host)
    except ValueError:
        return False
    return (found.is_loopback or found.is_private) and not (found.is_unspecified or found.is_link_local)
