"""Reads the agent's settings: environment first, then ``agent.toml``, then defaults.

The only place that looks at the environment. All faults are told at once. It connects to nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from vm_agent.settings import CONFIG_NAME, DEFAULT_CONFIG_FILE, LIMITS, PREFIX, SETTINGS
from vm_agent.urls import TelemetryTarget
from vm_health.errors import ConfigError
from vm_health.rules import Thresholds, threshold_faults
from vm_health.settings_table import Given, Secret, read_values, unknown_names

MAX_FILE_BYTES = 100_000
_CONNECTION_STRING = "APPLICATIONINSIGHTS_CONNECTION_STRING"
SERVICE_ENVIRONMENT_FILE = "/etc/vm-agent/agent.env"


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """What the running agent needs to know. Fields are named as the settings are."""

    units: tuple[str, ...]
    heartbeat_files: tuple[tuple[str, str], ...]  # unit ("" for none) and path
    unit_source: str
    system_bus: str
    disk_mounts: tuple[str, ...]
    journal: str
    log_files: tuple[str, ...]
    log_pattern: re.Pattern[str]
    log_window_seconds: float
    log_interval_seconds: float
    git_checkouts: tuple[str, ...]
    git_interval_seconds: float
    scheduled_events: bool
    deploy_lock_file: str
    sample_interval_seconds: float
    report_interval_seconds: float
    metrics_interval_seconds: float
    listen_address: str
    listen_port: int
    token: Secret
    tls_cert_file: str
    tls_key_file: str
    max_connections: int
    request_timeout_seconds: float
    idle_timeout_seconds: float
    endpoint: str
    telemetry: TelemetryTarget | None
    telemetry_auth: str
    spool_max_bytes: int
    imds_url: str
    vm_id: str
    nudge_url: str
    nudge_key: Secret
    restart: bool
    alert: bool
    alert_webhook_url: Secret
    state_dir: str
    allow_list: str
    root_state_dir: str
    log_file: str
    limits: Thresholds = field(default_factory=Thresholds)

    @property
    def stale_after_seconds(self) -> float:
        """The age from which a sample no longer says how the VM is."""
        return max(3 * self.sample_interval_seconds, 60.0)


@dataclass(frozen=True, slots=True)
class RemediationConfig:
    """What ``remediate`` needs. A fault in any other setting must not stop a repair."""

    allow_list: str
    state_dir: str
    root_state_dir: str


def load(environ: Mapping[str, str], *, restart: bool = False, alert: bool = False) -> AgentConfig:
    """Read the whole configuration; ``restart`` and ``alert`` turn on what the settings may leave off.

    Raises:
        ConfigError: with every fault; unknown names are faults too, with the nearest known one.
    """
    faults: list[str] = []
    table = _read_file(environ, faults)
    faults += _unknown(environ, table)
    values = read_values(SETTINGS, PREFIX, environ, faults, table)
    values |= {"restart": values.get("restart") or restart, "alert": values.get("alert") or alert}
    if values["alert"] and not values.get("alert_webhook_url", True):
        faults.append(f"{PREFIX}ALERT_WEBHOOK_URL must be set for alerts ({PREFIX}ALERT or --alert)")
    given = {setting.key for setting in LIMITS} & values.keys()
    limits = Thresholds(**{key: values.pop(key) for key in given})
    faults += [_as_variables(fault) for fault in threshold_faults(limits)]
    faults += _tls_faults(values)
    if faults:
        raise ConfigError("settings of vm-agent", faults)
    target = values.pop("applicationinsights_connection_string")
    return AgentConfig(**values, telemetry=target, limits=limits)


def load_remediation(environ: Mapping[str, str]) -> RemediationConfig:
    """Read the settings of ``remediate`` and judge no other.

    Raises:
        ConfigError: the file is unreadable or one of them is faulty.
    """
    faults: list[str] = []
    table = _read_file(environ, faults)
    names = ("ALLOW_LIST", "STATE_DIR", "ROOT_STATE_DIR")
    wanted = [setting for setting in SETTINGS if setting.name in names]
    values = read_values(wanted, PREFIX, environ, faults, table)
    if faults:
        raise ConfigError("settings of vm-agent remediate", faults)
    return RemediationConfig(**values)


def deploy_lock_file(environ: Mapping[str, str]) -> str:
    """Return where the deploy lock lies, "" for nowhere; a fault in any other setting stops no deployment.

    Raises:
        ConfigError: the file is unreadable or this setting is faulty.
    """
    faults: list[str] = []
    table = _read_file(environ, faults)
    wanted = [setting for setting in SETTINGS if setting.name == "DEPLOY_LOCK_FILE"]
    values = read_values(wanted, PREFIX, environ, faults, table)
    if faults:
        raise ConfigError("settings of the deploy lock", faults)
    found: str = values["deploy_lock_file"]
    return found


def who_asks(environ: Mapping[str, str]) -> str:
    """Return who called the command, as far as the environment tells."""
    return environ.get("SUDO_USER") or environ.get("USER", "")


def remediation_request(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return unit and token as Run Command hands them over: its named parameters are variables."""
    return environ.get("UNIT", ""), environ.get("TOKEN", "")


def install_request(environ: Mapping[str, str], units: str) -> tuple[tuple[str, ...], str]:
    """Return what ``install`` is asked for: the units, and the connection string if one is given.

    Raises:
        ConfigError: one of them is faulty.
    """
    faults: list[str] = []
    given = {**environ, PREFIX + "UNITS": units} if units else dict(environ)
    wanted = [setting for setting in SETTINGS if setting.name in ("UNITS", _CONNECTION_STRING)]
    values = read_values(wanted, PREFIX, given, faults)
    if faults:
        raise ConfigError("vm-agent install", faults)
    text = environ.get(PREFIX + _CONNECTION_STRING) or environ.get(_CONNECTION_STRING, "")
    return values["units"], text.strip()


def service_manager(environ: Mapping[str, str], pid: int) -> tuple[str, float]:
    """Return systemd's notification socket ("" for none) and its watchdog's time-out (0 for none).

    The time-out counts only where it is meant for this process: children inherit the variables.
    """
    usec, meant_for = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", str(pid))
    seconds = int(usec) / 1e6 if usec.isascii() and usec.isdigit() and meant_for == str(pid) else 0.0
    return environ.get("NOTIFY_SOCKET", ""), seconds


def as_the_service(environ: Mapping[str, str], path: str = SERVICE_ENVIRONMENT_FILE) -> dict[str, str]:
    """Return ``environ``, and behind it what systemd gives the service from ``path`` if that may be read.

    One ``NAME=value`` a line, in quotes or not; what a shell would do with it is not done.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file.read(MAX_FILE_BYTES).splitlines()]
    except OSError:
        return dict(environ)
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith(("#", ";")))
    return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs} | dict(environ)


def is_under_journal(environ: Mapping[str, str]) -> bool:
    """Tell whether systemd has tied the output to the journal, where levels are read from line prefixes."""
    return bool(environ.get("JOURNAL_STREAM"))


def wants_colour(environ: Mapping[str, str]) -> bool:
    """Tell whether colours are wanted where they are possible (https://no-color.org)."""
    return not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def _read_file(environ: Mapping[str, str], faults: list[str]) -> dict[str, Given]:
    variable = PREFIX + CONFIG_NAME
    chosen = environ.get(variable, "")
    path = chosen or DEFAULT_CONFIG_FILE
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES)
    except FileNotFoundError:
        if chosen:
            faults.append(f"{variable} must be a file that exists, was {chosen!r}")
        return {}
    except OSError as error:
        faults.append(f"{variable}: {path} must be readable ({error.strerror})")
        return {}
    import tomllib  # noqa: PLC0415 - most agents are set by their environment and never need it

    try:
        values = tomllib.loads(content.decode())
    except ValueError as error:  # UnicodeDecodeError and TOMLDecodeError are both
        faults.append(f"{path} must be TOML ({error})")
        return {}
    return {key: Given(_as_text(value), f"{key} in {path}") for key, value in values.items()}


def _as_text(value: object) -> str:
    """Write a TOML value the way the environment would have it."""
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _unknown(environ: Mapping[str, str], table: Mapping[str, Given]) -> list[str]:
    """Return a fault for each name of the environment and key of the file that is no setting."""
    variables = {PREFIX + setting.name for setting in SETTINGS} | {PREFIX + CONFIG_NAME}
    keys = {setting.key for setting in SETTINGS}
    return [
        *unknown_names((name for name in environ if name.startswith(PREFIX)), variables),
        *unknown_names(table, keys, where={key: given.where for key, given in table.items()}),
    ]


def _tls_faults(values: Mapping[str, object]) -> list[str]:
    files = {name: values.get(name.lower(), "") for name in ("TLS_CERT_FILE", "TLS_KEY_FILE")}
    given = [name for name, path in files.items() if path]
    if len(given) != 1:
        return []
    (other,) = files.keys() - given
    return [f"{PREFIX}{other} must be set too, or {PREFIX}{given[0]} must not be: https needs both"]


def _as_variables(fault: str) -> str:
    keys = "|".join(setting.key for setting in LIMITS)
    return re.sub(rf"\b({keys})\b", lambda match: PREFIX + match[0].upper(), fault)
