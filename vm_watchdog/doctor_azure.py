"""Proves what Azure Resource Manager, Log Analytics and Run Command must allow; each refusal with its role.

Changes nothing but one managed run command on a VM that the caller has named, and deletes that again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from azure.core.exceptions import AzureError, HttpResponseError

from vm_health.errors import WatchdogError
from vm_watchdog.azure_errors import missing_permission, short
from vm_watchdog.doctor import CUSTOM_ROLE, Finding, Need, Refusal, Verdict, explain
from vm_watchdog.ports import TAG_MODE, Inventory, Target, Telemetry

if TYPE_CHECKING:
    from vm_watchdog.compute_clients import ComputeClients

MARKER = "VM_WATCHDOG_DOCTOR"
# A constant, as everything that the watchdog runs on a VM. It changes nothing there.
SCRIPT = (
    f"echo '{MARKER} ran'",
    "PATH=/opt/vm-agent/bin:$PATH",
    f"if command -v vm-agent >/dev/null; then echo '{MARKER} agent' \"$(vm-agent version)\"; fi",
)
COMMAND_SECONDS = 120.0
POLL_SECONDS = 3.0
CLEAN_UP_SECONDS = 15.0
_READ = "Microsoft.Compute/virtualMachines/read"
_VIEW = "Microsoft.Compute/virtualMachines/instanceView/read"
_COMMANDS = "Microsoft.Compute/virtualMachines/runCommands"
_ENDED = frozenset({"Succeeded", "Failed", "TimedOut", "Canceled"})


def list_need(subscription: str) -> Need:
    """Return the role that listing VMs needs."""
    return Need(f"Reader, or {CUSTOM_ROLE},", f"/subscriptions/{subscription}", (_READ,))


def view_need(target: Target) -> Need:
    """Return the role that a VM's power state needs."""
    return Need(f"Reader, or {CUSTOM_ROLE},", _group_scope(target), (_READ, _VIEW))


def command_need(target: Target) -> Need:
    """Return the role that Run Command needs."""
    actions = (*(f"{_COMMANDS}/{verb}" for verb in ("read", "write", "delete")),)
    action = "Microsoft.Compute/virtualMachines/runCommand/action"
    return Need(CUSTOM_ROLE, _group_scope(target), (*actions, action))


def logs_need(workspace_id: str) -> Need:
    """Return the role that the fleet query needs."""
    return Need('the role "Log Analytics Reader"', f"the Log Analytics workspace {workspace_id}")


async def asking(
    need: Need, identity: Callable[[], Awaitable[str]], work: Callable[[], Awaitable[Finding]]
) -> Finding:
    """Do ``work``; where Azure refuses it, say what is missing."""
    try:
        return await work()
    except AzureError as error:
        return explain(need, refusal_of(error), await identity())
    except WatchdogError as error:
        if isinstance(error.__cause__, AzureError):
            return explain(need, refusal_of(error.__cause__), await identity())
        raise


def refusal_of(error: AzureError) -> Refusal:
    """Return an SDK's error as a refusal."""
    status = error.status_code if isinstance(error, HttpResponseError) else None
    code = getattr(getattr(error, "error", None), "code", None) or getattr(error, "error_code", None)
    return Refusal(
        status or 0, str(getattr(code, "value", code) or ""), short(error), missing_permission(error)
    )


async def list_vms(clients: ComputeClients, subscription: str) -> Finding:
    """List a subscription's VMs, with and without their status."""
    machines = (await clients.get(subscription)).virtual_machines
    plain = [vm async for vm in machines.list_all()]
    with_status = [vm async for vm in machines.list_all(status_only="true")]
    tags = [{str(name).lower(): value for name, value in (vm.tags or {}).items()} for vm in plain]
    opted_in = sum(1 for found in tags if str(found.get(TAG_MODE, "")).lower() in ("on", "observe"))
    found = f"{len(plain)} VMs, {opted_in} of them opted in by the tag {TAG_MODE}"
    if len(with_status) != len(plain):
        return Finding(
            Verdict.WARN, f"{found}; the list with status has {len(with_status)}", "run doctor again"
        )
    if not opted_in:
        advice = (
            f"az vm update --set tags.{TAG_MODE}=observe opts a VM in; a role on a group shows that group"
        )
        return Finding(Verdict.WARN, found, advice)
    return Finding(Verdict.OK, found)


async def choose(inventory: Inventory, name: str | None) -> Target | None:
    """Return the VM of this name or id, without one any that is opted in; None where there is none."""
    targets = await inventory.list_targets()
    wanted = [one for one in targets if name is None or name.lower() in (one.name.lower(), one.vm_id)]
    running = [one for one in wanted if one.is_running]
    return next(iter([*running, *wanted]), None)


async def read_view(inventory: Inventory, target: Target) -> Finding:
    """Read one VM with its instance view."""
    found = await inventory.get_target(target.vm_id)
    if found is None:
        return Finding(Verdict.WARN, f"{target.name} is gone, or its tag {TAG_MODE} is", "run doctor again")
    return Finding(Verdict.OK, f"{target.name} is {found.power}")


async def list_commands(clients: ComputeClients, target: Target) -> Finding:
    """List the managed run commands of one VM: the right to read them."""
    commands = (await clients.get(target.subscription_id)).virtual_machine_run_commands
    found = [one async for one in commands.list_by_virtual_machine(target.resource_group, target.name)]
    if len(found) >= 20:
        advice = "a VM takes about 25: delete those that nobody needs (az vm run-command delete)"
        return Finding(Verdict.WARN, f"{len(found)} run commands on {target.name}", advice)
    return Finding(Verdict.OK, f"{len(found)} run commands on {target.name}")


async def run_script(clients: ComputeClients, target: Target) -> Finding:
    """Run the constant script on one VM, wait for it, and delete the command."""
    commands: Any = (await clients.get(target.subscription_id)).virtual_machine_run_commands
    place = (target.resource_group, target.name, f"watchdog-doctor-{secrets.token_hex(6)}")
    properties = {"source": {"script": "\n".join(SCRIPT)}, "asyncExecution": False, "timeoutInSeconds": 60}
    await commands.begin_create_or_update(
        *place, {"location": target.location, "properties": properties}, polling=False, retry_total=0
    )
    try:
        while True:
            command = await commands.get_by_virtual_machine(*place, expand="instanceView")
            view = command.properties and command.properties.instance_view
            state = "" if view is None else str(view.get("executionState"))
            if state in _ENDED:
                return _judged(target.name, state, view.output or "", view.error or "")
            await asyncio.sleep(POLL_SECONDS)
    finally:
        with suppress(AzureError, TimeoutError):
            async with asyncio.timeout(CLEAN_UP_SECONDS):
                await commands.begin_delete(*place, polling=False, retry_total=0)


async def query_fleet(telemetry: Telemetry) -> Finding:
    """Run the fleet query."""
    found = await telemetry.newest_snapshots()
    if not found.snapshots:
        advice = "do agents report (APPLICATIONINSIGHTS_CONNECTION_STRING on the VM), and to this workspace?"
        return Finding(Verdict.WARN, "the query works; no VM has reported lately", advice)
    newest = max(snapshot.received_at for snapshot in found.snapshots.values())
    return Finding(Verdict.OK, f"{len(found.snapshots)} VMs have reported, the last at {newest:%H:%M:%S} UTC")


def _judged(name: str, state: str, output: str, error: str) -> Finding:
    if f"{MARKER} ran" not in output:
        tail = (error.strip() or output.strip())[-200:]
        advice = "look at the VM agent on the VM: systemctl status walinuxagent (or waagent)"
        return Finding(
            Verdict.FAIL, f"the script on {name} ended as {state} without its line: {tail}", advice
        )
    agent = next((line for line in output.splitlines() if line.startswith(f"{MARKER} agent")), "")
    if not agent:
        advice = "restarts go through vm-agent: install it there, in /opt/vm-agent/bin or on root's PATH"
        return Finding(Verdict.WARN, f"the script ran on {name}; vm-agent is not installed there", advice)
    version = agent.removeprefix(f"{MARKER} agent").strip()[:60]
    return Finding(Verdict.OK, f"the script ran on {name}, where there is {version}")


def _group_scope(target: Target) -> str:
    return f"/subscriptions/{target.subscription_id}/resourceGroups/{target.resource_group}"
