"""The command line. Reads arguments, prints, and turns what happened into an exit code; decides nothing."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vm_agent import cli_help, config
from vm_health.errors import ConfigError, TransientError, WatchdogError
from vm_health.version import VERSION

if TYPE_CHECKING:
    from vm_health.model import HealthReport

EXIT_UNKNOWN = 3
MAX_LOCK_MINUTES = 60


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run one command and return the exit code of the process."""
    environ = os.environ if environ is None else environ
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(environ, arguments)
        sys.stdout.flush()
    except WatchdogError as error:
        print(f"vm-agent: {error}", file=sys.stderr)
        return EXIT_UNKNOWN
    except BrokenPipeError:  # `vm-agent check | head -1` is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_UNKNOWN
    except Exception:  # noqa: BLE001 - Python's own exit code for it is 1, and that would read as WARNING
        traceback.print_exc()
        return EXIT_UNKNOWN
    return code


def _check(environ: Mapping[str, str], arguments: argparse.Namespace) -> int:
    """Look once, print, and exit as monitoring plugins do."""
    from vm_agent import logs  # noqa: PLC0415 - each command loads what it needs
    from vm_agent.one_look import look  # noqa: PLC0415

    found = config.load(environ, restart=arguments.restart, alert=arguments.alert)
    # The settings say what the service does; who only looks must not restart anything by that.
    found = replace(found, restart=arguments.restart, alert=arguments.alert)
    if found.restart or found.alert:
        logs.configure(log_file=found.log_file)
    report = look(found)
    _print_report(report, environ, as_json=arguments.json)
    return report.status.exit_code


def _run(environ: Mapping[str, str], arguments: argparse.Namespace) -> int:
    from vm_agent import logs, service  # noqa: PLC0415
    from vm_agent.notify import Notifier  # noqa: PLC0415

    found = config.load(environ, restart=arguments.restart, alert=arguments.alert)
    logs.configure(for_journal=config.is_under_journal(environ), log_file=found.log_file)
    address, watchdog_seconds = config.service_manager(environ, os.getpid())
    return service.run(found, Notifier(address, watchdog_seconds, found.sample_interval_seconds))


def _status(environ: Mapping[str, str], arguments: argparse.Namespace) -> int:
    """Print what the running agent says."""
    from vm_agent import status  # noqa: PLC0415
    from vm_health.wire import encode_report  # noqa: PLC0415

    found = config.load(config.as_the_service(environ))
    try:
        said = status.ask(found)
    except TransientError as error:
        print(f"vm-agent: {status.hint(found, str(error))}", file=sys.stderr)
        return EXIT_UNKNOWN
    if arguments.json:
        print(encode_report(said.report))
    else:
        print("\n".join(status.status_lines(said, _is_colourful(environ))))
    return said.report.status.exit_code


def _install(environ: Mapping[str, str], arguments: argparse.Namespace) -> int:
    from vm_agent import install  # noqa: PLC0415
    from vm_agent.install_plan import Wanted  # noqa: PLC0415

    units, connection_string = config.install_request(environ, arguments.units)
    wanted = Wanted(units, arguments.restart, connection_string)
    install.install(wanted, print, root=arguments.root, dry_run=arguments.dry_run)
    if not arguments.dry_run and arguments.root == "/":
        install.wait_until_it_answers(config.load(config.as_the_service({})), print)
    return 0


def _version(environ: Mapping[str, str], arguments: argparse.Namespace) -> int:
    print(f"vm-agent {VERSION}")
    return 0


def _print_report(report: HealthReport, environ: Mapping[str, str], *, as_json: bool) -> None:
    from vm_agent.render import report_lines  # noqa: PLC0415
    from vm_health.wire import encode_report  # noqa: PLC0415

    if as_json:
        print(encode_report(report))
    else:
        print("\n".join(report_lines(report, _is_colourful(environ))))


def _is_colourful(environ: Mapping[str, str]) -> bool:
    return sys.stdout.isatty() and config.wants_colour(environ)


def _remediate(environ: Mapping[str, str], arguments: argparse.Namespace) -> int:
    from vm_agent.remediation import Remediation, Result, remediate_here  # noqa: PLC0415

    given_unit, given_token = config.remediation_request(environ)
    unit: str = given_unit if arguments.unit is None else arguments.unit
    token: str = given_token if arguments.token is None else arguments.token
    try:
        done = remediate_here(unit, token, datetime.now(UTC), config.load_remediation(environ))
    except ConfigError as error:
        done = Remediation(Result.REFUSED, unit[:256], token[:64], "; ".join(error.faults)[:500])
    print(done.line(), flush=True)
    return done.result.exit_code


def _lock(environ: Mapping[str, str], arguments: argparse.Namespace) -> int:
    from vm_agent import lock_command  # noqa: PLC0415
    from vm_agent.render import lock_text  # noqa: PLC0415

    path = config.deploy_lock_file(config.as_the_service(environ))
    holder = config.who_asks(environ) if arguments.holder is None else arguments.holder
    made, former = lock_command.lock(path, arguments.minutes, holder, datetime.now(UTC))
    if former is not None:
        print(f"takes the place of the lock {lock_text(former)}")
    print(f"locked {lock_text(made)}: nothing is restarted, no alert is sent; `vm-agent unlock` ends it")
    return 0


def _unlock(environ: Mapping[str, str], arguments: argparse.Namespace) -> int:
    from vm_agent import lock_command  # noqa: PLC0415

    was_there = lock_command.unlock(config.deploy_lock_file(config.as_the_service(environ)))
    print("unlocked" if was_there else "there is no deploy lock")
    return 0


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= MAX_LOCK_MINUTES:  # also catches nan
        raise argparse.ArgumentTypeError(
            f"must be a number above 0, {MAX_LOCK_MINUTES} at most, was {text!r}"
        )
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "vm-agent",
        description=cli_help.DESCRIPTION,
        epilog=cli_help.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="run|check|status|install|lock|unlock|remediate|version"
    )
    run = _command(commands, "run", _run, "watch, serve /health and report until SIGTERM", _settings_help())
    check = _command(commands, "check", _check, "look once; exit code 0, 1, 2 or 3", cli_help.CHECK_EPILOG)
    status = _command(commands, "status", _status, "ask the running agent how it is", cli_help.STATUS_EPILOG)
    for command in (check, status):
        command.add_argument("--json", action="store_true", help="print the report as /health serves it")
    for command in (run, check):
        command.add_argument("--restart", action="store_true", help="restart allowed units that are down")
        command.add_argument("--alert", action="store_true", help="send alerts to the configured channel")
    install = _command(commands, "install", _install, "run the agent as a service", cli_help.INSTALL_EPILOG)
    install.add_argument(
        "--units", metavar="A,B", default="", help="units to watch, and to allow restarts of"
    )
    install.add_argument("--restart", action="store_true", help="let the agent itself restart these units")
    install.add_argument("--dry-run", action="store_true", help="only say what would be done")
    install.add_argument("--root", metavar="DIR", default="/", help="write below DIR and run nothing")
    _add_lock_commands(commands)
    remediate = _command(
        commands,
        "remediate",
        _remediate,
        "restart one allowed unit, once for a token",
        cli_help.REMEDIATE_EPILOG,
    )
    remediate.add_argument("--unit", metavar="U", help="full name of the unit; default: the variable UNIT")
    remediate.add_argument("--token", metavar="T", help="fencing token; default: the variable TOKEN")
    _command(commands, "version", _version, "print the version", "")
    return parser


def _add_lock_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    lock = _command(
        commands, "lock", _lock, "keep repair and alerts off during a deployment", cli_help.LOCK_EPILOG
    )
    lock.add_argument(
        "--minutes", metavar="N", type=_minutes, default=15.0, help="how long at most, up to 60; default 15"
    )
    lock.add_argument("--holder", metavar="TEXT", help="who holds it and why; default: who calls")
    _command(commands, "unlock", _unlock, "end the deployment's lock", cli_help.UNLOCK_EPILOG)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[Mapping[str, str], argparse.Namespace], int],
    text: str,
    epilog: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name, help=text, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.set_defaults(run=run)
    return command


def _settings_help() -> str:
    from vm_agent.settings import PREFIX, SETTINGS  # noqa: PLC0415

    lines = [
        f"  {PREFIX}{setting.name}\n      {setting.help}"
        + (f" Default: {setting.default}" if setting.default else "")
        for setting in SETTINGS
    ]
    return "settings:\n" + "\n".join(lines)
