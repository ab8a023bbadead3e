"""Managed Run Command (v2): resources under a VM, run in parallel, each with a time-out; DELETE ends one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from aiohttp import web

from devcloud.arm import ArmError, Operation, Operations
from devcloud.arm_run_command import (
    agent_ready,
    bad_request,
    is_stuck,
    json_object,
    named_parameters,
    tail,
)
from devcloud.compute import VM, require_started
from devcloud.log_tables import utc_now
from devcloud.vms.base import SimulatedVm

LIMIT = 25
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


class ManagedRunCommands:
    """``.../runCommands``: PUT, GET, LIST, DELETE."""

    def __init__(
        self,
        find: Callable[[web.Request], SimulatedVm],
        operations: Operations,
        *,
        agent_wait_seconds: float = 3.0,
    ) -> None:
        self._find = find
        self._operations = operations
        self._agent_wait_seconds = agent_wait_seconds
        self._commands: dict[str, dict[str, RunCommand]] = {}

    def add_routes(self, app: web.Application) -> None:
        """Serve the resources."""
        app.router.add_get(VM + "/runCommands", self.run_commands_list)
        app.router.add_put(VM + "/runCommands/{name}", self.run_command_put)
        app.router.add_get(VM + "/runCommands/{name}", self.run_commands_get)
        app.router.add_delete(VM + "/runCommands/{name}", self.run_commands_delete)

    def interrupt(self, vm_name: str) -> None:
        """End what runs in a VM that goes down."""
        for command in self._commands.get(vm_name.lower(), {}).values():
            if command.script_task is not None:
                command.script_task.cancel()

    async def close(self) -> None:
        """End everything that still runs."""
        for vm_name in self._commands:
            self.interrupt(vm_name)
        tasks = [
            command.script_task
            for commands in self._commands.values()
            for command in commands.values()
            if command.script_task is not None
        ]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def run_command_put(self, request: web.Request) -> web.Response:
        """Run a script: 201 for a new name, 200 for one that is run again."""
        vm, commands, name = self._addressed(request)
        command = _read(request.match_info["name"], await json_object(request))
        require_started(vm)
        earlier = commands.get(name)
        if earlier is not None and earlier.running:
            raise ArmError(409, "Conflict", f"Run command '{command.name}' is still in progress.")
        if earlier is None and len(commands) >= LIMIT:
            message = f"The VM '{vm.spec.name}' has {LIMIT} run commands already, the most that it can have."
            raise ArmError(409, "OperationNotAllowed", message)
        if earlier is not None:
            command.provisioning_state = "Updating"
        commands[name] = command
        command.script_task = asyncio.create_task(self._run(vm, command, stuck=is_stuck(request)))
        command.operation = self._operations.start(self._provision(vm, command))
        status = 201 if earlier is None else 200
        body = _body(vm, command, expand=False)
        return self._operations.accepted(request, command.operation, vm.spec, status=status, body=body)

    async def run_commands_get(self, request: web.Request) -> web.Response:
        """One run command; what it did stands in the instance view, which must be asked for."""
        vm, commands, name = self._addressed(request)
        if name not in commands:
            raise _not_found(request)
        return web.json_response(_body(vm, commands[name], expand=_expands(request)))

    async def run_commands_list(self, request: web.Request) -> web.Response:
        """All run commands of a VM."""
        vm = self._find(request)
        commands = self._commands.get(vm.spec.name.lower(), {})
        expand = _expands(request)
        return web.json_response(
            {"value": [_body(vm, command, expand=expand) for command in commands.values()]}
        )

    async def run_commands_delete(self, request: web.Request) -> web.Response:
        """Remove a run command, ending its script if it runs; 204 where there is none."""
        vm, commands, name = self._addressed(request)
        command = commands.get(name)
        if command is None:
            return web.Response(status=204)

        async def work() -> None:
            if command.script_task is not None:
                command.script_task.cancel()
                await asyncio.gather(command.script_task, return_exceptions=True)
            if commands.get(name) is command:
                del commands[name]

        return self._operations.accepted(request, self._operations.start(work()), vm.spec)

    def _addressed(self, request: web.Request) -> tuple[SimulatedVm, dict[str, RunCommand], str]:
        vm = self._find(request)
        commands = self._commands.setdefault(vm.spec.name.lower(), {})
        return vm, commands, request.match_info["name"].lower()

    async def _run(self, vm: SimulatedVm, command: RunCommand, *, stuck: bool) -> None:
        try:
            await agent_ready(vm, self._agent_wait_seconds)
            command.execution_state = "Running"
            command.started_at = utc_now()
            command.started.set()
            if stuck:
                await asyncio.Event().wait()
            result = await vm.run_script(
                command.properties["source"]["script"], command.environment, command.timeout_seconds
            )
        except ArmError as error:
            command.message = str(error)
            command.execution_state = "Unknown"
            raise
        except asyncio.CancelledError:
            command.execution_state = "Canceled"
            command.ended_at = utc_now()
            raise
        else:
            command.exit_code = result.exit_code
            command.output, command.error = tail(result.stdout), tail(result.stderr)
            failed = "TimedOut" if result.timed_out else "Failed"
            command.execution_state = "Succeeded" if result.exit_code == 0 else failed
            command.ended_at = utc_now()
        finally:
            command.started.set()

    async def _provision(self, vm: SimulatedVm, command: RunCommand) -> dict[str, Any]:
        """ARM's side: with asyncExecution it is done once the script has started."""
        task = command.script_task
        assert task is not None
        if command.properties.get("asyncExecution"):
            await command.started.wait()
        else:
            await asyncio.wait([task])
        if task.done() and not task.cancelled() and (failure := task.exception()) is not None:
            command.provisioning_state = "Failed"
            raise failure
        strict = command.properties.get("treatFailureAsDeploymentFailure")
        if strict and task.done() and command.execution_state != "Succeeded":
            command.provisioning_state = "Failed"
            message = f"Run command '{command.name}' ended as {command.execution_state}: {command.exit_code}."
            raise ArmError(409, "VMExtensionProvisioningError", message)
        command.provisioning_state = "Succeeded"
        return _body(vm, command, expand=False)


def _read(name: str, body: dict[str, Any]) -> RunCommand:
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


def _body(vm: SimulatedVm, command: RunCommand, *, expand: bool) -> dict[str, Any]:
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


def _expands(request: web.Request) -> bool:
    return request.query.get("$expand", "").lower() == "instanceview"


def _not_found(request: web.Request) -> ArmError:
    vm, name, group = (request.match_info[part] for part in ("vm", "name", "group"))
    kind = f"Microsoft.Compute/virtualMachines/{vm}/runCommands/{name}"
    message = f"The Resource '{kind}' under resource group '{group}' was not found."
    return ArmError(404, "ResourceNotFound", message)
