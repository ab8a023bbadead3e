"""A managed run command (v2) as a resource: read from a PUT's body, shown with and without its state."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from devcloud.arm import ArmError, Operation
from devcloud.arm_run_command import bad_request, named_parameters
from devcloud.vms.base import SimulatedVm

_LONGEST_SECONDS = 90 * 60
_RETURNED = ("source", "parameters", "asyncExecution", "timeoutInSeconds", "treatFailureAsDeploymentFailure")


@dataclass(slots=True)
class RunCommand:
    """One run command of a VM and how far it came."""

    name: str
    location: str
    properties: Mapping[str, Any]
    environment: Mapping[str, str]
    timeout_seconds: float
    provisioning_state: str = "Creating"
    execution_state: str = "Pending"
    message: str = ""
    exit_code: int = 0
    output: str = ""
    error: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    started: asyncio.Event = field(default_factory=asyncio.Event)
    operation: Operation | None = None
    script_task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        return self.script_task is not None and not self.script_task.done()


def read_command(name: str, body: dict[str, Any]) -> RunCommand:
    """Read a PUT's body; raises ArmError."""
    if not isinstance(body.get("location"), str):
        raise ArmError(400, "LocationRequired", "The location property is required for this definition.")
    properties = body.get("properties")
    source = properties.get("source") if isinstance(properties, dict) else None
    script = source.get("script") if isinstance(source, dict) else None
    if not isinstance(properties, dict) or not isinstance(script, str) or not script:
        raise bad_request("properties.source.script: must be the script's text")
    timeout = properties.get("timeoutInSeconds", _LONGEST_SECONDS)
    if isinstance(timeout, bool) or not isinstance(timeout, int) or not 0 < timeout <= _LONGEST_SECONDS:
        raise bad_request(f"timeoutInSeconds: got {timeout!r}, must be 1 to {_LONGEST_SECONDS}")
    environment = named_parameters(properties.get("parameters"))
    environment |= named_parameters(properties.get("protectedParameters"))
    return RunCommand(name, body["location"], properties, environment, float(timeout))


def command_body(vm: SimulatedVm, command: RunCommand, *, expand: bool) -> dict[str, Any]:
    """The resource as ARM returns it."""
    properties = {key: command.properties[key] for key in _RETURNED if key in command.properties}
    properties["provisioningState"] = command.provisioning_state
    if expand:
        properties["instanceView"] = _instance_view(command)
    return {
        "name": command.name,
        "id": f"{vm.spec.vm_id}/runCommands/{command.name}",
        "type": "Microsoft.Compute/virtualMachines/runCommands",
        "location": command.location,
        "properties": properties,
    }


def _instance_view(command: RunCommand) -> dict[str, Any]:
    view: dict[str, Any] = {
        "executionState": command.execution_state,
        "executionMessage": command.message,
        "exitCode": command.exit_code,
        "output": command.output,
        "error": command.error,
    }
    if command.started_at is not None:
        view["startTime"] = command.started_at.isoformat()
    if command.ended_at is not None:
        view["endTime"] = command.ended_at.isoformat()
    return view
