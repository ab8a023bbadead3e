"""Virtual machines as ARM's JSON shows them: the resource, its state, and the list of states alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from devcloud.identity import vm_guid
from devcloud.log_tables import utc_now
from devcloud.vms.base import SimulatedVm

STARTED = ("running", "starting")
VM_AGENT_VERSION = "2.11.1.4"


@dataclass(frozen=True, slots=True)
class Shown:
    """A VM as ARM knows it now: with what the machine itself does not know of."""

    vm: SimulatedVm
    power: str  # "" where it isn't known
    is_updating: bool = False
    agent_version: str = VM_AGENT_VERSION


def vm_body(shown: Shown, *, expand: bool = False) -> dict[str, Any]:
    """A VM's resource, with its instance view where asked for."""
    spec = shown.vm.spec
    properties: dict[str, Any] = {
        "vmId": vm_guid(spec),
        "provisioningState": "Updating" if shown.is_updating else "Succeeded",
        "hardwareProfile": {"vmSize": "Standard_B1s"},
        "storageProfile": {"osDisk": {"osType": "Linux", "createOption": "FromImage"}, "dataDisks": []},
        "osProfile": {"computerName": spec.name, "adminUsername": "azureuser"},
        "networkProfile": {"networkInterfaces": []},
    }
    if expand:
        properties["instanceView"] = instance_view(shown)
    return {
        "name": spec.name,
        "id": spec.vm_id,
        "type": "Microsoft.Compute/virtualMachines",
        "location": spec.location,
        "tags": dict(spec.tags),
        "properties": properties,
    }


def status_body(shown: Shown) -> dict[str, Any]:
    """A VM as the list of states has it."""
    # What this call leaves out is not documented; the least it can give is given: no tags. Its ids come
    # with the resource group in capitals, as ARM's VM lists often have it.
    spec = shown.vm.spec
    group = f"/resourceGroups/{spec.resource_group}/"
    return {
        "name": spec.name,
        "id": spec.vm_id.replace(group, f"/resourceGroups/{spec.resource_group.upper()}/"),
        "type": "Microsoft.Compute/virtualMachines",
        "location": spec.location,
        "properties": {"instanceView": instance_view(shown)},
    }


def instance_view(shown: Shown) -> dict[str, Any]:
    """Statuses as ARM lists them; a power state that isn't known is left out."""
    now = utc_now().isoformat()
    state, words = ("updating", "Updating") if shown.is_updating else ("succeeded", "Provisioning succeeded")
    statuses = [_status(f"ProvisioningState/{state}", words, time=now)]
    if shown.power:
        statuses.append(_status(f"PowerState/{shown.power}", f"VM {shown.power}"))
    view: dict[str, Any] = {"statuses": statuses}
    if shown.power in STARTED:
        view |= {"computerName": shown.vm.spec.name, "osName": "linux", "hyperVGeneration": "V2"}
        view["vmAgent"] = {
            "vmAgentVersion": shown.agent_version,
            "statuses": list(_agent_statuses(shown.vm, now)),
        }
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
