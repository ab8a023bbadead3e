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


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """What the running agent needs to know. Fields are named as the settings are."""

    units: tuple[str, ...]
    heartbeat_files: tuple[str, ...]
    disk_mounts: tuple[str, ...]
    sample_interval_seconds: float
    report_interval_seconds: float
    listen_address: str
    listen_port: int
    endpoint: str
    telemetry: TelemetryTarget | None
    telemetry_auth: str
    imds_url: str
    vm_id: str
    nudge_url: str
    nudge_key: Secret
    state_dir: str
    allow_list: str
    root_state_dir: str
    limits: Thresholds = field(default_factory=Thresholds)

    @property
    def stale_after_seconds(self) -> float:
        """The age from which a sample no longer says how the VM is."""
        return max(3 * self.sample_interval_seconds, 60.0)


@dataclass(frozen=True, slots=True)
class RemediationConfig:
    """What ``remediate`` needs. A fault in any other setting must not stop a repair."""

    allow_list: str
    root_state_dir: str


def load(environ: Mapping[str, str]) -> AgentConfig:
    """Read the whole configuration.

    Raises:
        ConfigError: with every fault; unknown names are faults too, with the nearest known one.
    """
    faults: list[str] = []
    table = _read_file(environ, faults)
    faults += _unknown(environ, table)
    values = read_values(SETTINGS, PREFIX, environ, faults, table)
    given = {setting.key for setting in LIMITS} & values.keys()
    limits = Thresholds(**{key: values.pop(key) for key in given})
    faults += [_as_variables(fault) for fault in threshold_faults(limits)]
    if faults:
        raise ConfigError("settings of vm-agent", faults)
    target = values.pop("applicationinsights_connection_string")
    return AgentConfig(**values, telemetry=target, limits=limits)


def load_remediation(environ: Mapping[str, str]) -> RemediationConfig:
    """Read the two settings of ``remediate`` and judge no other.

    Raises:
        ConfigError: the file is unreadable or one of the two is faulty.
    """
    faults: list[str] = []
    table = _read_file(environ, faults)
    wanted = [setting for setting in SETTINGS if setting.name in ("ALLOW_LIST", "ROOT_STATE_DIR")]
    values = read_values(wanted, PREFIX, environ, faults, table)
    if faults:
        raise ConfigError("settings of vm-agent remediate", faults)
    return RemediationConfig(**values)


def remediation_request(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return unit and token as Run Command hands them over: its named parameters are variables."""
    return environ.get("UNIT", ""), environ.get("TOKEN", "")


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


def _as_variables(fault: str) -> str:
    keys = "|".join(setting.key for setting in LIMITS)
    return re.sub(rf"\b({keys})\b", lambda match: PREFIX + match[0].upper(), fault)
