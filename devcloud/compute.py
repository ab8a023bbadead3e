"""Virtual machines as Azure Resource Manager shows and drives them; Run Command is ``arm_run_command``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aiohttp import web

from devcloud.arm import COMPUTE, ArmError, Operations
from devcloud.identity import vm_guid
from devcloud.log_tables import utc_now
from devcloud.vms.base import SimulatedVm

GROUP = "/subscriptions/{subscription}/resourceGroups/{group}"
VMS = GROUP + "/providers/Microsoft.Compute/virtualMachines"
VM = VMS + "/{vm}"
_STARTED = ("running", "starting")


class Compute:
    """Lists, reads, restarts and redeploys the VMs; ``vms`` is keyed by lower-case name.

    ``before_restart`` is called with the name of a VM that goes down: its run commands end there.
    """

    def __init__(
        self,
        vms: Mapping[str, SimulatedVm],
        operations: Operations,
        *,
        page_size: int = 50,
    ) -> None:
        self.page_size = page_size
        self._vms = vms
        self._operations = operations
        self.before_restart: list[Callable[[str], None]] = []

    def add_routes(self, app: web.Application) -> None:
        """Serve lists, one VM, and the actions on it."""
        app.router.add_get(COMPUTE + "/virtualMachines", self.list_all)
        app.router.add_get(VMS, self.list_group)
        app.router.add_get(VM, self.get)
        app.router.add_get(VM + "/instanceView", self.instance_view)
        app.router.add_post(VM + "/restart", self.restart)
        app.router.add_post(VM + "/redeploy", self.redeploy)

    def find(self, request: web.Request) -> SimulatedVm:
        """The VM that the path names; names are case-insensitive as in ARM."""
        subscription, group, name = (request.match_info[part] for part in ("subscription", "group", "vm"))
        in_group = self._in_group(subscription, group)
        vm = next((vm for vm in in_group if vm.spec.name.lower() == name.lower()), None)
        if vm is None:
            raise ArmError(
                404,
                "ResourceNotFound",
                f"The Resource 'Microsoft.Compute/virtualMachines/{name}' under resource group '{group}' "
                "was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix",
            )
        return vm

    async def list_all(self, request: web.Request) -> web.Response:
        """All VMs of a subscription; ``statusOnly=true`` gives power states and little else."""
        vms = self._in_subscription(request.match_info["subscription"])
        if request.query.get("statusOnly", "").lower() == "true":
            return self._page(request, [_status_only(vm) for vm in vms])
        return self._page(request, [vm_body(vm) for vm in vms])

    async def list_group(self, request: web.Request) -> web.Response:
        """The VMs of one resource group."""
        vms = self._in_group(request.match_info["subscription"], request.match_info["group"])
        return self._page(request, [vm_body(vm) for vm in vms])

    async def get(self, request: web.Request) -> web.Response:
        """One VM, with ``$expand=instanceView`` its state too."""
        vm = self.find(request)
        return web.json_response(vm_body(vm, expand=request.query.get("$expand") == "instanceView"))

    async def instance_view(self, request: web.Request) -> web.Response:
        """Power state and VM agent of one VM."""
        return web.json_response(instance_view(self.find(request)))

    async def restart(self, request: web.Request) -> web.Response:
        """Restart a running VM."""
        return self._restart(request)

    async def redeploy(self, request: web.Request) -> web.Response:
        """Move a VM to another host: seen from here, a restart."""
        return self._restart(request)

    def _restart(self, request: web.Request) -> web.Response:
        vm = self.find(request)
        require_started(vm)

        async def work() -> None:
            for interrupt in self.before_restart:
                interrupt(vm.spec.name)
            await vm.restart()

        return self._operations.accepted(request, self._operations.start(work()), vm.spec)

    def _in_subscription(self, subscription: str) -> list[SimulatedVm]:
        vms = [vm for vm in self._vms.values() if vm.spec.subscription_id.lower() == subscription.lower()]
        if not vms and self._vms:
            message = f"The subscription '{subscription}' could not be found."
            raise ArmError(404, "SubscriptionNotFound", message)
        return vms

    def _in_group(self, subscription: str, group: str) -> list[SimulatedVm]:
        in_subscription = self._in_subscription(subscription)
        vms = [vm for vm in in_subscription if vm.spec.resource_group.lower() == group.lower()]
        if not vms:
            raise ArmError(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")
        return vms

    def _page(self, request: web.Request, items: list[dict[str, Any]]) -> web.Response:
        skip = request.query.get("$skiptoken", "0")
        if not skip.isdigit():
            raise ArmError(400, "InvalidParameter", f"$skiptoken: got {skip!r}, must come from a nextLink")
        end = int(skip) + self.page_size
        body: dict[str, Any] = {"value": items[int(skip) : end]}
        if end < len(items):
            address = request.url.origin().join(request.rel_url)
            body["nextLink"] = str(address.update_query({"$skiptoken": str(end)}))
        return web.json_response(body)


def require_started(vm: SimulatedVm) -> None:
    """Refuse as ARM does what needs a VM that runs or is about to."""
    if vm.power_state not in _STARTED:
        message = (
            f"The operation requires the VM '{vm.spec.name}' to be running (or set to run). "
            f"It is {vm.power_state or 'in an unknown state'}."
        )
        raise ArmError(409, "OperationNotAllowed", message)


def vm_body(vm: SimulatedVm, *, expand: bool = False) -> dict[str, Any]:
    """A VM's resource, with its instance view where asked for."""
    spec = vm.spec
    properties: dict[str, Any] = {
        "vmId": vm_guid(spec),
        "provisioningState": "Succeeded",
        "hardwareProfile": {"vmSize": "Standard_B1s"},
        "storageProfile": {"osDisk": {"osType": "Linux", "createOption": "FromImage"}, "dataDisks": []},
        "osProfile": {"computerName": spec.name, "adminUsername": "azureuser"},
        "networkProfile": {"networkInterfaces": []},
    }
    if expand:
        properties["instanceView"] = instance_view(vm)
    return {
        "name": spec.name,
        "id": spec.vm_id,
        "type": "Microsoft.Compute/virtualMachines",
        "location": spec.location,
        "tags": dict(spec.tags),
        "properties": properties,
    }


def _status_only(vm: SimulatedVm) -> dict[str, Any]:
    # What this call leaves out is not documented; the least it can give is given: no tags. Its ids come
    # with the resource group in capitals, as ARM's VM lists often have it.
    spec = vm.spec
    group = f"/resourceGroups/{spec.resource_group}/"
    return {
        "name": spec.name,
        "id": spec.vm_id.replace(group, f"/resourceGroups/{spec.resource_group.upper()}/"),
        "type": "Microsoft.Compute/virtualMachines",
        "location": spec.location,
        "properties": {"instanceView": instance_view(vm)},
    }


def instance_view(vm: SimulatedVm) -> dict[str, Any]:
    """Statuses as ARM lists them; a power state that isn't known is left out."""
    now = utc_now().isoformat()
    statuses = [_status("ProvisioningState/succeeded", "Provisioning succeeded", time=now)]
    if vm.power_state:
        statuses.append(_status(f"PowerState/{vm.power_state}", f"VM {vm.power_state}"))
    view: dict[str, Any] = {"statuses": statuses}
    if vm.power_state in _STARTED:
        view |= {"computerName": vm.spec.name, "osName": "linux", "hyperVGeneration": "V2"}
        view["vmAgent"] = {"vmAgentVersion": "2.11.1.4", "statuses": list(_agent_statuses(vm, now))}
    return view


def _agent_statuses(vm: SimulatedVm, now: str) -> Iterable[dict[str, str]]:
    if vm.vm_agent_ready:
        yield _status("ProvisioningState/succeeded", "Ready", message="Guest Agent is running", time=now)
    else:
        yield _status(
            "ProvisioningState/Unavailable",
            "Not Ready",
            level="Warning",
            message="VM status blob is found but not yet populated.",
            time=now,
        )


def _status(code: str, display: str, *, level: str = "Info", **more: str) -> dict[str, str]:
    return {"code": code, "level": level, "displayStatus": display, **more}
