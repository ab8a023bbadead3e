"""Everything at once on this machine: local Azure, Azurite, function app, VMs with agents, webhook sink.

Starts and stops them in order and says where things are; plays no scenario and prints nothing.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from devcloud.app_process import AppProcess
from devcloud.azurite import Azurite
from devcloud.cloud import CloudOptions, LocalCloud
from devcloud.vms.base import VmSpec
from devcloud.vms.bridge import BridgeNetwork, VmNetwork
from devcloud.vms.factory import Kind, best_kind, create_vm, worker_unit
from devcloud.vms.machine import Machine
from devcloud.webhook_sink import WebhookSink

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"
DEFAULT_PORT = 7071  # as Azure's own Core Tools use
_FIRST_LOOPBACK = 11

# The machine's own disk and memory are not what a simulated VM is about: a full laptop is no incident here.
_POLICY = """\
[defaults]
backoff_seconds = [{steps}]
stable_after_seconds = {stable}
verify_after_seconds = {verify}

[defaults.thresholds]
disk_warning_percent = 100
disk_critical_percent = 100
memory_warning_percent = 100
"""
_OWN_LIMITS = {
    "VM_AGENT_DISK_WARNING_PERCENT": "100",
    "VM_AGENT_DISK_CRITICAL_PERCENT": "100",
    "VM_AGENT_MEMORY_WARNING_PERCENT": "100",
}


@dataclass(frozen=True, slots=True)
class StackOptions:
    """What a run may choose. ``fast`` divides every wait of the watchdog's policy."""

    kind: Kind | None = None  # None: a real systemd where this machine allows it
    names: tuple[str, ...] = ("web-1", "api-1", "jobs-1")
    fast: float = 1.0
    schedule: str = "*/15 * * * * *"
    port: int = DEFAULT_PORT
    sample_interval_seconds: float = 1.0
    report_interval_seconds: float = 15.0
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def backoff_seconds(self) -> tuple[float, ...]:
        """The waits before attempts 1, 2, 3… as this run scales them."""
        return tuple(step / self.fast for step in (10.0, 20.0, 40.0, 80.0, 160.0, 300.0))


class Stack:
    """An async context manager around the whole; inside it everything runs."""

    def __init__(self, options: StackOptions, progress: Callable[[str], None]) -> None:
        self.options = options
        self.kind: Kind = options.kind or best_kind()
        self.vms: dict[str, Machine] = {}
        self.function_key = secrets.token_urlsafe(24)
        self.sink = WebhookSink()
        self._progress = progress
        self._exit = AsyncExitStack()
        self._network: VmNetwork | None = None
        self._hosts = ["127.0.0.1"]

    async def __aenter__(self) -> Stack:
        try:
            await self._start()
        except BaseException:
            await self._exit.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._exit.aclose()

    @property
    def dashboard_url(self) -> str:
        """Where the fleet is seen, key included."""
        return f"http://127.0.0.1:{self.app.port}/api/fleet?code={self.function_key}"

    @property
    def app_environment(self) -> dict[str, str]:
        """The function app's settings: the same names as in Azure, other endpoints."""
        networks = "127.0.0.0/8" if self._network is None else str(self._network.subnet)
        return {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            **self.cloud.environment(),
            "AzureWebJobsStorage__credential": "managedidentity",
            "AzureWebJobsStorage__tableServiceUri": self.azurite.table_url,
            "AzureWebJobsStorage__queueServiceUri": self.azurite.queue_url,
            "FUNCTIONS_KEY": self.function_key,
            "WATCHDOG_SUBSCRIPTIONS": next(iter(self.vms.values())).spec.subscription_id,
            "WATCHDOG_WORKSPACE_ID": self.cloud.workspace_id,
            "WATCHDOG_ARM_ENDPOINT": self.cloud.arm_url,
            "WATCHDOG_LOGS_ENDPOINT": self.cloud.logs_url,
            "WATCHDOG_SCHEDULE": self.options.schedule,
            "WATCHDOG_PROBE_NETWORKS": networks,
            "WATCHDOG_POLICY_FILE": str(self.directory / "watchdog.toml"),
            "WATCHDOG_ALERT_WEBHOOK_URL": self.sink.hook_url("alerts"),
            **self.options.settings,
        }

    async def restart_app(self) -> None:
        """Kill the function app as a crash would, and start it again on its port."""
        await self.app.kill()
        await self.app.start(self._hosts, self.app.port)

    async def _start(self) -> None:
        self.directory = self._make_directory()
        hosts = self._hosts
        if self.kind == "systemd":
            network = BridgeNetwork()
            self._network = await network.start()
            self._exit.push_async_callback(network.stop)
            hosts.append(self._network.gateway)
        self._progress("local Azure: identity, ingestion, log query, resource manager")
        self.cloud = LocalCloud(self.directory, [], extra_hosts=hosts[1:], options=CloudOptions())
        await self.cloud.start()
        self._exit.push_async_callback(self.cloud.stop)
        await self.sink.start()
        self._exit.push_async_callback(self.sink.stop)
        self._progress("Azurite: tables and queues")
        self.azurite = Azurite(
            self.directory / "azurite",
            self.cloud.certificates,
            node_command=(str(TOOLS / "node"),),
            package=TOOLS / "node_modules" / "azurite",
        )
        await self.azurite.start()
        self._exit.push_async_callback(self.azurite.stop)
        port = self.options.port
        if port == 0 or not _is_free(hosts, port):
            port = _free_port(hosts)
        self._make_vms(hosts[-1], port)
        self._progress("function app")
        self._write_policy()
        self.app = AppProcess(ROOT, self.app_environment, self.directory / "function-app.log")
        await self.app.start(hosts, port)
        self._exit.push_async_callback(self.app.stop)
        what = "a real systemd each" if self.kind == "systemd" else "plain processes, stand-in systemctl"
        self._progress(f"{len(self.vms)} VMs ({what})")
        self._exit.push_async_callback(self._stop_vms)
        await asyncio.gather(*(vm.start() for vm in self.vms.values()))

    def _make_directory(self) -> Path:
        parent = ROOT / ".devcloud"
        parent.mkdir(exist_ok=True)
        _remove_leftovers(parent)
        directory = Path(tempfile.mkdtemp(prefix=f"run-{os.getpid()}-", dir=parent))
        self._exit.callback(shutil.rmtree, directory, ignore_errors=True)
        return directory

    def _write_policy(self) -> None:
        text = _POLICY.format(
            steps=", ".join(f"{step:g}" for step in self.options.backoff_seconds),
            stable=600 / self.options.fast,
            verify=max(0.5, 3 / self.options.fast),
        )
        (self.directory / "watchdog.toml").write_text(text)

    def _make_vms(self, cloud_host: str, app_port: int) -> None:
        for number, name in enumerate(self.options.names, start=1):
            address = (
                f"127.0.0.{_FIRST_LOOPBACK + number - 1}"
                if self._network is None
                else self._network.address(number)
            )
            spec = VmSpec(name, address, tags={"watchdog": "on", "watchdog-group": "shop"})
            unit = unit_of(name)
            heartbeat = f"/var/lib/{name}/heartbeat"
            nudge = f"http://{cloud_host}:{app_port}/api/nudge"
            environment = {
                **_OWN_LIMITS,
                "VM_AGENT_UNITS": unit,
                "VM_AGENT_HEARTBEAT_FILES": "{root}" + heartbeat,
                "VM_AGENT_SAMPLE_INTERVAL_SECONDS": f"{self.options.sample_interval_seconds:g}",
                "VM_AGENT_REPORT_INTERVAL_SECONDS": f"{self.options.report_interval_seconds:g}",
                "VM_AGENT_LISTEN_ADDRESS": address,
                "VM_AGENT_ENDPOINT": f"http://{address}:8080",
                "VM_AGENT_IMDS_URL": self.cloud.imds_url_for(name, cloud_host),
                "VM_AGENT_TELEMETRY_AUTH": "entra" if number == 1 else "none",
                "VM_AGENT_NUDGE_URL": nudge,
                "VM_AGENT_NUDGE_KEY": self.function_key,
                "APPLICATIONINSIGHTS_CONNECTION_STRING": self.cloud.connection_string_for(cloud_host),
            }
            units = [worker_unit(unit, heartbeat, crash_file_of(name))]
            vm = create_vm(self.kind, spec, self.directory / name, self._network, environment, units)
            self.vms[name] = vm
            self.cloud.vms[name] = vm

    async def _stop_vms(self) -> None:
        await asyncio.gather(*(vm.stop() for vm in self.vms.values()), return_exceptions=True)


def unit_of(vm_name: str) -> str:
    """The worker's unit in a VM."""
    return f"shop-{vm_name.partition('-')[0]}.service"


def crash_file_of(vm_name: str) -> str:
    """While this file exists in the VM, its worker ends as soon as it starts."""
    return f"/var/lib/{vm_name}/crash"


def _remove_leftovers(parent: Path) -> None:
    """Remove the directories of runs that were killed."""
    for directory in parent.glob("run-[0-9]*-*"):
        try:
            os.kill(int(directory.name.split("-")[1]), 0)
        except ProcessLookupError:
            shutil.rmtree(directory, ignore_errors=True)
        except PermissionError:  # another user's, and alive
            continue


def _is_free(hosts: list[str], port: int) -> bool:
    for host in hosts:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True


def _free_port(hosts: list[str]) -> int:
    with socket.socket() as probe:
        probe.bind((hosts[-1], 0))
        return int(probe.getsockname()[1])
