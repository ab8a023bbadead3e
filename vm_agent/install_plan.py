"""What ``vm-agent install`` puts where, as a list of steps. Pure: it reads, writes and runs nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vm_agent.polkit_rule import RULES_FILE, rule

USER = "vm-agent"
UNIT = "vm-agent.service"
REPAIR_TIMER = "vm-agent-repair.timer"
PROGRAM = "/opt/vm-agent/bin/vm-agent"
ALLOW_LIST = "/etc/vm-agent/allow-units"
CONFIG_FILE = "/etc/vm-agent/agent.toml"
_UNITS = "/etc/systemd/system"


@dataclass(frozen=True, slots=True)
class WriteFile:
    """Write ``text`` to ``path``, or ``keep`` what is there; ``for_agent``: its group may read it."""

    path: str
    text: str
    keep: bool = False
    for_agent: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """Run a command; ``why`` is for people."""

    command: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the administrator asked for. ``connection_string`` goes into the settings file if that is new."""

    units: tuple[str, ...] = ()
    restart: bool = False
    connection_string: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """What is known of this machine: how the agent is started here, and whether polkit runs rules.

    ``allowed`` are the lines of the allow-list that is there.
    """

    program: tuple[str, ...] = (PROGRAM,)
    import_path: str = ""
    polkit_has_rules: bool = True
    allowed: tuple[str, ...] = ()


def plan(wanted: Wanted, machine: Machine, sources: dict[str, str]) -> list[WriteFile | Run]:
    """Return every step in order; ``sources`` are the texts of deploy/systemd by their names."""
    units = sorted({*names_in(machine.allowed), *wanted.units})
    by_timer = wanted.restart and not machine.polkit_has_rules
    steps: list[WriteFile | Run] = [
        WriteFile(f"/etc/sysusers.d/{USER}.conf", sources[f"{USER}.sysusers.conf"]),
        Run(("systemd-sysusers", f"/etc/sysusers.d/{USER}.conf"), "makes the user vm-agent"),
        WriteFile(ALLOW_LIST, allow_list_text(machine.allowed, wanted.units)),
        WriteFile(CONFIG_FILE, config_text(wanted, repairs=not by_timer), keep=True, for_agent=True),
        WriteFile(f"{_UNITS}/{UNIT}", sources[UNIT]),
    ]
    if machine.program != (PROGRAM,):
        text = drop_in(machine.program, machine.import_path, "run")
        steps.append(WriteFile(f"{_UNITS}/{UNIT}.d/10-program.conf", text))
    if machine.polkit_has_rules:
        steps.append(WriteFile(RULES_FILE, rule(units, USER)))
    started = [UNIT]
    if by_timer:
        service = REPAIR_TIMER.replace(".timer", ".service")
        steps += [WriteFile(f"{_UNITS}/{name}", sources[name]) for name in (service, REPAIR_TIMER)]
        if machine.program != (PROGRAM,):
            text = drop_in(
                machine.program,
                machine.import_path,
                "check --restart",
                "VM_AGENT_STATE_DIR=/var/lib/vm-agent-remediate",
            )
            steps.append(WriteFile(f"{_UNITS}/{service}.d/10-program.conf", text))
        started.append(REPAIR_TIMER)
    return [
        *steps,
        Run(("systemctl", "daemon-reload"), "reads the units"),
        Run(("systemctl", "enable", *started), "starts it at each boot"),
        Run(("systemctl", "restart", *started), "starts it now, with what was written"),
    ]


def names_in(lines: Iterable[str]) -> list[str]:
    """Return the unit names in the lines of an allow-list."""
    return [name for line in lines if (name := line.partition("#")[0].strip())]


def allow_list_text(lines: Sequence[str], units: Iterable[str]) -> str:
    """Return the allow-list with ``units`` added; what is in it stays, comments too."""
    known = names_in(lines)
    head = lines or (
        "# Units that vm-agent may restart, one a line. Root's file: nobody else may write here.",
    )
    return "\n".join([*head, *(unit for unit in units if unit not in known)]) + "\n"


def config_text(wanted: Wanted, *, repairs: bool) -> str:
    """Return a new settings file; everything that is not asked for is there as a comment."""
    listed = ", ".join(f'"{unit}"' for unit in wanted.units)
    target = wanted.connection_string
    key = "applicationinsights_connection_string"
    return "\n".join(
        [
            "# Settings of vm-agent: names as in `vm-agent run --help`, in lower case and without VM_AGENT_.",
            "# After a change: systemctl restart vm-agent",
            f"units = [{listed}]" if wanted.units else '#units = ["nginx.service"]',
            f"{key} = {_toml(target)}" if target else f'#{key} = "InstrumentationKey=…;IngestionEndpoint=…"',
            "restart = true" if wanted.restart and repairs else "#restart = true",
            '#alert = true\n#alert_webhook_url = "https://…"',
            '#listen_address = "0.0.0.0"\n#listen_port = 8080',
            "",
        ]
    )


def drop_in(program: Sequence[str], import_path: str, arguments: str, *variables: str) -> str:
    """Return a unit's drop-in that starts the agent from where it is installed here."""
    words = [f"PYTHONPATH={import_path}"] if import_path else []
    words = [*variables, *words]
    command = [*(("/usr/bin/env", *words) if words else ()), *program]
    return (
        f"# Written by `vm-agent install`.\n[Service]\nExecStart=\nExecStart={_words(command)} {arguments}\n"
    )


def _words(command: Iterable[str]) -> str:
    """Write words for ExecStart=: quoted where need be, nothing of them expanded."""
    return " ".join(
        word
        if re.fullmatch(r"[\w/.:=+-]+", word)
        else '"' + re.sub(r'(["\\])', r"\\\1", word).replace("%", "%%").replace("$", "$$") + '"'
        for word in command
    )


def _toml(text: str) -> str:
    escaped = re.sub(r'(["\\])', r"\\\1", text)
    return f'"{escaped}"'
