"""Which URLs the agent may talk to, and what an Application Insights connection string says.

Pure. The rule on plain http: allowed only where the host is written as a loopback, link-local or private
address (or "localhost"), never for a public address or a name, whatever is sent. Tokens, the nudge key and
the instrumentation key are credentials all of them, a name proves nothing about where it leads, and one
rule without exceptions is one that can be kept. A relay beside the VM stays possible.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urljoin, urlsplit

from vm_health.settings_table import Secret

DEFAULT_INGESTION_ENDPOINT = "https://dc.services.visualstudio.com"
TRACK_PATH = "/v2.1/track"
_INSTRUMENTATION_KEY = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# Where ingestion may send us on to: Azure's own hosts, in its public, US government and China clouds.
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
_MUST_BE_URL = "an https URL (http only to a loopback or private address)"


@dataclass(frozen=True, slots=True)
class TelemetryTarget:
    """Where telemetry goes. The key may write, so it is not shown."""

    instrumentation_key: str = field(repr=False)
    track_url: str

    @property
    def host(self) -> str:
        """The host and port, for people and logs."""
        return urlsplit(self.track_url).netloc


def url(text: str) -> str:
    """Check a URL that something is sent to."""
    if not is_acceptable(text):
        raise ValueError(_MUST_BE_URL)
    return text


def secret_url(text: str) -> Secret:
    """Check a URL whose path is a credential, as those of webhooks are."""
    return Secret(url(text))


def plain_url(text: str) -> str:
    """Check a URL that is only told to others: any http or https address without user name or query."""
    parts = _split(text)
    if parts is None or parts[0] not in ("http", "https") or "?" in text or "#" in text:
        raise ValueError("an http or https URL such as http://10.0.0.4:8080, without query")
    return text.rstrip("/")


def is_acceptable(text: str) -> bool:
    """Tell whether ``text`` is https, or http to an address that cannot be on the internet."""
    parts = _split(text)
    if parts is None:
        return False
    scheme, host = parts
    return scheme == "https" or (scheme == "http" and _is_near(host))


def connection_string(text: str) -> TelemetryTarget:
    """Read an Application Insights connection string, ``Key=value`` pairs with semicolons between them."""
    pairs = {
        key.strip().lower(): value.strip()
        for key, found, value in (part.partition("=") for part in text.split(";"))
        if found
    }
    key = pairs.get("instrumentationkey", "")
    if _INSTRUMENTATION_KEY.fullmatch(key) is None:
        raise ValueError("a connection string with InstrumentationKey=<uuid>;IngestionEndpoint=<URL>")
    endpoint = pairs.get("ingestionendpoint") or DEFAULT_INGESTION_ENDPOINT
    if not is_acceptable(endpoint):
        raise ValueError(f"a connection string whose IngestionEndpoint is {_MUST_BE_URL}")
    return TelemetryTarget(key, endpoint.rstrip("/") + TRACK_PATH)


def redirect_target(location: str, current: str) -> str:
    """Return where a redirect of ingestion leads, "" where it must not be followed.

    Followed are https on Azure's own hosts, and the origin that is being talked to already.
    """
    try:
        target = urljoin(current, location)
        now, then = urlsplit(current), urlsplit(target)
    except ValueError:
        return ""
    if not location or _split(target) is None:
        return ""
    if (then.scheme, then.netloc) == (now.scheme, now.netloc):
        return target
    host = (then.hostname or "").lower()
    return target if then.scheme == "https" and host.endswith(_AZURE_HOSTS) else ""


def _split(text: str) -> tuple[str, str] | None:
    """Return scheme and host of a usable URL; None for one with a user name, blanks or no host."""
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises where it is no number
    except ValueError:
        return None
    if (
        not parts.hostname
        or "@" in parts.netloc
        or not text.isascii()
        or not text.isprintable()
        or " " in text
    ):
        return None
    return parts.scheme, parts.hostname


def _is_near(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        found = ip_address(host)
    except ValueError:
        return False
    return (found.is_loopback or found.is_private or found.is_link_local) and not found.is_unspecified
