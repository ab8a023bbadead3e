"""Reads the agent's settings: environment first, then ``agent.toml``, then defaults.

The only place that looks at the environment. All faults are told at once. It connects to nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from vm_agent.kinds import Secret
from vm_agent.settings import CONFIG_NAME, DEFAULT_CONFIG_FILE, LIMITS, PREFIX, SETTINGS, Setting
from vm_agent.urls import TelemetryTarget
from vm_health.errors import ConfigError
from vm_health.rules import Thresholds, threshold_faults

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


@dataclass(frozen=True, slots=True)
class _Given:
    """A setting's text and where it was found."""

    text: str
    where: str


def load(environ: Mapping[str, str]) -> AgentConfig:
    """Read the whole configuration.

    Raises:
        ConfigError: with every fault; unknown names are faults too, with the nearest known one.
    """
    faults: list[str] = []
    table = _read_file(environ, faults)
    faults += _unknown(environ, table)
    values = _values(SETTINGS, environ, table, faults)
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
    values = _values(wanted, environ, table, faults)
    if faults:
        raise ConfigError("settings of vm-agent remediate", faults)
    return RemediationConfig(**values)


def remediation_request(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return unit and token as Run Command hands them over: its named parameters are variables."""
    return environ.get("UNIT", ""), environ.get("TOKEN", "")


def wants_colour(environ: Mapping[str, str]) -> bool:
    """Tell whether colours are wanted where they are possible (https://no-color.org)."""
    return not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def _values(
    settings: Iterable[Setting], environ: Mapping[str, str], table: Mapping[str, _Given], faults: list[str]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for setting in settings:
        given = _given(setting, environ, table)
        if given is None and not setting.default:
            values[setting.key] = setting.absent
            continue
        found = given or _Given(setting.default, setting.variable)
        try:
            values[setting.key] = setting.parse(found.text)
        except ValueError as error:
            was = "a secret that is not shown" if setting.secret else repr(found.text[:200])
            faults.append(f"{found.where} must be {error}, was {was}")
    return values


def _given(setting: Setting, environ: Mapping[str, str], table: Mapping[str, _Given]) -> _Given | None:
    """Find a setting's text; an empty variable counts as not given, as systemd's files often hold them."""
    for name in (setting.variable, setting.alias):
        text = environ.get(name, "").strip() if name else ""
        if text:
            return _Given(text, name)
    return table.get(setting.key)


def _read_file(environ: Mapping[str, str], faults: list[str]) -> dict[str, _Given]:
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
    return {key: _Given(_as_text(value), f"{key} in {path}") for key, value in values.items()}


def _as_text(value: object) -> str:
    """Write a TOML value the way the environment would have it."""
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _unknown(environ: Mapping[str, str], table: Mapping[str, _Given]) -> Iterator[str]:
    variables = {setting.variable for setting in SETTINGS} | {PREFIX + CONFIG_NAME}
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in variables:
            yield f"{name} is not a setting{_nearest(name, variables)}"
    keys = {setting.key for setting in SETTINGS}
    for key, given in sorted(table.items()):
        if key not in keys:
            yield f"{given.where} is not a setting{_nearest(key, keys)}"


def _nearest(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only for the mistaken

    found = get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {found[0]}?" if found else ""


def _as_variables(fault: str) -> str:
    keys = "|".join(setting.key for setting in LIMITS)
    return re.sub(rf"\b({keys})\b", lambda match: PREFIX + match[0].upper(), fault)
