"""Unit files: written for a simulated VM, and read by the stand-in for systemd. Runs nothing.

The reader knows the part of systemd's syntax that services of a demo use; keys that it doesn't know are
ignored, as systemd ignores them. Source: systemd.service(5), systemd.syntax(7).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

UNIT_NAME = re.compile(r"[A-Za-z0-9:_.\\@-]{1,240}\.service")
ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_C_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "s": " ", "\\": "\\", '"': '"', "'": "'"}
_SECONDS = {"": 1.0, "ms": 1e-3, "us": 1e-6, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_TIME_SPAN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|us|sec|s|min|m|h|)")
RESTART_RULES = ("no", "on-failure", "on-success", "always")


def quoted(word: str) -> str:
    """One word of a unit file's command or environment line, whatever it holds."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return '"' + escaped.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r") + '"'


def command_line(arguments: Sequence[str]) -> str:
    """``ExecStart=`` for these arguments, none of which systemd may expand."""
    return " ".join(quoted(argument.replace("$", "$$")) for argument in arguments)


@dataclass(frozen=True, slots=True)
class UnitFile:
    """A service to install in a simulated VM.

    In ``exec_start`` (see ``command_line``) and the environment's values, ``{root}`` stands for the VM's file
    tree as its processes see it, ``{python}`` for its interpreter and ``{code}`` for this repository there.
    """

    name: str
    exec_start: str
    restart: str = "no"
    restart_seconds: float = 0.1
    environment: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    start_limit_burst: int = 5
    start_limit_interval_seconds: float = 10.0

    def __post_init__(self) -> None:
        faults = [] if UNIT_NAME.fullmatch(self.name) else [f"name: {self.name!r} must be like 'app.service'"]
        if self.restart not in RESTART_RULES:
            faults.append(f"restart: {self.restart!r} must be one of {', '.join(RESTART_RULES)}")
        faults += [
            f"environment: {name!r} must be letters, digits and _"
            for name in self.environment
            if not ENVIRONMENT_NAME.fullmatch(name)
        ]
        if faults:
            raise ValueError("unit file: " + "; ".join(faults))

    def text(self, places: Mapping[str, str]) -> str:
        """The file's content, with ``{root}`` and the like replaced from ``places``."""
        environment = [
            f"Environment={quoted(name + '=' + expanded(value, places))}"
            for name, value in self.environment.items()
        ]
        return "\n".join(
            [
                "[Unit]",
                f"Description={self.description or self.name}",
                f"StartLimitIntervalSec={self.start_limit_interval_seconds:g}",
                f"StartLimitBurst={self.start_limit_burst}",
                "",
                "[Service]",
                f"ExecStart={expanded(self.exec_start, places)}",
                f"Restart={self.restart}",
                f"RestartSec={self.restart_seconds:g}",
                *environment,
                "",
                "[Install]",
                "WantedBy=multi-user.target",
                "",
            ]
        )


def expanded(text: str, places: Mapping[str, str]) -> str:
    """``text`` with each ``{name}`` of ``places`` replaced and all other braces left alone."""
    for name, value in places.items():
        text = text.replace("{" + name + "}", value)
    return text


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """What the stand-in takes from a unit file."""

    description: str
    command: tuple[str, ...]
    restart: str = "no"
    restart_seconds: float = 0.1
    environment: Mapping[str, str] = field(default_factory=dict)
    start_limit_burst: int = 5
    start_limit_interval_seconds: float = 10.0
    stop_timeout_seconds: float = 10.0


def parse_unit(name: str, text: str) -> ServiceSettings:
    """Read a unit file; raises ``ValueError`` with systemd's reason for ``LoadState=bad-setting``."""
    values: dict[str, str] = {}
    environment: dict[str, str] = {}
    for line in re.sub(r"\\\n", " ", text).splitlines():
        key, equals, value = line.strip().partition("=")
        if not equals or key.startswith(("#", ";", "[")):
            continue
        if key.strip() == "Environment":
            pairs = (word.partition("=") for word in words(value))
            environment |= {variable: content for variable, _, content in pairs}
        else:
            values[key.strip()] = value.strip()
    command = tuple(word.replace("$$", "$") for word in words(values.get("ExecStart", "")))
    if not command:
        raise ValueError("Service has no ExecStart=")
    restart = values.get("Restart", "no")
    return ServiceSettings(
        description=values.get("Description", name),
        command=command,
        restart=restart if restart in RESTART_RULES else "no",
        restart_seconds=seconds(values.get("RestartSec", "100ms")),
        environment=environment,
        start_limit_burst=int(values.get("StartLimitBurst", "5")),
        start_limit_interval_seconds=seconds(values.get("StartLimitIntervalSec", "10")),
        stop_timeout_seconds=seconds(values.get("TimeoutStopSec", "10")),
    )


def seconds(text: str) -> float:
    """A time span such as ``5``, ``200ms`` or ``1min 30s`` in seconds."""
    total, position, text = 0.0, 0, text.strip()
    while position < len(text):
        match = _TIME_SPAN.match(text, position)
        if match is None:
            raise ValueError(f"time span: {text!r} must be like '5', '200ms' or '1min 30s'")
        total += float(match[1]) * _SECONDS[match[2]]
        position = match.end()
    return total


def words(line: str) -> list[str]:
    """Split as systemd does: blanks part words, quotes hold them together, C escapes and ``%%`` count."""
    found: list[str] = []
    current: str | None = None
    quote, position = "", 0
    while position < len(line):
        character = line[position]
        following = line[position + 1 : position + 2]
        position += 1
        if character == "\\" and following:
            current = (current or "") + _C_ESCAPES.get(following, "\\" + following)
            position += 1
        elif character == quote:
            quote = ""
        elif not quote and character in "\"'":
            quote, current = character, current or ""
        elif not quote and character.isspace():
            if current is not None:
                found.append(current)
            current = None
        else:
            current = (current or "") + character
            if character == "%" and following == "%":
                position += 1
    return found if current is None else [*found, current]
