"""Commands and their arguments, as argparse and ``--help`` know them. Names modules, imports none of them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from vm_health.version import VERSION
from vm_watchdog.cli import help_texts as text
from vm_watchdog.cli.output import EXIT_UNKNOWN, EXIT_USAGE

_Commands = argparse._SubParsersAction  # argparse has no public name for it


class Parser(argparse.ArgumentParser):
    """Ends with 64 where the arguments are wrong: argparse's own 2 would read as CRITICAL."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and how it should be."""
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = Parser(
        "vm-watchdog",
        description=text.DESCRIPTION,
        epilog=text.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"vm-watchdog {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_running(commands)
    _add_looking(commands)
    _add_asking(commands)
    _add_silences(commands)
    _add_planning(commands)
    _add_policy(commands)
    return parser


def _command(
    commands: _Commands[Parser], name: str, summary: str, epilog: str, where: str, failure: int = EXIT_UNKNOWN
) -> Parser:
    """Add a command that ``module:function`` runs; ``failure`` is its exit code where Azure fails it."""
    command: Parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module, _, function = where.partition(":")
    command.set_defaults(module=module, function=function, failure=failure)
    command.add_argument("--json", action="store_true", help="print one JSON document")
    return command


def _add_running(commands: _Commands[Parser]) -> None:
    tick = _command(commands, "tick", "look at the whole fleet once, and act", text.TICK, "run:tick", 2)
    tick.add_argument("--record", metavar="FILE", type=Path, help="append what was seen, for `replay`")
    tick.add_argument("--verbose", action="store_true", help="write the log to stderr")
    run = _command(commands, "run", "watch until SIGTERM, without Azure Functions", text.RUN, "run:run", 2)
    run.add_argument("--every", metavar="SECONDS", type=_seconds, default=60.0, help="from tick to tick (60)")
    run.add_argument(
        "--at-once", metavar="N", type=_count, default=16, help="messages of a queue at once (16)"
    )
    run.add_argument(
        "--poll", metavar="SECONDS", type=_seconds, default=0.5, help="how long an empty queue rests (0.5)"
    )
    run.add_argument("--listen", metavar="HOST:PORT", type=_address, help="serve /api/live there")
    run.add_argument("--record", metavar="FILE", type=Path, help="append what was seen, for `replay`")
    run.set_defaults(verbose=True)


def _add_looking(commands: _Commands[Parser]) -> None:
    _command(commands, "status", "say how the fleet stands", text.STATUS, "look:status")
    explain = _command(
        commands, "explain", "look at one VM afresh, doing nothing, and say why", text.EXPLAIN, "look:explain"
    )
    history = _command(
        commands, "history", "say what happened to a VM, and why", text.HISTORY, "history:history"
    )
    for command in (explain, history):
        _name_vm(command)
    history.add_argument("--since", metavar="WHEN", help="from then: 2h (back from now) or an ISO time")
    history.add_argument("--until", metavar="WHEN", help="until then: 2h (back from now) or an ISO time")
    history.add_argument(
        "--at", metavar="TIME", help="what was decided then, and all about it: 03:12 (UTC, the last one)"
    )
    history.add_argument("--limit", metavar="N", type=_count, default=100, help="events at the most (100)")
    would = _command(
        commands, "would-have", "say what was held back or only observed", text.WOULD_HAVE, "look:would_have"
    )
    would.add_argument("--days", metavar="N", type=_count, default=7, help="how far back (7)")


def _add_asking(commands: _Commands[Parser]) -> None:
    restart = _command(
        commands, "restart", "restart a unit now, under the same safety", text.RESTART, "people:restart", 2
    )
    _name_vm(restart)
    restart.add_argument("unit", metavar="UNIT", help="a systemd unit, such as web.service")
    thaw = _command(commands, "thaw", "overrule all freezes for a time", text.THAW, "people:thaw", 2)
    thaw.add_argument("--for", metavar="DURATION", dest="until", required=True, help="such as 30m or 1h")
    for command in (restart, thaw):
        command.add_argument("--why", metavar="TEXT", required=True, help="it is kept in the history")
        command.add_argument("--by", metavar="NAME", help="who asks (the login name)")


def _add_silences(commands: _Commands[Parser]) -> None:
    parts = commands.add_parser(
        "silence", help="keep alerts, action or both from some VMs", description=text.SILENCE_DESCRIPTION
    ).add_subparsers(dest="part", required=True, metavar="add|list|end")
    add = _command(parts, "add", "begin a silence", text.SILENCE_ADD, "people:silence_add", 2)
    add.add_argument("--vm", metavar="NAME", default="", help="VMs of this name; * and ? stand for others")
    add.add_argument("--group", metavar="NAME", default="", help="VMs of this group; * and ? as above")
    add.add_argument("--tag", metavar="K=V", default="", help="VMs with this tag; * and ? in the value")
    add.add_argument("--all", action="store_true", help="every VM")
    ends = add.add_mutually_exclusive_group(required=True)
    ends.add_argument("--for", metavar="DURATION", dest="until", help="such as 30m, 2h or 1d12h")
    ends.add_argument("--until", metavar="TIME", dest="until", help="an ISO time with an offset")
    add.add_argument("--from", metavar="WHEN", dest="starts_at", help="later: a duration or an ISO time")
    add.add_argument(
        "--stops",
        choices=("alerts", "action", "both"),
        default="alerts",
        help="what (alerts); both: maintenance",
    )
    add.add_argument("--why", metavar="TEXT", required=True, help="it is kept in the history")
    _command(parts, "list", "list silences that have not ended", text.SILENCE_LIST, "people:silence_list")
    end = _command(parts, "end", "end a silence now", text.SILENCE_END, "people:silence_end", 2)
    end.add_argument("id", metavar="ID", help="as `silence list` shows it")
    for command in (add, end):
        command.add_argument("--by", metavar="NAME", help="who asks (the login name)")


def _add_planning(commands: _Commands[Parser]) -> None:
    replay = _command(
        commands, "replay", "tell what another policy would have done", text.REPLAY, "replay:run", 2
    )
    replay.add_argument(
        "file", metavar="FILE", type=Path, help="written by `tick --record` or `run --record`"
    )
    replay.add_argument("--policy", metavar="FILE", type=Path, help="the policy (watchdog.toml of the app)")
    replay.add_argument("--against", metavar="FILE", type=Path, help="compare with this policy")
    replay.add_argument("--vm", metavar="NAME", help="this VM only")
    doctor = _command(
        commands, "doctor", "prove identity, permissions and every way out", text.DOCTOR, "doctor:run", 2
    )
    doctor.add_argument("--vm", metavar="VM", help="run one harmless command on this VM")
    doctor.add_argument("--alert", action="store_true", help="send one test alert")
    doctor.add_argument("--timeout", metavar="SECONDS", type=_seconds, default=30.0, help="for a check (30)")
    cost = _command(commands, "cost", "estimate the monthly bill", text.COST, "cost:run")
    cost.add_argument(
        "--vms", metavar="N[,N]", type=_counts, required=True, help="how many; several: a table"
    )
    cost.add_argument("--interval", metavar="SECONDS", type=_seconds, default=60.0, help="tick to tick (60)")
    cost.add_argument(
        "--probe", action=argparse.BooleanOptionalAction, default=True, help="probe /health (yes)"
    )
    cost.add_argument("--report-seconds", metavar="S", type=_seconds, default=60.0, help="agents report (60)")
    cost.add_argument("--metrics-seconds", metavar="S", type=_seconds, default=300.0, help="metrics (300)")
    cost.add_argument("--units", metavar="N", type=_count, default=5, help="units a VM (5)")
    cost.add_argument("--markdown", action="store_true", help="the table as Markdown")


def _add_policy(commands: _Commands[Parser]) -> None:
    parts = commands.add_parser(
        "policy", help="check the policy; show what applies to a VM", description=text.POLICY_DESCRIPTION
    ).add_subparsers(dest="part", required=True, metavar="check|show")
    check = _command(parts, "check", "check a policy file whole", text.POLICY_CHECK, "policy:check")
    check.add_argument(
        "file", metavar="FILE", nargs="?", type=Path, help="the app's watchdog.toml if not given"
    )
    show = _command(
        parts, "show", "show what applies to one VM, and from where", text.POLICY_SHOW, "policy:show"
    )
    show.add_argument("vm", metavar="VM", nargs="?", help="a VM that Azure knows; without: see the options")
    show.add_argument("--name", metavar="NAME", help="a name, without asking Azure")
    show.add_argument("--group", metavar="NAME", default="", help="with VM or --name: its group")
    show.add_argument("--tag", metavar="K=V", action="append", default=[], help="with --name: a tag it has")
    show.add_argument("--file", metavar="FILE", type=Path, help="with --name: another policy file")


def _name_vm(command: argparse.ArgumentParser) -> None:
    command.add_argument("vm", metavar="VM", help="a VM's name, or its full ARM id")
    command.add_argument("--group", metavar="NAME", default="", help="its group, where two have one name")


def _seconds(given: str) -> float:
    try:
        value = float(given)
    except ValueError:
        value = 0.0
    if not 0.05 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"must be a number of seconds from 0.05 to 86400, was {given!r}")
    return value


def _count(given: str) -> int:
    if not (given.isascii() and given.isdigit() and 1 <= int(given[:20]) <= 10_000_000):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 10000000, was {given!r}")
    return int(given)


def _counts(given: str) -> list[int]:
    return [_count(part.strip()) for part in given.split(",")]


def _address(given: str) -> tuple[str, int]:
    host, colon, port = given.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 <= int(port[:6]) <= 65_535:
        raise argparse.ArgumentTypeError(f"must be HOST:PORT such as 127.0.0.1:8080, was {given!r}")
    return host.strip("[]"), int(port)
