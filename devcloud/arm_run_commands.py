"""Managed Run Command (v2): resources under a VM, run in parallel, each with a time-out; DELETE ends one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web

from devcloud.arm import ArmError, Operations
from devcloud.arm_run_command import agent_ready, is_stuck, json_object, tail
from devcloud.arm_run_command_body import RunCommand, command_body, read_command
from devcloud.calls import FAULT
from devcloud.compute import VM, require_started
from devcloud.log_tables import utc_now
from devcloud.vms.base import SimulatedVm

LIMIT = 25
# The message as users report it (azure-docs#117976); its status and code could not be verified.
_FULL = (
    f"The maximum number of managed Run commands (max={LIMIT}, current={LIMIT}) has been exceeded. Use fewer "
    "Run commands and retry the request."
)


class ManagedRunCommands:
    """``.../runCommands``: PUT, GET, LIST, DELETE."""

    def __init__(
        self,
        find: Callable[[web.Request], SimulatedVm],
        operations: Operations,
        *,
        agent_wait_seconds: float = 3.0,
        updates_vm: bool = False,
    ) -> None:
        self._find = find
        self._operations = operations
        self._agent_wait_seconds = agent_wait_seconds
        self._updates_vm = updates_vm
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
        command = read_command(request.match_info["name"], await json_object(request))
        _require_support(request)
        require_started(vm)
        earlier = commands.get(name)
        if earlier is not None and earlier.running:
            raise ArmError(409, "Conflict", f"Run command '{command.name}' is still in progress.")
        if earlier is None and len(commands) >= LIMIT:
            raise ArmError(409, "OperationNotAllowed", _FULL)
        if earlier is not None:
            command.provisioning_state = "Updating"
        commands[name] = command
        command.script_task = asyncio.create_task(self._run(vm, command, stuck=is_stuck(request)))
        changes = vm.spec.name if self._updates_vm else ""
        command.operation = self._operations.start(self._provision(vm, command), changes=changes)
        status = 201 if earlier is None else 200
        body = command_body(vm, command, expand=False)
        return self._operations.accepted(request, command.operation, vm.spec, status=status, body=body)

    async def run_commands_get(self, request: web.Request) -> web.Response:
        """One run command; what it did stands in the instance view, which must be asked for."""
        vm, commands, name = self._addressed(request)
        if name not in commands:
            raise _not_found(request)
        return web.json_response(command_body(vm, commands[name], expand=_expands(request)))

    async def run_commands_list(self, request: web.Request) -> web.Response:
        """All run commands of a VM."""
        vm = self._find(request)
        commands = self._commands.get(vm.spec.name.lower(), {})
        expand = _expands(request)
        return web.json_response(
            {"value": [command_body(vm, command, expand=expand) for command in commands.values()]}
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
        return command_body(vm, command, expand=False)


def _require_support(request: web.Request) -> None:
    # As extensions that have no build for ARM64 are refused (azure-docs#108577).
    fault = request.get(FAULT)
    if fault is not None and fault.mode == "arm64":
        message = (
            "Extension with publisher 'Microsoft.CPlat.Core', type 'RunCommandHandlerLinux', and type "
            "handler version '1.0' for CPU Architecture 'Arm64' was not found in the extension repository."
        )
        raise ArmError(404, "ExtensionNotFoundForCPUArchitecture", message)


def _expands(request: web.Request) -> bool:
    return request.query.get("$expand", "").lower() == "instanceview"


def _not_found(request: web.Request) -> ArmError:
    vm, name, group = (request.match_info[part] for part in ("vm", "name", "group"))
    kind = f"Microsoft.Compute/virtualMachines/{vm}/runCommands/{name}"
    message = f"The Resource '{kind}' under resource group '{group}' was not found."
    return ArmError(404, "ResourceNotFound", message)
