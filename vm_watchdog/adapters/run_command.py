"""Restarts through Azure Run Command. The script is a constant; names go in as named parameters only.

The managed lane (v2) first: parallel, with a time-out, deletable. The action lane (v1) where the managed one
is not supported. Nothing here waits for a command to end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from azure.core.exceptions import AzureError, HttpResponseError, ResourceExistsError, ResourceNotFoundError

from vm_health.errors import NotFoundError
from vm_health.names import is_token, is_unit_name
from vm_health.state import RestartUnit
from vm_watchdog.azure_errors import retry_after_seconds, short, translated
from vm_watchdog.ports import CommandResult, StartKind, StartOutcome, Target

if TYPE_CHECKING:
    from vm_watchdog.compute_clients import ComputeClients

COMMAND_PREFIX = "watchdog-"
TIMEOUT_SECONDS = 120
RESULT_MARKER = "VM_AGENT_RESULT "

# Both lanes turn *named* parameters into environment variables; unnamed ones are appended unquoted to a
# shell line (Azure/run-command-handler-linux) and are never used.
SCRIPT = (
    "PATH=/opt/vm-agent/bin:$PATH",
    "if ! command -v vm-agent >/dev/null; then",
    """  echo 'VM_AGENT_RESULT {"result":"failed","reason":"vm-agent is not installed on this VM"}'""",
    "  exit 7",
    "fi",
    'exec vm-agent remediate --unit "$UNIT" --token "$TOKEN"',
)
_FINISHED = frozenset({"Failed", "Succeeded", "TimedOut", "Canceled"})
# The SDK would sleep for as long as ``Retry-After`` says, inside the tick and with every other VM waiting.
# The backoff is where attempts are repeated.
_ONCE = {"polling": False, "retry_total": 0}


class AzureRunCommand:
    """Starts restarts and reads their results through azure-mgmt-compute."""

    def __init__(self, clients: ComputeClients) -> None:
        self._clients = clients

    async def start_restart(self, target: Target, restart: RestartUnit) -> StartOutcome:
        """Ask Azure to restart a unit; how that went is the result, never an exception."""
        if not is_unit_name(restart.unit) or not is_token(restart.token):
            return StartOutcome(StartKind.FAILED, "refused: not a systemd unit name", "none")
        try:
            await self._start_managed(target, restart)
            return StartOutcome(StartKind.STARTED, "restart sent through Run Command")
        except ResourceNotFoundError as error:
            return await self._start_action(target, restart, short(error))
        except HttpResponseError as error:
            if error.status_code == 400:  # the managed lane is not supported for this VM
                return await self._start_action(target, restart, short(error))
            return _refusal(error, "managed")
        except AzureError as error:
            return StartOutcome(StartKind.FAILED, short(error))

    async def take_result(self, target: Target, token: str) -> CommandResult | None:
        """Return a finished managed command's result and delete it (Azure keeps 25 a VM at most)."""
        client = await self._clients.get(target.subscription_id)
        commands, name = client.virtual_machine_run_commands, COMMAND_PREFIX + token
        try:
            with translated(f"reading the result of {name}"):
                command: Any = await commands.get_by_virtual_machine(
                    target.resource_group, target.name, name, expand="instanceView"
                )
                view = command.properties and command.properties.instance_view
                # Read as JSON: the SDK's enums are no StrEnum, their str() is "ExecutionState.SUCCEEDED".
                state = "" if view is None else str(view.get("executionState"))
                if state not in _FINISHED:
                    return None
                await commands.begin_delete(target.resource_group, target.name, name, polling=False)
        except NotFoundError:
            return None
        return _result(state, view.exit_code, view.output or "", view.error or "")

    async def _start_managed(self, target: Target, restart: RestartUnit) -> None:
        commands: Any = (await self._clients.get(target.subscription_id)).virtual_machine_run_commands
        await commands.begin_create_or_update(
            target.resource_group,
            target.name,
            COMMAND_PREFIX + restart.token,
            {
                "location": target.location,
                "properties": {
                    "source": {"script": "\n".join(SCRIPT)},
                    "parameters": _parameters(restart),
                    "asyncExecution": False,
                    "timeoutInSeconds": TIMEOUT_SECONDS,
                },
            },
            **_ONCE,
        )

    async def _start_action(self, target: Target, restart: RestartUnit, why: str) -> StartOutcome:
        machines: Any = (await self._clients.get(target.subscription_id)).virtual_machines
        try:
            await machines.begin_run_command(
                target.resource_group,
                target.name,
                {
                    "commandId": "RunShellScript",
                    "script": list(SCRIPT),
                    "parameters": _parameters(restart),
                },
                **_ONCE,
            )
        except HttpResponseError as error:
            return _refusal(error, "action")
        except AzureError as error:
            return StartOutcome(StartKind.FAILED, short(error), "action")
        detail = f"restart sent through action Run Command, for the managed one said: {why}"
        return StartOutcome(StartKind.STARTED, detail, "action")


def _parameters(restart: RestartUnit) -> list[dict[str, str]]:
    return [{"name": "UNIT", "value": restart.unit}, {"name": "TOKEN", "value": restart.token}]


def _refusal(error: HttpResponseError, lane: str) -> StartOutcome:
    code = str(getattr(error.error, "code", "") or "")
    text = short(error)
    if error.status_code == 429:
        wait = retry_after_seconds(error)
        asked = "" if wait is None else f", asked to wait {wait:.0f} s"
        return StartOutcome(StartKind.THROTTLED, f"Azure throttles Run Command{asked}", lane)
    if isinstance(error, ResourceExistsError) or error.status_code == 409:
        not_running = code == "OperationNotAllowed"
        return StartOutcome(StartKind.NOT_RUNNING if not_running else StartKind.BUSY, text, lane)
    if error.status_code in (401, 403):
        return StartOutcome(StartKind.FORBIDDEN, text, lane)
    return StartOutcome(StartKind.FAILED, text, lane)


def _result(state: str, exit_code: int | None, output: str, error: str) -> CommandResult:
    said = _marked_line(output)
    succeeded = state == "Succeeded" and exit_code == 0
    if said:
        detail = f"{said.get('result', 'no result')}"[:40]
        reason = str(said.get("reason") or "")[:200]
        return CommandResult(succeeded, f"{detail}: {reason}" if reason else detail, said)
    tail = (error.strip() or output.strip())[-200:]
    return CommandResult(succeeded, f"{state}, exit code {exit_code}: {tail}")


def _marked_line(output: str) -> Mapping[str, Any]:
    for line in reversed(output.splitlines()):
        if line.startswith(RESULT_MARKER):
            try:
                value = json.loads(line[len(RESULT_MARKER) :])
            except (ValueError, RecursionError):
                return {}
            return value if isinstance(value, dict) else {}
    return {}
