"""``doctor``: puts the checks together as the settings ask, runs them, and shows what they found."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from vm_watchdog import (
    bootstrap,
    doctor_azure,
    doctor_identity,
    doctor_signals,
    doctor_storage,
    settings,
)
from vm_watchdog.cli.call import Call
from vm_watchdog.cli.output import EXIT_CRITICAL, EXIT_OK, EXIT_WARNING, Output
from vm_watchdog.doctor import Check, Finding, Need, Result, Verdict, run_checks, skipped
from vm_watchdog.ports import Target

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.data.tables.aio import TableServiceClient
    from azure.storage.queue.aio import QueueServiceClient

    from vm_watchdog.app import Watchdog
    from vm_watchdog.compute_clients import ComputeClients

NAME_WIDTH = 32  # a subscription's id stands in a name, and may stick out


@dataclass(frozen=True, slots=True)
class Clients:
    """What checks need beside the watchdog itself, with the rights of the same identity."""

    credential: AsyncTokenCredential
    compute: ComputeClients
    tables: TableServiceClient
    queues: QueueServiceClient


def run(call: Call) -> int:
    """Run every check and show the results."""
    found = settings.load(call.environ)
    # What adapters log of a failure is what their check tells.
    log = logging.getLogger("vm_watchdog")
    log.propagate = False
    log.addHandler(logging.NullHandler())
    results = asyncio.run(_run(call, found))
    document = {
        "checks": [
            {
                "name": result.name,
                "verdict": result.finding.verdict.value,
                "found": result.finding.found,
                "advice": result.finding.advice,
                "seconds": round(result.seconds, 3),
            }
            for result in results
        ]
    }
    call.output.give(document, _lines(call.output, results))
    verdicts = {result.finding.verdict for result in results}
    if Verdict.FAIL in verdicts:
        return EXIT_CRITICAL
    return EXIT_WARNING if Verdict.WARN in verdicts else EXIT_OK


async def _run(call: Call, found: settings.Settings) -> list[Result]:
    watchdog = bootstrap.build(found)
    try:
        async with _opened(found) as clients:
            checks = checks_of(found, watchdog, clients, call.arguments.vm, alert=call.arguments.alert)
            return await run_checks(checks, call.arguments.timeout)
    finally:
        await watchdog.close()


@asynccontextmanager
async def _opened(found: settings.Settings) -> AsyncIterator[Clients]:
    from azure.data.tables.aio import TableServiceClient  # noqa: PLC0415
    from azure.identity.aio import DefaultAzureCredential  # noqa: PLC0415
    from azure.storage.queue.aio import QueueServiceClient  # noqa: PLC0415

    from vm_watchdog.compute_clients import ComputeClients  # noqa: PLC0415

    async with (
        DefaultAzureCredential() as credential,
        TableServiceClient(found.table_endpoint, credential=credential) as tables,
        QueueServiceClient(found.queue_endpoint, credential=credential) as queues,
    ):
        compute = ComputeClients(credential, found.arm_endpoint, found.arm_audience)
        try:
            yield Clients(credential, compute, tables, queues)
        finally:
            await compute.close()


def checks_of(
    found: settings.Settings, watchdog: Watchdog, clients: Clients, vm: str | None, *, alert: bool
) -> list[Check]:
    """Return all checks, in the order in which they are shown."""
    ports = watchdog.ports

    def asking(need: Need, work: Callable[[], Awaitable[Finding]], audience: str) -> Awaitable[Finding]:
        return doctor_azure.asking(
            need, partial(doctor_identity.identity_of, clients.credential, audience), work
        )

    def arm(need: Need, work: Callable[[], Awaitable[Finding]]) -> Awaitable[Finding]:
        return asking(need, work, found.arm_audience)

    def on_vm(need: Callable[[Target], Need], work: Callable[[Target], Awaitable[Finding]]) -> Any:
        async def tried() -> Finding:
            target = await doctor_azure.choose(ports.inventory, vm)
            if target is None:
                return _no_vm(vm)
            return await arm(need(target), partial(work, target))

        return partial(arm, doctor_azure.list_need(", ".join(found.subscriptions)), tried)

    script = on_vm(doctor_azure.command_need, partial(doctor_azure.run_script, clients.compute))
    storage = doctor_identity.STORAGE_AUDIENCE
    return [
        *_identity_checks(found, clients),
        Check("clock", partial(doctor_signals.check_clock, found.arm_endpoint)),
        *(
            Check(
                f"VMs of subscription {one}",
                partial(
                    arm, doctor_azure.list_need(one), partial(doctor_azure.list_vms, clients.compute, one)
                ),
            )
            for one in found.subscriptions
        ),
        Check(
            "instance view", on_vm(doctor_azure.view_need, partial(doctor_azure.read_view, ports.inventory))
        ),
        Check(
            "run commands, reading",
            on_vm(doctor_azure.command_need, partial(doctor_azure.list_commands, clients.compute)),
        ),
        Check("run commands, running", script, doctor_azure.COMMAND_SECONDS)
        if vm is not None
        else skipped("run commands, running", "not tried: --vm VM runs one harmless command there"),
        Check(
            "fleet query",
            partial(
                asking,
                doctor_azure.logs_need(found.workspace_id),
                partial(doctor_azure.query_fleet, ports.telemetry),
                found.logs_audience,
            ),
        ),
        Check(
            "tables",
            partial(
                asking,
                doctor_storage.table_need(found.table_endpoint),
                partial(doctor_storage.try_tables, clients.tables),
                storage,
            ),
        ),
        Check(
            "queues",
            partial(
                asking,
                doctor_storage.queue_need(found.queue_endpoint),
                partial(doctor_storage.try_queues, clients.queues),
                storage,
            ),
        ),
        *doctor_signals.signal_checks(found, watchdog, alert=alert),
        Check("policy", partial(doctor_signals.check_policy, found, watchdog)),
        Check("last tick", partial(doctor_signals.check_tick, watchdog)),
    ]


def _identity_checks(found: settings.Settings, clients: Clients) -> list[Check]:
    audiences = {
        "Azure Resource Manager": found.arm_audience,
        "Log Analytics": found.logs_audience,
        "storage": doctor_identity.STORAGE_AUDIENCE,
    }
    if found.telemetry_auth == "entra":
        audiences["Application Insights"] = doctor_identity.MONITOR_AUDIENCE
    return [
        doctor_identity.token_check(clients.credential, what, audience)
        for what, audience in audiences.items()
    ]


def _no_vm(name: str | None) -> Finding:
    if name is not None:
        return Finding(
            Verdict.FAIL, f"no opted-in VM is named {name[:80]!r}", "its tag watchdog must be on or observe"
        )
    return Finding(Verdict.SKIP, "no VM is opted in yet")


def _lines(output: Output, results: Sequence[Result]) -> Iterator[str]:
    width = min(max(len(result.name) for result in results), NAME_WIDTH)
    for result in results:
        finding = result.finding
        yield f"{output.tint(finding.verdict.value, 4)}  {result.name:<{width}}  {finding.found}"
        if finding.advice:
            yield f"      {'':<{width}}  -> {finding.advice}"
