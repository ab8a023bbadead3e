"""The managed lane of Run Command (v2): parallel, with a time-out, deletable, 25 commands a VM at most.

Raises what the SDK raises, but for results: those are this project's own errors.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from azure.core.exceptions import AzureError, HttpResponseError

from vm_health.errors import NotFoundError
from vm_health.state import CommandResult, RestartUnit
from vm_watchdog.arm_calls import ONCE, error_code, within
from vm_watchdog.azure_errors import MAX_DETAIL_CHARS, short, translated
from vm_watchdog.ports import Target
from vm_watchdog.run_command_answers import managed_result
from vm_watchdog.run_command_script import COMMAND_PREFIX, SCRIPT, TIMEOUT_SECONDS, parameters

if TYPE_CHECKING:
    from vm_watchdog.compute_clients import ComputeClients

_log = logging.getLogger(__name__)

HUNG_AFTER = timedelta(seconds=TIMEOUT_SECONDS + 60)
# A VM takes 12 such calls at once and 4 a minute (compute-throttling-limits): the restart itself needs two.
MOST_CLEARED = 8
_FINISHED = frozenset({"Failed", "Succeeded", "TimedOut", "Canceled"})
_GIVEN_UP = frozenset({"Failed", "Canceled"})
# The message stands in MicrosoftDocs/azure-docs#117976; which status and code come with it could not be
# verified, so that neither is looked at.
_FULL = re.compile(r"maximum number of managed run commands", re.IGNORECASE)
_NOT_SUPPORTED = re.compile(r"not support|unsupported", re.IGNORECASE)
# What ARM says of a request that is malformed in itself: the other lane would not take it either.
_MALFORMED = frozenset(
    {
        "InvalidParameter",
        "InvalidParameterConflictingProperties",
        "InvalidRequestContent",
        "InvalidRequestFormat",
        "InvalidApiVersionParameter",
        "MissingApiVersionParameter",
        "LocationRequired",
    }
)


def is_full(error: AzureError) -> bool:
    """Tell whether a VM has as many managed commands as it can have."""
    return _FULL.search(error.message or "") is not None


def is_unsupported(error: AzureError) -> bool:
    """Tell whether a VM does not take managed commands at all: ARM64, an old VM agent."""
    status = error.status_code if isinstance(error, HttpResponseError) else None
    if status == 404:  # ExtensionNotFoundForCPUArchitecture on ARM64; the resource type where it is unknown
        return True
    if status in (400, 409) and _NOT_SUPPORTED.search(error.message or ""):
        return True
    return status == 400 and error_code(error) not in _MALFORMED


@dataclass(frozen=True, slots=True)
class Cleared:
    """What stood in the way of another command: ``ours`` of ``total``; ``deleted`` of those are ended now."""

    total: int
    ours: int
    deleted: int

    def __str__(self) -> str:
        others = self.total - self.ours
        left = self.ours - self.deleted
        return (
            f"all {self.total} run commands that this VM can have are taken: {others} by others, "
            f"{left} of ours under way, {self.deleted} of ours being cleared away"
        )


class ManagedLane:
    """Starts, reads and ends managed run commands. ``now`` is only used to tell hung ones."""

    def __init__(self, clients: ComputeClients, call_seconds: float, now: Callable[[], datetime]) -> None:
        self._clients = clients
        self._seconds = call_seconds
        self._now = now

    async def start(self, target: Target, restart: RestartUnit) -> None:
        """Send a restart."""
        commands = await self._commands(target)
        properties = {
            "source": {"script": "\n".join(SCRIPT)},
            "parameters": parameters(restart),
            "asyncExecution": False,
            "timeoutInSeconds": TIMEOUT_SECONDS,
        }
        body = {"location": target.location, "properties": properties}
        name = COMMAND_PREFIX + restart.token
        async with within(self._seconds):
            await commands.begin_create_or_update(
                target.resource_group, target.name, name, body, polling=False, **ONCE
            )

    async def is_there(self, target: Target, token: str) -> bool:
        """Tell whether there is a command of this token, as far as can be seen."""
        commands = await self._commands(target)
        try:
            async with within(self._seconds):
                await commands.get_by_virtual_machine(
                    target.resource_group, target.name, COMMAND_PREFIX + token, **ONCE
                )
        except AzureError:
            return False
        return True

    async def read_result(self, target: Target, token: str) -> CommandResult | None:
        """Return a finished command's result, None while it runs."""
        commands, name = await self._commands(target), COMMAND_PREFIX + token
        try:
            with translated(f"reading the result of {name}"):
                async with within(self._seconds):
                    command: Any = await commands.get_by_virtual_machine(
                        target.resource_group, target.name, name, expand="instanceView", **ONCE
                    )
        except NotFoundError as error:
            return CommandResult(False, f"the command is gone: {error}")
        if not _has_ended(command):
            return None
        view = command.properties and command.properties.instance_view
        if view is None:
            return CommandResult(False, f"the command ended as {_provisioning(command)}, without a result")
        state = str(view.get("executionState") or "Unknown")
        problem = view.error or view.execution_message or ""
        if state not in _FINISHED:
            return CommandResult(False, f"the command could not be run: {problem[:MAX_DETAIL_CHARS]}")
        return managed_result(state, view.exit_code, view.output or "", problem)

    async def discard(self, target: Target, token: str) -> None:
        """Delete a finished command. Left behind, it would be in the way one day and be cleared then."""
        await self._delete(target, COMMAND_PREFIX + token)

    async def cancel(self, target: Target, token: str) -> CommandResult:
        """End a command; its script in the VM ends with it."""
        problem = await self._delete(target, COMMAND_PREFIX + token)
        if problem:
            return CommandResult(False, f"the command hung and could not be ended: {problem}")
        return CommandResult(False, "the command hung and was ended")

    async def clear(self, target: Target) -> Cleared:
        """Delete our own commands that have ended, or hung for longer than they may run."""
        commands = await self._commands(target)
        async with within(self._seconds):
            found = [
                one
                async for one in commands.list_by_virtual_machine(
                    target.resource_group, target.name, expand="instanceView", **ONCE
                )
            ]
        ours = [one for one in found if str(one.name).startswith(COMMAND_PREFIX)]
        over = [one.name for one in ours if _has_ended(one) or self._has_hung(one)][:MOST_CLEARED]
        problems = await asyncio.gather(*(self._delete(target, name) for name in over))
        return Cleared(len(found), len(ours), problems.count(""))

    async def _delete(self, target: Target, name: str) -> str:
        """Begin to delete a command; return what went wrong, empty where nothing did or none is there."""
        commands = await self._commands(target)
        try:
            async with within(self._seconds):
                await commands.begin_delete(target.resource_group, target.name, name, polling=False, **ONCE)
        except AzureError as error:
            if isinstance(error, HttpResponseError) and error.status_code == 404:
                return ""
            _log.warning("A run command could not be deleted", extra={"command": name, "why": short(error)})
            return short(error)
        return ""

    async def _commands(self, target: Target) -> Any:
        return (await self._clients.get(target.subscription_id)).virtual_machine_run_commands

    def _has_hung(self, command: Any) -> bool:
        view = command.properties and command.properties.instance_view
        started = view.start_time if view is not None else None
        return started is not None and self._now() - started > HUNG_AFTER


def _has_ended(command: Any) -> bool:
    """Tell whether a command has ended, or will never begin: an agent that could not run it at all."""
    view = command.properties and command.properties.instance_view
    # Read as JSON: the SDK's enums are no StrEnum, their str() is "ExecutionState.SUCCEEDED".
    state = "" if view is None else str(view.get("executionState"))
    return state in _FINISHED or _provisioning(command) in _GIVEN_UP


def _provisioning(command: Any) -> str:
    return str((command.properties and command.properties.provisioning_state) or "")
