"""Restarts through Azure Run Command: picks the lane, and says in words why nothing could be started.

The managed lane (v2) first; the action lane (v1) where the managed one is not supported. Nothing here waits
for a command to end, and no call is repeated: the backoff does that.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from azure.core.exceptions import AzureError

from vm_health.state import CommandRef, CommandResult, Lane, RestartUnit, StartKind, StartOutcome
from vm_watchdog.arm_calls import CALL_SECONDS, ONCE, refusal, within
from vm_watchdog.azure_errors import short
from vm_watchdog.ports import Target
from vm_watchdog.run_command_action import ActionLane
from vm_watchdog.run_command_managed import ManagedLane, is_full, is_unsupported
from vm_watchdog.run_command_script import fault_of

if TYPE_CHECKING:
    from vm_watchdog.compute_clients import ComputeClients

_FIRST_MANAGED_AGENT = (2, 4, 0, 2)  # Azure's VM agent on Linux (run-command-managed.md)
_SENT = "restart sent through Run Command"
_CAN_RUN = frozenset({"running", "starting"})


def _utc_now() -> datetime:
    return datetime.now(UTC)


class AzureRunCommand:
    """Starts restarts and reads their results through azure-mgmt-compute."""

    def __init__(
        self,
        clients: ComputeClients,
        *,
        call_seconds: float = CALL_SECONDS,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._clients = clients
        self._seconds = call_seconds
        self._managed = ManagedLane(clients, call_seconds, now)
        self._action = ActionLane(clients, call_seconds)

    async def start_restart(self, target: Target, restart: RestartUnit) -> StartOutcome:
        """Ask Azure to restart a unit; how that went is the result, never an exception."""
        fault = fault_of(restart)
        if fault:
            return StartOutcome(StartKind.FAILED, fault, Lane.NONE)
        view = await self._view(target)
        refused = None if view is None else _refusal_of(view)
        if refused is not None:
            return refused
        old = "" if view is None else _old_agent(view)
        if old:
            return await self._action.start(target, restart, old)
        return await self._start_managed(target, restart)

    async def read_result(self, target: Target, command: CommandRef) -> CommandResult | None:
        """Return a finished command's result, None while it runs.

        Raises:
            TransientError, PermanentError: it can't be asked for.
        """
        if command.lane is Lane.ACTION:
            return await self._action.read_result(target, command.operation)
        return await self._managed.read_result(target, command.token)

    async def discard(self, target: Target, command: CommandRef) -> None:
        """Clear away a finished command; an action leaves nothing behind."""
        if command.lane is not Lane.ACTION:
            await self._managed.discard(target, command.token)

    async def cancel(self, target: Target, command: CommandRef) -> CommandResult:
        """End a command that has hung, where its lane allows it; says what became of it."""
        if command.lane is Lane.ACTION:
            return self._action.cancel()
        return await self._managed.cancel(target, command.token)

    async def _start_managed(self, target: Target, restart: RestartUnit) -> StartOutcome:
        try:
            await self._managed.start(target, restart)
        except AzureError as error:
            if is_full(error):
                return await self._start_after_clearing(target, restart)
            if is_unsupported(error):
                return await self._action.start(target, restart, short(error))
            outcome = refusal(error, Lane.MANAGED)
            if outcome.kind is StartKind.BUSY and await self._managed.is_there(target, restart.token):
                # aiohttp repeats a PUT that was lost with an idle connection: what it met was our own.
                return StartOutcome(StartKind.STARTED, f"{_SENT}, where it is under way already")
            return outcome
        return StartOutcome(StartKind.STARTED, _SENT)

    async def _start_after_clearing(self, target: Target, restart: RestartUnit) -> StartOutcome:
        try:
            cleared = await self._managed.clear(target)
        except AzureError as error:
            return refusal(error, Lane.MANAGED)
        full = StartOutcome(StartKind.BUSY, str(cleared))
        if not cleared.deleted:
            return full
        try:
            await self._managed.start(target, restart)
        except AzureError as error:  # where Azure is still deleting, the next attempt finds room
            return full if is_full(error) else refusal(error, Lane.MANAGED)
        return StartOutcome(StartKind.STARTED, f"{_SENT}, after old ones were cleared")

    async def _view(self, target: Target) -> Any | None:
        """Return the VM's instance view, None where it can't be read: the call itself will tell then."""
        try:
            machines = (await self._clients.get(target.subscription_id)).virtual_machines
            async with within(self._seconds):
                return await machines.instance_view(target.resource_group, target.name, **ONCE)
        except AzureError:
            return None


def _refusal_of(view: Any) -> StartOutcome | None:
    codes = [str(status.code) for status in view.statuses or ()]
    power = next((code.partition("/")[2] for code in codes if code.startswith("PowerState/")), "")
    if power and power not in _CAN_RUN:
        return StartOutcome(StartKind.NOT_RUNNING, f"the VM is {power}", Lane.NONE)
    for status in (view.vm_agent and view.vm_agent.statuses) or ():
        if status.code == "ProvisioningState/Unavailable" or status.display_status == "Not Ready":
            said = str(status.message or "")[:200]
            return StartOutcome(
                StartKind.AGENT_NOT_READY, f"Azure's VM agent is not ready: {said}", Lane.NONE
            )
    return None


def _old_agent(view: Any) -> str:
    """Say that Azure's VM agent is too old for managed commands, empty where it is not or nothing tells."""
    version = str((view.vm_agent and view.vm_agent.vm_agent_version) or "")
    parts = version.split(".")
    if not version or not all(part.isdecimal() and part.isascii() for part in parts):
        return ""
    too_old = tuple(map(int, parts)) < _FIRST_MANAGED_AGENT
    return f"Azure's VM agent is {version[:20]}, too old for it" if too_old else ""
