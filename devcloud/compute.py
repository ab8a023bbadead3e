"""Virtual machines as Azure Resource Manager lists and drives them; Run Command is ``arm_run_command``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from devcloud.activity_log import ActivityLog, caller_of
from devcloud.arm import COMPUTE, ArmError, Operations
from devcloud.arm_vm_body import STARTED, VM_AGENT_VERSION, Shown, instance_view, status_body, vm_body
from devcloud.vms.base import SimulatedVm

GROUP = "/subscriptions/{subscription}/resourceGroups/{group}"
VMS = GROUP + "/providers/Microsoft.Compute/virtualMachines"
VM = VMS + "/{vm}"


class Compute:
    """Lists, reads, starts, stops, restarts and redeploys the VMs; ``vms`` is keyed by lower-case name.

    ``before_restart`` is called with the name of a VM that goes down: its run commands end there.
    ``vm_agent_versions`` may give a VM, by its name, another version of Azure's VM agent.
    """

    def __init__(
        self,
        vms: Mapping[str, SimulatedVm],
        operations: Operations,
        activity: ActivityLog,
        *,
        page_size: int = 50,
    ) -> None:
        self.page_size = page_size
        self._vms = vms
        self._operations = operations
        self._activity = activity
        self._powered_off: set[str] = set()
        self.vm_agent_versions: dict[str, str] = {}
        self.before_restart: list[Callable[[str], None]] = []

    def add_routes(self, app: web.Application) -> None:
        """Serve lists, one VM, and the actions on it."""
        app.router.add_get(COMPUTE + "/virtualMachines", self.list_all)
        app.router.add_get(VMS, self.list_group)
        app.router.add_get(VM, self.get)
        app.router.add_get(VM + "/instanceView", self.instance_view)
        app.router.add_post(VM + "/restart", self.restart)
        app.router.add_post(VM + "/redeploy", self.redeploy)
        app.router.add_post(VM + "/deallocate", self.deallocate)
        app.router.add_post(VM + "/powerOff", self.power_off)
        app.router.add_post(VM + "/start", self.start)

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
            return self._page(request, [status_body(self._shown(vm)) for vm in vms])
        return self._page(request, [vm_body(self._shown(vm)) for vm in vms])

    async def list_group(self, request: web.Request) -> web.Response:
        """The VMs of one resource group."""
        vms = self._in_group(request.match_info["subscription"], request.match_info["group"])
        return self._page(request, [vm_body(self._shown(vm)) for vm in vms])

    async def get(self, request: web.Request) -> web.Response:
        """One VM, with ``$expand=instanceView`` its state too."""
        vm = self.find(request)
        return web.json_response(
            vm_body(self._shown(vm), expand=request.query.get("$expand") == "instanceView")
        )

    async def instance_view(self, request: web.Request) -> web.Response:
        """Power state and VM agent of one VM."""
        return web.json_response(instance_view(self._shown(self.find(request))))

    async def restart(self, request: web.Request) -> web.Response:
        """Restart a running VM."""
        vm = self.find(request)
        require_started(vm)
        return self._change(request, vm, "restart", vm.restart)

    async def redeploy(self, request: web.Request) -> web.Response:
        """Move a VM to another host: seen from here, a restart."""
        vm = self.find(request)
        require_started(vm)
        return self._change(request, vm, "redeploy", vm.restart)

    async def deallocate(self, request: web.Request) -> web.Response:
        """Stop a VM and give its host back."""
        vm = self.find(request)
        return self._change(request, vm, "deallocate", vm.stop)

    async def power_off(self, request: web.Request) -> web.Response:
        """Stop a VM that stays on its host, and is paid for."""
        vm = self.find(request)

        async def work() -> None:
            await vm.stop()
            self._powered_off.add(vm.spec.name)

        return self._change(request, vm, "powerOff", work)

    async def start(self, request: web.Request) -> web.Response:
        """Start a VM; one that runs goes on running."""
        vm = self.find(request)
        return self._change(request, vm, "start", vm.start)

    def _change(
        self, request: web.Request, vm: SimulatedVm, verb: str, change: Callable[[], Awaitable[None]]
    ) -> web.Response:
        caller = caller_of(request)

        async def work() -> None:
            if verb != "start":
                for interrupt in self.before_restart:
                    interrupt(vm.spec.name)
            self._powered_off.discard(vm.spec.name)
            await change()
            self._activity.record(vm.spec, verb, caller)

        self._activity.record(vm.spec, verb, caller, status="Accepted")
        operation = self._operations.start(work(), changes=vm.spec.name)
        return self._operations.accepted(request, operation, vm.spec)

    def _shown(self, vm: SimulatedVm) -> Shown:
        off = vm.power_state == "deallocated" and vm.spec.name in self._powered_off
        return Shown(
            vm,
            "stopped" if off else vm.power_state,
            self._operations.is_changing(vm.spec.name),
            self.vm_agent_versions.get(vm.spec.name, VM_AGENT_VERSION),
        )

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
    if vm.power_state not in STARTED:
        message = "The operation requires the VM to be running (or set to run)."
        raise ArmError(409, "OperationNotAllowed", message)
