"""Run Command as an action (v1): one script at a time per VM, output's last 4,096 bytes, no exit code.

The managed kind is ``arm_run_commands``. Scripts run inside the simulated VM, never here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from aiohttp import web

from devcloud.arm import ArmError, Operation, Operations
from devcloud.calls import FAULT
from devcloud.compute import VM, require_started
from devcloud.vms.base import SimulatedVm

TAIL_BYTES = 4_096
_LONGEST_SECONDS = 90 * 60
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class RunCommandAction:
    """``POST .../runCommand``; a VM agent that isn't ready is waited for ``agent_wait_seconds``."""

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
        self._running: dict[str, Operation] = {}

    def add_routes(self, app: web.Application) -> None:
        """Serve the action."""
        app.router.add_post(VM + "/runCommand", self.run_command)

    def interrupt(self, vm_name: str) -> None:
        """End what runs in a VM that goes down."""
        operation = self._running.pop(vm_name.lower(), None)
        if operation is not None:
            operation.task.cancel()

    async def run_command(self, request: web.Request) -> web.Response:
        """Accept a script, or refuse it while another one runs in the VM."""
        vm = self._find(request)
        script, environment = _script(await json_object(request))
        require_started(vm)
        busy = self._running.get(vm.spec.name.lower())
        if busy is not None and not busy.task.done():
            message = (
                "Run command extension execution is in progress. "
                "Please wait for completion before invoking a run command."
            )
            raise ArmError(409, "Conflict", message)
        work = self._run(vm, script, environment, stuck=is_stuck(request))
        operation = self._operations.start(work, changes=vm.spec.name if self._updates_vm else "")
        self._running[vm.spec.name.lower()] = operation
        return self._operations.accepted(request, operation, vm.spec)

    async def _run(
        self, vm: SimulatedVm, script: str, environment: dict[str, str], *, stuck: bool
    ) -> dict[str, Any]:
        await agent_ready(vm, self._agent_wait_seconds)
        if stuck:
            await asyncio.Event().wait()
        result = await vm.run_script(script, environment, _LONGEST_SECONDS)
        output = f"\n[stdout]\n{tail(result.stdout)}\n[stderr]\n{tail(result.stderr)}"
        return {
            "value": [
                {
                    "code": "ProvisioningState/succeeded",
                    "level": "Info",
                    "displayStatus": "Provisioning succeeded",
                    "message": f"Enable succeeded: {output}",
                }
            ]
        }


def _script(body: dict[str, Any]) -> tuple[str, dict[str, str]]:
    command = body.get("commandId")
    if command != "RunShellScript":
        raise bad_request(f"commandId: got {command!r}, must be 'RunShellScript'")
    lines = body.get("script")
    if not isinstance(lines, list) or not lines or not all(isinstance(line, str) for line in lines):
        raise bad_request("script: must be a list of lines, at least one")
    return "\n".join(lines), named_parameters(body.get("parameters"))


def named_parameters(parameters: Any) -> dict[str, str]:
    """Parameters as the environment variables that Azure's Linux handler makes of them.

    Unnamed ones are refused here: the handler would append them, unquoted, to a shell line.
    """
    environment: dict[str, str] = {}
    for parameter in parameters or []:
        name = parameter.get("name") if isinstance(parameter, dict) else None
        value = parameter.get("value") if isinstance(parameter, dict) else None
        if not isinstance(name, str) or not _ENVIRONMENT_NAME.fullmatch(name) or not isinstance(value, str):
            raise bad_request(
                f"parameters: got {parameter!r}, must be {{'name': ..., 'value': ...}} with the name of an "
                "environment variable (the local Azure takes no unnamed parameters)"
            )
        environment[name] = value
    return environment


def tail(text: str) -> str:
    """The last 4,096 bytes, whole characters only."""
    return text.encode()[-TAIL_BYTES:].decode(errors="ignore")


def is_stuck(request: web.Request) -> bool:
    """Whether a fault makes this script never end."""
    fault = request.get(FAULT)
    return fault is not None and fault.mode == "stuck"


async def agent_ready(vm: SimulatedVm, wait_seconds: float) -> None:
    """Wait for the VM's agent; raises the error that ARM reports when it never answers."""
    waited = 0.0
    while not (vm.power_state == "running" and vm.vm_agent_ready):
        if waited >= wait_seconds:
            message = (
                f"VM '{vm.spec.name}' has not reported status for VM agent or extensions. "
                "Verify that the OS is up and healthy and the VM has a running VM agent."
            )
            raise ArmError(409, "VMAgentStatusCommunicationError", message)
        await asyncio.sleep(0.05)  # a VM tells nobody when its agent comes up
        waited += 0.05


async def json_object(request: web.Request) -> dict[str, Any]:
    """The request's body."""
    try:
        body = await request.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise bad_request("The request content was invalid and could not be deserialized.")
    return body


def bad_request(message: str) -> ArmError:
    """The error for a body that ARM can't take."""
    return ArmError(400, "InvalidParameter", message)
