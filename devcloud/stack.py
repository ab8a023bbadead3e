"""Everything at once on this machine: local Azure, Azurite, function app, VMs with agents, webhook sink.

Starts and stops them in order and says where things are; plays no scenario and prints nothing.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from devcloud.app_process import AppProcess
from devcloud.azurite import Azurite
from devcloud.cloud import CloudOptions, LocalCloud
from devcloud.places import free_port, is_free, remove_leftovers
from devcloud.relay import Passage, Relay
from devcloud.stack_options import DEFAULT_PORT, StackOptions
from devcloud.vms.base import VmSpec
from devcloud.vms.bridge import BridgeNetwork, VmNetwork
from devcloud.vms.factory import Kind, best_kind, create_vm, worker_unit
from devcloud.vms.machine import Machine
from devcloud.webhook_sink import WebhookSink

__all__ = ["DEFAULT_PORT", "ROOT", "TOOLS", "Stack", "StackOptions", "crash_file_of", "unit_of"]

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"
_FIRST_LOOPBACK = 11
_AGENT_PORT = 8080

_OWN_LIMITS = {
    "VM_AGENT_DISK_WARNING_PERCENT": "100",
    "VM_AGENT_DISK_CRITICAL_PERCENT": "100",
    "VM_AGENT_MEMORY_WARNING_PERCENT": "100",
}


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
        self._probe_relays: dict[str, Relay] = {}
        self._storage_relays: dict[str, Relay] = {}

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
            "AzureWebJobsStorage__tableServiceUri": self._by_relay(self.azurite.table_url),
            "AzureWebJobsStorage__queueServiceUri": self._by_relay(self.azurite.queue_url),
            "FUNCTIONS_KEY": self.function_key,
            "WATCHDOG_SUBSCRIPTIONS": next(iter(self.vms.values())).spec.subscription_id,
            "WATCHDOG_WORKSPACE_ID": self.cloud.workspace_id,
            "WATCHDOG_ARM_ENDPOINT": self.cloud.arm_url,
            "WATCHDOG_LOGS_ENDPOINT": self.cloud.logs_url,
            "WATCHDOG_TELEMETRY_CONNECTION_STRING": self.cloud.connection_string,
            "WATCHDOG_TELEMETRY_AUTH": "entra",
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

    @asynccontextmanager
    async def second_app(self) -> AsyncIterator[AppProcess]:
        """Run a second instance of the function app, on the same storage, for as long as the block runs."""
        app = AppProcess(ROOT, self.app_environment, self.directory / "function-app-2.log")
        await app.start(self._hosts[:1], free_port(self._hosts[:1]))
        try:
            yield app
        finally:
            await app.stop()

    async def set_probes(self, name: str, passage: Passage) -> None:
        """Let probes of a VM pass or fail; needs relays."""
        await self._probe_relays[name].set_passage(passage)

    async def set_storage(self, passage: Passage) -> None:
        """Let the function app reach its storage or not; needs relays."""
        await asyncio.gather(*(relay.set_passage(passage) for relay in self._storage_relays.values()))

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
        if port == 0 or not is_free(hosts, port):
            port = free_port(hosts)
        if self.options.has_relays:
            await self._start_relays(hosts[-1])
        self._make_vms(hosts[-1], port)
        self._progress("function app")
        (self.directory / "watchdog.toml").write_text(self.options.policy_text)
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
        remove_leftovers(parent)
        directory = Path(tempfile.mkdtemp(prefix=f"run-{os.getpid()}-", dir=parent))
        self._exit.callback(shutil.rmtree, directory, ignore_errors=True)
        return directory

    async def _start_relays(self, host: str) -> None:
        """Relays to storage on the app's side, to the agents where the agents are: on ``host``."""
        for url in (self.azurite.table_url, self.azurite.queue_url):
            place = urlsplit(url)
            self._storage_relays[place.netloc] = Relay(
                str(place.hostname), str(place.hostname), int(place.port or 0)
            )
        for number, name in enumerate(self.options.names, start=1):
            self._probe_relays[name] = Relay(host, self._address(number), _AGENT_PORT)
        for relay in (*self._storage_relays.values(), *self._probe_relays.values()):
            await relay.start()
            self._exit.push_async_callback(relay.stop)

    def _by_relay(self, url: str) -> str:
        place = urlsplit(url)
        relay = self._storage_relays.get(place.netloc)
        return url if relay is None else place._replace(netloc=f"{place.hostname}:{relay.port}").geturl()

    def _address(self, number: int) -> str:
        if self._network is None:
            return f"127.0.0.{_FIRST_LOOPBACK + number - 1}"
        return self._network.address(number)

    def _make_vms(self, cloud_host: str, app_port: int) -> None:
        for number, name in enumerate(self.options.names, start=1):
            address, relay = self._address(number), self._probe_relays.get(name)
            tags = {"watchdog": "on", "watchdog-group": "shop", **self.options.tags.get(name, {})}
            spec = VmSpec(name, address, tags=tags)
            unit = unit_of(name)
            heartbeat = f"/var/lib/{name}/heartbeat"
            nudge = f"http://{cloud_host}:{app_port}/api/nudge"
            environment = {
                **_OWN_LIMITS,
                "VM_AGENT_UNITS": unit,
                "VM_AGENT_HEARTBEAT_FILES": unit + "={root}" + heartbeat,
                "VM_AGENT_SAMPLE_INTERVAL_SECONDS": f"{self.options.sample_interval_seconds:g}",
                "VM_AGENT_REPORT_INTERVAL_SECONDS": f"{self.options.report_interval_seconds:g}",
                "VM_AGENT_LISTEN_ADDRESS": address,
                "VM_AGENT_LISTEN_PORT": f"{_AGENT_PORT}",
                "VM_AGENT_ENDPOINT": (
                    f"http://{cloud_host}:{relay.port}" if relay else f"http://{address}:{_AGENT_PORT}"
                ),
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
    """While this file exists in the VM, its worker ends as soon as it starts; a VM that boots has none."""
    return f"/run/{vm_name}/crash"
