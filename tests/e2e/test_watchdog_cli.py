"""The watchdog without Azure Functions: ``vm-watchdog run`` beside the same VMs, storage and telemetry."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from devcloud.stack import ROOT
from tests.e2e.site import Site

pytestmark = pytest.mark.asyncio(loop_scope="session")

END_SECONDS = 30


def command(*argv: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "vm_watchdog", *argv)


@asynccontextmanager
async def hosted_without_functions(site: Site) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the watchdog from its command line, with the function app gone for as long as the block runs."""
    await site.stack.app.stop()
    process = await asyncio.create_subprocess_exec(
        *command("run", "--every", "1", "--json"),
        cwd=ROOT,
        env=site.stack.app_environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await site.stack.restart_app()


async def asked(site: Site, *argv: str) -> Any:
    """What a command answers, as JSON."""
    process = await asyncio.create_subprocess_exec(
        *command(*argv, "--json"),
        cwd=ROOT,
        env=site.stack.app_environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert out, err.decode()
    return json.loads(out)


async def test_run_heals_a_crashed_service_tells_people_and_says_why_in_one_call(site: Site) -> None:
    """The same outcome as under the Functions host: one restart after its backoff, two alerts, a history."""
    vm, unit = site.vm("web-1")
    commands = len(site.commands("web-1"))
    old_pid = (await vm.unit_properties(unit))["MainPID"]
    async with hosted_without_functions(site) as process:
        await vm.kill_unit(unit)
        fired, resolved = await site.alert("web-1", "fired"), await site.alert("web-1", "resolved")
        now = await vm.unit_properties(unit)
        at = datetime.now(UTC).isoformat()
        why = await asked(site, "history", "web-1", "--at", at)
        status = await asked(site, "status")
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(END_SECONDS):
            assert await process.wait() == 0

    assert fired["incident_id"] == resolved["incident_id"]
    assert now["ActiveState"] == "active"
    assert now["MainPID"] not in ("0", old_pid)
    assert len(site.commands("web-1")) == commands + 1
    decision, related = why["decision"], {event["kind"] for event in why["related"]}
    assert (decision["kind"], decision["detail"]["unit"]) == ("restart", unit)
    assert "failed/failed, result signal" in decision["detail"]["evidence"]
    assert {"backoff", "restart_sent", "restart_done"} <= related
    assert status["vms"] == len(site.stack.vms)
