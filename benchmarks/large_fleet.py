"""A local Azure with many VMs that all are fine, in a process of its own: what a tick costs is the caller's.

Run as ``python -m benchmarks.large_fleet DIRECTORY COUNT``. Prints one line of JSON, the environment that
leads a watchdog here; then answers each line on standard input with the number of probes since the last one;
``feed`` reports anew for every VM first. Ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path

from aiohttp import web

from devcloud.azurite import Azurite
from devcloud.cloud import CloudOptions, LocalCloud
from devcloud.log_tables import utc_now
from devcloud.stack import TOOLS
from devcloud.vms.base import ScriptResult, VmSpec
from vm_health.model import (
    DiskSample,
    HealthReport,
    HeartbeatSample,
    MemorySample,
    Sample,
    Status,
    SystemSample,
    UnitSample,
)
from vm_health.wire import encode_report

GIB = 1024**3


class StillVm:
    """A VM that runs, and nothing else."""

    def __init__(self, number: int) -> None:
        address = f"127.{100 + number // 60_000}.{number // 250 % 240}.{number % 250 + 1}"
        tags = {"watchdog": "on", "watchdog-group": f"group-{number % 20}", "env": "prod", "team": "shop"}
        self.spec = VmSpec(f"vm-{number:05}", address, tags=tags)
        self.power_state = "running"
        self.vm_agent_ready = True

    async def start(self) -> None:
        """It runs already."""

    async def stop(self) -> None:
        """It goes on."""

    async def restart(self) -> None:
        """It goes on."""

    async def run_script(self, script: str, environment: object, timeout_seconds: float) -> ScriptResult:
        """Nothing is run."""
        return ScriptResult(0, "", "")


def report_of(vm: StillVm, port: int) -> HealthReport:
    """What a common VM reports: three units, two disks, a heartbeat file, the machine as a whole."""
    units = tuple(
        UnitSample(f"shop-{name}.service", "loaded", "active", "running", main_pid=4_711 + place)
        for place, name in enumerate(("web", "worker", "cache"))
    )
    sample = Sample(
        taken_at=utc_now(),
        units=units,
        disks=(
            DiskSample("/", 64 * GIB, 40 * GIB, 37.5, 12.0),
            DiskSample("/data", 512 * GIB, 300 * GIB, 41.4, 3.0),
        ),
        memory=MemorySample(16 * GIB, 9 * GIB, 43.75),
        heartbeats=(HeartbeatSample("/run/shop/heartbeat", 4.0, unit="shop-worker.service"),),
        system=SystemSample(12.5, 0.4, 0.5, 0.6, 4, 86_400.0, {"cpu.some": 0.1, "io.some": 0.0}, True),
    )
    vm_id = vm.spec.vm_id.lower()
    endpoint = f"http://{vm.spec.address}:{port}"
    return HealthReport(vm_id, vm.spec.name, "0.1.0", "b0b0", 7, Status.HEALTHY, (), sample, 1.0, endpoint)


class LargeFleet:
    """The cloud, the VMs' endpoints and their telemetry."""

    def __init__(self, directory: Path, count: int) -> None:
        self.vms = [StillVm(number) for number in range(count)]
        self._by_address = {vm.spec.address: vm for vm in self.vms}
        self.cloud = LocalCloud(directory, self.vms, options=CloudOptions(list_page_size=200))
        self.azurite = Azurite(
            directory / "azurite",
            self.cloud.certificates,
            node_command=(str(TOOLS / "node"),),
            package=TOOLS / "node_modules" / "azurite",
        )
        self._bodies: dict[str, str] = {}
        self._port = 0
        self.probes = 0

    async def start(self) -> None:
        """Serve everything."""
        await self.cloud.start()
        await self.azurite.start()
        app = web.Application()
        app.router.add_get("/health", self._health)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "0.0.0.0", 0, backlog=1_024)
        await site.start()
        self._port = int(runner.addresses[0][1])
        self.feed()

    def feed(self) -> None:
        """Let every VM report."""
        now = utc_now()
        rows = []
        for vm in self.vms:
            report = report_of(vm, self._port)
            text = encode_report(report)
            self._bodies[vm.spec.address] = encode_report(replace(report, endpoint=""))
            properties = {"vm_id": report.vm_id, "report": text}
            rows.append({"Name": "vm.health", "TimeGenerated": now, "Properties": properties})
        self.cloud.tables.add("AppEvents", rows)

    def environment(self) -> dict[str, str]:
        """Where a watchdog finds all this."""
        return {
            **self.cloud.environment(),
            "WATCHDOG_TABLE_ENDPOINT": self.azurite.table_url,
            "WATCHDOG_QUEUE_ENDPOINT": self.azurite.queue_url,
            "WATCHDOG_SUBSCRIPTIONS": self.vms[0].spec.subscription_id,
            "WATCHDOG_WORKSPACE_ID": self.cloud.workspace_id,
            "WATCHDOG_ARM_ENDPOINT": self.cloud.arm_url,
            "WATCHDOG_LOGS_ENDPOINT": self.cloud.logs_url,
            "WATCHDOG_TELEMETRY_CONNECTION_STRING": self.cloud.connection_string,
            "WATCHDOG_PROBE_NETWORKS": "127.0.0.0/8",
            "WATCHDOG_SHARD_SIZE": "10000",
        }

    def take_probes(self) -> int:
        """Count the probes since the last time."""
        probes, self.probes = self.probes, 0
        return probes

    async def _health(self, request: web.Request) -> web.Response:
        self.probes += 1
        host = request.host.partition(":")[0]
        return web.Response(text=self._bodies[host], content_type="application/json")


async def serve(directory: Path, count: int) -> None:
    """Serve until the input ends."""
    fleet = LargeFleet(directory, count)
    await fleet.start()
    print(json.dumps(fleet.environment()), flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := (await reader.readline()).decode().strip():
        if line == "feed":
            fleet.feed()
        print(json.dumps({"probes": fleet.take_probes()}), flush=True)
    await fleet.cloud.stop()
    await fleet.azurite.stop()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
