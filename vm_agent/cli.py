"""The command line. Reads arguments, prints, and turns what happened into an exit code; decides nothing."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from vm_agent import config
from vm_health.errors import ConfigError, WatchdogError
from vm_health.version import VERSION

EXIT_UNKNOWN = 3

_DESCRIPTION = "Watches this VM's services, disks, memory and heartbeat files, serves /health and reports."
_EPILOG = """\
examples:
  VM_AGENT_UNITS=nginx,postgresql vm-agent check     look once: exit code 0 healthy, 1 warning, 2 critical
  vm-agent check --json | jq .findings               the same for programs
  VM_AGENT_UNITS=nginx vm-agent run                  serve http://<this machine>:8080/health until SIGTERM
  curl -i http://127.0.0.1:8080/health               200 while it works, 503 when it does not

settings come from the environment (VM_AGENT_*) and from /etc/vm-agent/agent.toml; `vm-agent run --help`
lists them. Without any it watches the disk / and the memory.
"""
_REMEDIATE_EPILOG = """\
Meant to be called as root by Azure Run Command, which gives UNIT and TOKEN as variables. Restarts the
unit only if /etc/vm-agent/allow-units names it and the token was never used. Prints one line,
VM_AGENT_RESULT {"result": "restarted|refused|duplicate|failed", ...}.

exit codes: 0 restarted, 4 refused, 5 duplicate token, 6 failed

example:
  vm-agent remediate --unit nginx.service --token 2026-11-24-1
"""


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run one command and return the exit code of the process."""
    environ = os.environ if environ is None else environ
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command == "check":
            return _check(environ, as_json=arguments.json)
        if arguments.command == "run":
            return _run(environ)
        if arguments.command == "remediate":
            return _remediate(environ, arguments.unit, arguments.token)
    except WatchdogError as error:
        print(f"vm-agent: {error}", file=sys.stderr)
        return EXIT_UNKNOWN
    except BrokenPipeError:  # `vm-agent check | head -1` is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_UNKNOWN
    print(f"vm-agent {VERSION}")
    return 0


def _check(environ: Mapping[str, str], *, as_json: bool) -> int:
    """Look once, print, and exit as monitoring plugins do."""
    from vm_agent import collectors  # noqa: PLC0415 - each command loads what it needs
    from vm_agent.collectors.base import Round  # noqa: PLC0415
    from vm_agent.render import report_lines  # noqa: PLC0415
    from vm_agent.sampler import Sampler  # noqa: PLC0415
    from vm_health.wire import encode_report  # noqa: PLC0415

    found = config.load(environ)
    looks = Round(collectors.build(found), timeout_seconds=8.0)
    sampler = Sampler(looks, found.limits, vm_id=lambda: found.vm_id, endpoint=lambda: found.endpoint)
    report = sampler.take(datetime.now(UTC))
    if as_json:
        print(encode_report(report))
    else:
        colour = sys.stdout.isatty() and config.wants_colour(environ)
        print("\n".join(report_lines(report, colour)))
    sys.stdout.flush()
    return report.status.exit_code


def _run(environ: Mapping[str, str]) -> int:
    from vm_agent import logs, service  # noqa: PLC0415

    found = config.load(environ)
    logs.configure()
    return service.run(found)


def _remediate(environ: Mapping[str, str], unit: str | None, token: str | None) -> int:
    from vm_agent.remediation import Remediation, Result, remediate_here  # noqa: PLC0415

    given_unit, given_token = config.remediation_request(environ)
    unit = given_unit if unit is None else unit
    token = given_token if token is None else token
    try:
        done = remediate_here(unit, token, datetime.now(UTC), config.load_remediation(environ))
    except ConfigError as error:
        done = Remediation(Result.REFUSED, unit[:256], token[:64], "; ".join(error.faults)[:500])
    print(done.line(), flush=True)
    return done.result.exit_code


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "vm-agent", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=raw
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="run|check|remediate|version")
    run = commands.add_parser(
        "run", help="watch, serve /health and report until SIGTERM", formatter_class=raw
    )
    run.epilog = _settings_help()
    check = commands.add_parser("check", help="look once; exit code 0, 1, 2 or 3", formatter_class=raw)
    check.add_argument("--json", action="store_true", help="print the report as /health serves it")
    check.epilog = "exit codes: 0 HEALTHY, 1 WARNING, 2 CRITICAL, 3 not known (settings, for one)"
    remediate = commands.add_parser(
        "remediate",
        help="restart one allowed unit, once for a token",
        epilog=_REMEDIATE_EPILOG,
        formatter_class=raw,
    )
    remediate.add_argument("--unit", metavar="U", help="full name of the unit; default: the variable UNIT")
    remediate.add_argument("--token", metavar="T", help="fencing token; default: the variable TOKEN")
    commands.add_parser("version", help="print the version")
    return parser


def _settings_help() -> str:
    from vm_agent.settings import PREFIX, SETTINGS  # noqa: PLC0415

    lines = [
        f"  {PREFIX}{setting.name}\n      {setting.help}"
        + (f" Default: {setting.default}" if setting.default else "")
        for setting in SETTINGS
    ]
    return "settings:\n" + "\n".join(lines)
