"""What each verb of ``systemctl`` does in a VM without systemd, with the real one's output and exit codes.

Messages and codes were taken from systemd 252. Starts no process itself: services do.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from devcloud.vms.service import Moment, Service, State
from devcloud.vms.systemctl_arguments import Command, parse

_JOB_FAILURES = {
    "exit-code": "the control process exited with error code",
    "signal": "a fatal signal was delivered to the control process",
    "core-dump": "a fatal signal was delivered causing the control process to dump core",
    "timeout": "a timeout was exceeded",
    "start-limit-hit": "start of the service was attempted too often",
}


class Manager(Protocol):
    """The services of the VM, by name."""

    def service(self, name: str) -> Service: ...

    def services(self) -> Iterable[Service]: ...

    def reload(self) -> None: ...


@dataclass(slots=True)
class Answer:
    """What the command prints and how it ends."""

    exit_code: int = 0
    output: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def fail(self, exit_code: int, message: str) -> None:
        self.exit_code = exit_code
        self.errors.append(message)


async def run(manager: Manager, arguments: list[str]) -> Answer:
    """Carry out one command line."""
    command = parse(arguments)
    answer = Answer()
    if command.bad_option:
        answer.fail(1, f"systemctl: unrecognized option '{command.bad_option}'")
    elif command.verb in _PLAIN_VERBS:
        _PLAIN_VERBS[command.verb](manager, command, answer)
    elif command.verb not in _JOB_VERBS:
        answer.fail(1, f"Unknown command verb {command.verb}.")
    elif not command.units:
        answer.fail(1, "Too few arguments.")
    else:
        for name in command.units:
            await _JOB_VERBS[command.verb](manager.service(name), answer)
    return answer


def _show(manager: Manager, command: Command, answer: Answer) -> None:
    shown = (properties(manager.service(name), command.timestamp) for name in command.units)
    blocks = [_block(values, command) for values in shown]
    answer.output.append("\n\n".join(blocks))


def _block(values: dict[str, str], command: Command) -> str:
    # The real one prints in its own order too, whatever the order that was asked for.
    chosen = [(name, value) for name, value in values.items() if name in (command.properties or values)]
    return "\n".join(value if command.values_only else f"{name}={value}" for name, value in chosen)


def properties(service: Service, timestamp_style: str = "pretty") -> dict[str, str]:
    """A unit's properties under systemd's names, in the order in which ``systemctl show`` prints them."""
    settings = service.settings
    values = {
        "Type": "simple" if settings else "",
        "Restart": settings.restart if settings else "no",
        "MainPID": str(service.main_pid),
        "Result": service.result,
        "NRestarts": str(service.restarts),
        "ExecMainCode": str(service.exit_code),
        "ExecMainStatus": str(service.exit_status),
        "Id": service.name,
        "Names": service.name,
        "Description": settings.description if settings else service.name,
        "LoadState": service.load_state,
        "ActiveState": service.state.active_state,
        "SubState": service.state.value,
    }
    moments = {
        "StateChangeTimestamp": service.changed,
        "InactiveExitTimestamp": service.inactive_left,
        "ActiveEnterTimestamp": service.active_entered,
        "ActiveExitTimestamp": service.active_left,
        "InactiveEnterTimestamp": service.inactive_entered,
    }
    for name, moment in moments.items():
        values[name] = formatted(moment, timestamp_style)
        values[f"{name}Monotonic"] = str(moment.monotonic)
    return values


def formatted(moment: Moment, style: str) -> str:
    """A time as ``--timestamp=STYLE`` prints it; empty for never."""
    if not moment.realtime:
        return ""
    whole, micros = divmod(moment.realtime, 1_000_000)
    if style == "unix":
        return f"@{whole}"
    utc = style.endswith("utc")
    parts = time.gmtime(whole) if utc else time.localtime(whole)
    fraction = f".{micros:06d}" if style.startswith(("us", "µs")) else ""
    zone = " UTC" if utc else time.strftime(" %Z", parts)
    return time.strftime("%a %Y-%m-%d %H:%M:%S", parts) + fraction + zone


async def _start(service: Service, answer: Answer) -> None:
    if _startable(service, "start", answer):
        _report_job(service, await service.start(), answer)


async def _restart(service: Service, answer: Answer) -> None:
    if _startable(service, "restart", answer):
        _report_job(service, await service.restart(), answer)


async def _stop(service: Service, answer: Answer) -> None:
    if service.load_state == "not-found" and service.state is State.DEAD:
        answer.fail(5, f"Failed to stop {service.name}: Unit {service.name} not loaded.")
    else:
        await service.stop()


async def _reset_failed(service: Service, answer: Answer) -> None:
    if service.load_state == "not-found":
        name = service.name
        answer.fail(1, f"Failed to reset failed state of unit {name}: Unit {name} not loaded.")
    else:
        service.reset_failed()


async def _enable(service: Service, answer: Answer) -> None:
    if service.load_state == "not-found":
        answer.fail(1, f"Failed to enable unit: Unit file {service.name} does not exist.")


def _startable(service: Service, verb: str, answer: Answer) -> bool:
    if service.load_state == "not-found":
        answer.fail(5, f"Failed to {verb} {service.name}: Unit {service.name} not found.")
    elif service.load_state == "bad-setting":
        answer.fail(
            1,
            f"Failed to {verb} {service.name}: Unit {service.name} has a bad unit file setting.\n"
            f"See system logs and 'systemctl status {service.name}' for details.",
        )
    return service.load_state == "loaded"


def _report_job(service: Service, started: bool, answer: Answer) -> None:
    if not started:
        cause = _JOB_FAILURES.get(service.result)
        answer.fail(
            1,
            f"Job for {service.name} failed{f' because {cause}' if cause else ''}.\n"
            f'See "systemctl status {service.name}" and "journalctl -xeu {service.name}" for details.',
        )


def _is_active(manager: Manager, command: Command, answer: Answer) -> None:
    states = [manager.service(name).state.active_state for name in command.units]
    answer.exit_code = 0 if "active" in states else 3
    answer.output += [] if command.quiet else states


def _is_failed(manager: Manager, command: Command, answer: Answer) -> None:
    states = [manager.service(name).state.active_state for name in command.units]
    answer.exit_code = 0 if "failed" in states else 1
    answer.output += [] if command.quiet else states


def _is_system_running(manager: Manager, _command: Command, answer: Answer) -> None:
    degraded = any(service.state is State.FAILED for service in manager.services())
    answer.exit_code = int(degraded)
    answer.output.append("degraded" if degraded else "running")


def _daemon_reload(manager: Manager, _command: Command, _answer: Answer) -> None:
    manager.reload()


def _list_units(manager: Manager, _command: Command, answer: Answer) -> None:
    for service in manager.services():
        if service.state is State.FAILED:
            description = service.settings.description if service.settings else service.name
            answer.output.append(f"{service.name} {service.load_state} failed failed {description}")


_PLAIN_VERBS: dict[str, Callable[[Manager, Command, Answer], None]] = {
    "show": _show,
    "is-active": _is_active,
    "is-failed": _is_failed,
    "is-system-running": _is_system_running,
    "daemon-reload": _daemon_reload,
    "list-units": _list_units,
}
_JOB_VERBS: dict[str, Callable[[Service, Answer], Awaitable[None]]] = {
    "start": _start,
    "stop": _stop,
    "restart": _restart,
    "try-restart": _restart,
    "reset-failed": _reset_failed,
    "enable": _enable,
    "disable": _enable,
}
