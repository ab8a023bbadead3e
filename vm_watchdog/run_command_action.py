"""The action lane of Run Command (v1): one script at a time per VM, up to 90 minutes, not to be cancelled.

Its result is asked for at the address that the start's answer names; that address never leads elsewhere.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from azure.core.exceptions import AzureError
from azure.core.rest import HttpRequest

from vm_health.errors import ConflictError, NotFoundError
from vm_health.state import CommandResult, Lane, RestartUnit, StartKind, StartOutcome
from vm_health.state_codec import MAX_OPERATION_CHARS
from vm_watchdog.arm_calls import ONCE, json_of, refusal, send, within
from vm_watchdog.azure_errors import translated
from vm_watchdog.ports import Target
from vm_watchdog.run_command_answers import action_result
from vm_watchdog.run_command_script import SCRIPT, parameters

if TYPE_CHECKING:
    from vm_watchdog.compute_clients import ComputeClients

# ARM signs these addresses, with its certificate in the query: some 3,500 characters (azure-cli#32286).
_OPERATION = re.compile(
    r"/subscriptions/(?P<subscription>[0-9a-f-]{36})/providers/Microsoft\.Compute"
    r"/locations/[a-z0-9]{1,40}/operations/[a-z0-9-]{1,100}\?[\w.~%=&+:,-]+",
    re.IGNORECASE | re.ASCII,
)


def operation_of(location: str | None, subscription: str) -> str:
    """Return path and query of an operation's address, empty where it is none of this subscription's."""
    url = urlsplit(location or "")
    path = f"{url.path}?{url.query}"
    return path if is_operation(path, subscription) else ""


def is_operation(path: str, subscription: str) -> bool:
    """Tell whether ``path`` is that of a compute operation in ``subscription``."""
    match = _OPERATION.fullmatch(path) if len(path) <= MAX_OPERATION_CHARS else None
    return match is not None and match["subscription"].lower() == subscription.lower()


class ActionLane:
    """Starts the action and reads its result."""

    def __init__(self, clients: ComputeClients, call_seconds: float) -> None:
        self._clients = clients
        self._seconds = call_seconds

    async def start(self, target: Target, restart: RestartUnit, why: str) -> StartOutcome:
        """Send a restart; ``why`` says what was against the managed lane."""
        machines: Any = (await self._clients.get(target.subscription_id)).virtual_machines
        location: list[str] = []

        def note_location(answer: Any) -> None:
            location.append(answer.http_response.headers.get("Location") or "")

        body = {"commandId": "RunShellScript", "script": list(SCRIPT), "parameters": parameters(restart)}
        try:
            async with within(self._seconds):
                await machines.begin_run_command(
                    target.resource_group,
                    target.name,
                    body,
                    polling=False,
                    raw_response_hook=note_location,
                    **ONCE,
                )
        except AzureError as error:
            return refusal(error, Lane.ACTION)
        operation = operation_of(location[-1] if location else "", target.subscription_id)
        detail = f"restart sent through action Run Command, for the managed one said: {why}"
        return StartOutcome(StartKind.STARTED, detail, Lane.ACTION, operation=operation)

    async def read_result(self, target: Target, operation: str) -> CommandResult | None:
        """Return the result of an action that has ended, None while it runs."""
        if not is_operation(operation, target.subscription_id):
            return CommandResult(False, "how the command ended is not known: Azure gave no address to ask at")
        client = await self._clients.get(target.subscription_id)
        try:
            with translated("reading the result of an action run command"):
                answer = await send(client, HttpRequest("GET", operation), seconds=self._seconds, **ONCE)
                return None if answer.status_code == 202 else action_result(json_of(answer))
        except NotFoundError as error:
            return CommandResult(False, f"the command is gone: {error}")
        except ConflictError as error:
            return CommandResult(False, f"the command failed: {error}")

    def cancel(self) -> CommandResult:
        """Say what it means that an action has hung: Azure has no way to end one."""
        return CommandResult(
            False,
            "the command hung and can't be cancelled: its lane may stay blocked for up to 90 minutes",
        )
