"""Inventory from Azure Resource Manager: which VMs opted in, and whether they run."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vm_health.errors import NotFoundError
from vm_health.model import PowerState
from vm_watchdog.azure_errors import translated
from vm_watchdog.ports import TAG_MODE, Target

if TYPE_CHECKING:
    from azure.mgmt.compute.aio import ComputeManagementClient

    from vm_watchdog.compute_clients import ComputeClients

_VM_ID = re.compile(
    r"/subscriptions/(?P<subscription>[^/]+)/resourceGroups/(?P<group>[^/]+)"
    r"/providers/Microsoft\.Compute/virtualMachines/(?P<name>[^/]+)",
    re.IGNORECASE,
)
_MODES = frozenset({"on", "observe"})


class ComputeInventory:
    """Lists through azure-mgmt-compute; one client a subscription."""

    def __init__(self, clients: ComputeClients, subscriptions: Sequence[str]) -> None:
        self._clients = clients
        self._subscriptions = tuple(subscriptions)

    async def list_targets(self) -> Sequence[Target]:
        """Return the opted-in VMs of every subscription.

        Raises:
            TransientError, PermanentError: a list failed; half an inventory is none.
        """
        found = await asyncio.gather(*(self._list_one(name) for name in self._subscriptions))
        return [target for targets in found for target in targets]

    async def get_target(self, vm_id: str) -> Target | None:
        """Return one VM with its power state, None where it is gone or not opted in."""
        match = _VM_ID.fullmatch(vm_id)
        if match is None or match["subscription"] not in self._subscriptions:
            return None
        client = await self._clients.get(match["subscription"])
        try:
            with translated(f"reading VM {match['name']}"):
                vm = await client.virtual_machines.get(match["group"], match["name"], expand="instanceView")
        except NotFoundError:
            return None
        return _target(vm, vm)

    async def _list_one(self, subscription: str) -> Sequence[Target]:
        client = await self._clients.get(subscription)
        # Two lists, not one: the list with status is documented for status alone, and whether it carries
        # tags is not. Lists are cheap (300 a minute); a VM missed for want of its tag is not.
        vms, with_status = await asyncio.gather(
            self._list(client, subscription), self._list(client, subscription, status_only="true")
        )
        status_by_id = {str(vm.id).lower(): vm for vm in with_status}
        targets = (_target(vm, status_by_id.get(str(vm.id).lower())) for vm in vms)
        return [target for target in targets if target is not None]

    async def _list(self, client: ComputeManagementClient, subscription: str, **options: str) -> list[Any]:
        with translated(f"listing the VMs of subscription {subscription}"):
            return [vm async for vm in client.virtual_machines.list_all(**options)]


def _target(vm: Any, with_status: Any | None) -> Target | None:
    tags = {str(name).lower(): str(value) for name, value in (vm.tags or {}).items()}
    match = _VM_ID.fullmatch(str(vm.id))
    if match is None or tags.get(TAG_MODE, "").lower() not in _MODES:
        return None
    return Target(
        vm_id=str(vm.id).lower(),
        name=match["name"],
        resource_group=match["group"],
        subscription_id=match["subscription"],
        location=str(vm.location),
        power=_power(with_status),
        tags=tags,
    )


def _power(vm: Any | None) -> PowerState:
    """Read ``PowerState/…`` from an instance view; ARM may leave it out, and that is UNKNOWN."""
    view = None if vm is None or vm.properties is None else vm.properties.instance_view
    for status in (view and view.statuses) or ():
        kind, _, value = str(status.code).partition("/")
        if kind == "PowerState":
            return PowerState(value) if value in frozenset(PowerState) else PowerState.UNKNOWN
    return PowerState.UNKNOWN
