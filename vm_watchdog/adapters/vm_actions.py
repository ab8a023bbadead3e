"""Restarts and redeploys whole VMs through azure-mgmt-compute. Asks, and never waits for the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from azure.core.exceptions import AzureError

from vm_health.state import Lane, StartKind, StartOutcome, VmAction, VmActionKind
from vm_watchdog.arm_calls import CALL_SECONDS, ONCE, refusal, within
from vm_watchdog.ports import Target

if TYPE_CHECKING:
    from vm_watchdog.compute_clients import ComputeClients


class AzureVmActuator:
    """The rungs above Run Command."""

    def __init__(self, clients: ComputeClients, *, call_seconds: float = CALL_SECONDS) -> None:
        self._clients = clients
        self._seconds = call_seconds

    async def start(self, target: Target, action: VmAction) -> StartOutcome:
        """Ask Azure for it; how that went is the result, never an exception."""
        machines = (await self._clients.get(target.subscription_id)).virtual_machines
        redeploys = action.kind is VmActionKind.REDEPLOY
        begin = machines.begin_redeploy if redeploys else machines.begin_restart
        try:
            async with within(self._seconds):
                await begin(target.resource_group, target.name, polling=False, **ONCE)
        except AzureError as error:
            return refusal(error, Lane.NONE)
        done = "redeployed" if redeploys else "restarted"
        return StartOutcome(StartKind.STARTED, f"Azure has begun to have the VM {done}", Lane.NONE)
