"""The platform's settings: the one place on the cloud side that knows names of environment variables.

All faults are told at once, each with the setting's name, what it was and what it must be. Connects to
nothing.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from vm_health.errors import ConfigError
from vm_health.policy_book import PolicyBook
from vm_health.settings_table import (
    Secret,
    Setting,
    choice,
    list_of,
    number,
    read_values,
    unknown_names,
    whole,
)
from vm_watchdog.ingestion_target import read_connection_string
from vm_watchdog.policy_file import DEFAULT_POLICY_FILE, load_policy

PREFIX = "WATCHDOG_"
_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def guid(text: str) -> str:
    """A GUID, made lower-case."""
    if not _GUID.fullmatch(text):
        raise ValueError("a GUID such as 00000000-0000-0000-0000-000000000000")
    return text.lower()


def https_url(text: str) -> str:
    """An https URL: Azure's SDKs refuse to send tokens over anything less."""
    if not _is_url(text, ("https",)):
        raise ValueError("an https:// URL without user, query or fragment")
    return text.rstrip("/")


def web_url(text: str) -> str:
    """An http or https URL."""
    if not _is_url(text, ("https", "http")):
        raise ValueError("an http:// or https:// URL without user, query or fragment")
    return text.rstrip("/")


def secret_url(text: str) -> Secret:
    """An http or https URL that may hold a token in any of its parts."""
    parts = _split(text)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an http:// or https:// URL")
    return Secret(text)


def secret_connection_string(text: str) -> Secret:
    """The connection string of an Application Insights resource."""
    read_connection_string(text)
    return Secret(text)


def switch(text: str) -> bool:
    """On or off, in the words that settings files use."""
    if text.lower() in ("on", "true", "1"):
        return True
    if text.lower() in ("off", "false", "0"):
        return False
    raise ValueError("on or off")


def network(text: str) -> IpNetwork:
    """An IP network in CIDR form."""
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise ValueError("IP networks in CIDR form such as 10.0.0.0/8, separated by commas") from None


def policy_path(text: str) -> Path:
    """A file's path; a relative one starts at the function app's own directory."""
    return DEFAULT_POLICY_FILE.parent / text


def _is_url(text: str, schemes: tuple[str, ...]) -> bool:
    parts = _split(text)
    if parts is None or parts.query or parts.fragment or parts.username:
        return False
    return parts.scheme in schemes and bool(parts.hostname)


def _split(text: str) -> SplitResult | None:
    """Split a URL, None where it is none: what ``urlsplit`` raises may repeat a secret."""
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - raises for a port that is none
    except ValueError:
        return None
    return parts


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "SUBSCRIPTIONS",
        "",
        list_of(guid),
        "ids of the subscriptions whose VMs are watched, separated by commas.",
        required=True,
    ),
    Setting(
        "WORKSPACE_ID",
        "",
        guid,
        "id (a GUID, not the resource id) of the Log Analytics workspace that the agents report to.",
        required=True,
    ),
    Setting(
        "TABLE_ENDPOINT",
        "",
        https_url,
        "URL of the storage account's table service; the Functions host's own storage is taken if not set.",
        alias="AzureWebJobsStorage__tableServiceUri",
        required=True,
    ),
    Setting(
        "QUEUE_ENDPOINT",
        "",
        https_url,
        "URL of the storage account's queue service; the Functions host's own storage is taken if not set.",
        alias="AzureWebJobsStorage__queueServiceUri",
        required=True,
    ),
    Setting(
        "SCHEDULE",
        "0 * * * * *",
        str,
        "When the watchdog looks at the fleet: NCRONTAB with seconds, UTC. Read by the Functions host.",
    ),
    Setting("MODE", "on", choice("on", "observe"), "on: act. observe: decide and record, restart nothing."),
    Setting("ARM_ENDPOINT", "https://management.azure.com", https_url, "Azure Resource Manager."),
    Setting(
        "ARM_AUDIENCE",
        "https://management.azure.com",
        https_url,
        "What tokens for Azure Resource Manager are asked for; differs in sovereign clouds.",
    ),
    Setting("LOGS_ENDPOINT", "https://api.loganalytics.io", https_url, "The Log Analytics query API."),
    Setting(
        "LOGS_AUDIENCE",
        "https://api.loganalytics.io",
        https_url,
        "What tokens for Log Analytics are asked for; differs in sovereign clouds.",
    ),
    Setting(
        "TELEMETRY_WINDOW_MINUTES",
        "60",
        number(1, 1440),
        "How far back the fleet query looks: a VM silent for longer has no snapshot at all.",
    ),
    Setting(
        "PROBE_NETWORKS",
        "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7",
        list_of(network),
        "Where probes may go. Link-local addresses are never probed, whatever stands here.",
    ),
    Setting("PROBE_TIMEOUT_SECONDS", "3", number(0.1, 30), "How long a probe may take, in seconds."),
    Setting("PROBE_CONCURRENCY", "100", whole(1, 1000), "How many probes run at once."),
    Setting("SHARD_SIZE", "500", whole(1, 10_000), "VMs that one instance looks at before work is split."),
    Setting(
        "LIVE_MAX_AGE_SECONDS",
        "180",
        number(10, 86_400),
        "/api/live answers 503 when the last tick is older than this, in seconds.",
    ),
    Setting(
        "TELEMETRY_CONNECTION_STRING",
        "",
        secret_connection_string,
        "Application Insights that the watchdog's own event goes to at each tick; it must come back through"
        " the fleet query, else telemetry is not believed. The Functions host's own is taken if not set.",
        absent=Secret(),
        secret=True,
        alias="APPLICATIONINSIGHTS_CONNECTION_STRING",
    ),
    Setting(
        "TELEMETRY_AUTH",
        "key",
        choice("key", "entra"),
        "How that event authenticates: by the connection string's key, or by the managed identity.",
    ),
    Setting(
        "CANARY_URL",
        "",
        web_url,
        "An address in the VMs' network that the watchdog must reach at each tick, else all action is frozen;"
        " empty: none is asked.",
    ),
    Setting(
        "DEADMAN_URL",
        "",
        secret_url,
        "Pinged after each completed tick, so that an outside monitor notices a watchdog that has stopped.",
        absent=Secret(),
        secret=True,
    ),
    Setting(
        "SIGN_IN",
        "off",
        switch,
        "on: App Service authentication guards the app, so that its header names who asks. The platform's own"
        " word is taken if not set.",
        alias="WEBSITE_AUTH_ENABLED",
    ),
    Setting(
        "POLICY_FILE",
        DEFAULT_POLICY_FILE.name,
        policy_path,
        "The policy, a TOML file; a relative path starts at the function app's own directory.",
    ),
    Setting(
        "ALERT_WEBHOOK_URL",
        "",
        secret_url,
        "Receives every alert as JSON; empty: alerts are only logged.",
        absent=Secret(),
        secret=True,
    ),
    Setting("DASHBOARD_URL", "", web_url, "Link to the dashboard that alerts carry."),
    Setting("PORTAL_URL", "https://portal.azure.com", web_url, "Link to the Azure portal that alerts carry."),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the cloud side needs to know. Fields are named as the settings are."""

    subscriptions: tuple[str, ...]
    workspace_id: str
    table_endpoint: str
    queue_endpoint: str
    schedule: str
    mode: str
    arm_endpoint: str
    arm_audience: str
    logs_endpoint: str
    logs_audience: str
    telemetry_window_minutes: float
    probe_networks: tuple[IpNetwork, ...]
    probe_timeout_seconds: float
    probe_concurrency: int
    shard_size: int
    live_max_age_seconds: float
    telemetry_connection_string: Secret
    telemetry_auth: str
    canary_url: str
    deadman_url: Secret
    sign_in: bool
    book: PolicyBook
    alert_webhook_url: Secret
    dashboard_url: str
    portal_url: str


def from_environment() -> Settings:
    """Read the settings of this process; see :func:`load`."""
    return load(os.environ)


def load(environ: Mapping[str, str]) -> Settings:
    """Read all settings and the policy file they name.

    Raises:
        ConfigError: with every fault; unknown ``WATCHDOG_*`` names are faults too, with the nearest one.
    """
    faults = unknown_names(
        (name for name in environ if name.startswith(PREFIX)), {PREFIX + setting.name for setting in SETTINGS}
    )
    values = read_values(SETTINGS, PREFIX, environ, faults)
    book = load_policy(values.pop("policy_file"), faults)
    if faults:
        raise ConfigError("settings of the watchdog", faults)
    return Settings(book=book, **values)
