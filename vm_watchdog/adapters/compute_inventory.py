"""Inventory from Azure Resource Manager: which VMs opted in, whether they run, and whether ARM changes them.

Reads plain JSON for eight fields: the SDK's models cost 1.5 ms of CPU a VM, this 0.1 to 0.2 (measured).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from azure.core.rest import HttpRequest

from vm_health.errors import NotFoundError
from vm_health.model import PowerState
from vm_watchdog.arm_calls import COMPUTE_API, json_of, pages, send, vm_path
from vm_watchdog.azure_errors import translated
from vm_watchdog.ports import TAG_MODE, Target

if TYPE_CHECKING:
    from vm_watchdog.compute_clients import ComputeClients

_VM_ID = re.compile(
    r"/subscriptions/(?P<subscription>[^/]+)/resourceGroups/(?P<group>[^/]+)"
    r"/providers/Microsoft\.Compute/virtualMachines/(?P<name>[^/]+)",
    re.IGNORECASE,
)
_MODES = frozenset({"on", "observe"})
_POWER = {f"PowerState/{state}": state for state in PowerState}


class ComputeInventory:
    """Lists through azure-mgmt-compute's pipeline; one client a subscription."""

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
        path = vm_path(match["subscription"], match["group"], match["name"])
        request = HttpRequest("GET", path, params=COMPUTE_API | {"$expand": "instanceView"})
        try:
            with translated(f"reading VM {match['name']}"):
                vm = json_of(await send(client, request))
        except NotFoundError:
            return None
        fields = _fields(vm)
        return None if fields is None else Target(**fields, power=_power(vm))

    async def _list_one(self, subscription: str) -> Sequence[Target]:
        # Two lists, not one: the list with status is documented for status alone, and whether it carries
        # tags is not. Lists are cheap (300 a minute); a VM missed for want of its tag is not.
        opted_in, power = await asyncio.gather(self._opted_in(subscription), self._power_by_id(subscription))
        unknown = PowerState.UNKNOWN
        return [Target(**fields, power=power.get(fields["vm_id"], unknown)) for fields in opted_in]

    async def _opted_in(self, subscription: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        async for vms in self._pages(subscription):
            found += filter(None, map(_fields, vms))
        return found

    async def _power_by_id(self, subscription: str) -> dict[str, PowerState]:
        found: dict[str, PowerState] = {}
        async for vms in self._pages(subscription, statusOnly="true"):
            found |= {str(vm.get("id")).lower(): _power(vm) for vm in vms}
        return found

    async def _pages(self, subscription: str, **options: str) -> AsyncIterator[list[dict[str, Any]]]:
        client = await self._clients.get(subscription)
        path = f"/subscriptions/{quote(subscription, safe='')}/providers/Microsoft.Compute/virtualMachines"
        with translated(f"listing the VMs of subscription {subscription}"):
            async for vms in pages(client, path, COMPUTE_API | options):
                yield vms


def _fields(vm: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a Target is made of but for its power, None where the VM did not opt in."""
    tags = {str(name).lower(): str(value) for name, value in (vm.get("tags") or {}).items()}
    match = _VM_ID.fullmatch(str(vm.get("id")))
    if match is None or tags.get(TAG_MODE, "").lower() not in _MODES:
        return None
    properties = vm.get("properties") or {}
    return {
        "vm_id": match[0].lower(),
        "name": match["name"],
        "resource_group": match["group"],
        "subscription_id": match["subscription"],
        "location": str(vm.get("location") or ""),
        "tags": tags,
        "instance_id": str(properties.get("vmId") or ""),
        "is_updating": properties.get("provisioningState") == "Updating",
    }


def _power(vm: Mapping[str, Any]) -> PowerState:
    """Read ``PowerState/…`` from an instance view; ARM may leave it out, and that is UNKNOWN."""
    view = (vm.get("properties") or {}).get("instanceView") or {}
    for status in view.get("statuses") or ():
        code = str(status.get("code"))
        if code.startswith("PowerState/"):
            return _POWER.get(code, PowerState.UNKNOWN)
    return PowerState.UNKNOWN
