"""The local Azure as a whole: identity, ingestion, log query and ARM around a set of simulated VMs.

Assembles and starts the servers; starts and stops no VM, and knows nothing of the product.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from aiohttp import web

from devcloud.activity_log import ActivityLog
from devcloud.arm import Operations, arm_error, arm_guard
from devcloud.arm_permissions import Permissions
from devcloud.arm_run_command import RunCommandAction
from devcloud.arm_run_commands import ManagedRunCommands
from devcloud.calls import CallLog, ErrorBody, observed
from devcloud.compute import Compute
from devcloud.faults import Faults, add_fault_routes
from devcloud.identity import APP_SERVICE_PATH, IdentityServer, identity_error
from devcloud.ingestion import Ingestion, ingestion_error
from devcloud.kql import KqlEngine
from devcloud.listener import Listener
from devcloud.log_tables import LogTables
from devcloud.logs_api import LogsApi, logs_error
from devcloud.tls import make_certificates
from devcloud.tokens import Tokens
from devcloud.vms.base import SimulatedVm

_MAX_BODY_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class CloudOptions:
    """What a run may choose; the defaults suit a laptop. Port 0 takes a free one."""

    arm_port: int = 0
    logs_port: int = 0
    ingestion_port: int = 0
    identity_port: int = 0
    retry_after_seconds: float = 1  # of ARM's polls
    agent_wait_seconds: float = 3  # how long a run command waits for a VM agent; minutes in Azure
    # Whether the VM's provisioning state is Updating while a run command runs, as it is while an extension
    # is being installed. Likely so in Azure; could not be verified.
    run_commands_update_vm: bool = False
    list_page_size: int = 50
    ingestion_delay: timedelta = timedelta(0)
    keep_rows: timedelta = timedelta(hours=2)
    require_entra: bool = False  # ingestion takes no item without a token


class LocalCloud:
    """Servers on ``host`` and on every one of ``extra_hosts``, with the same ports on all.

    ``directory`` receives the certificates. After ``start`` the ``*_url`` attributes are set, for ``host``;
    ``url_for`` gives them for another address.
    """

    def __init__(
        self,
        directory: Path,
        vms: Iterable[SimulatedVm],
        host: str = "127.0.0.1",
        extra_hosts: Sequence[str] = (),
        options: CloudOptions | None = None,
    ) -> None:
        self._options = options or CloudOptions()
        self._hosts = [host, *extra_hosts]
        self.vms: dict[str, SimulatedVm] = {vm.spec.name.lower(): vm for vm in vms}
        self.workspace_id = str(uuid.uuid4())
        self.instrumentation_key = str(uuid.uuid4())
        self.identity_header = secrets.token_hex(16)
        self.certificates = make_certificates(directory, self._hosts)
        self.ca_file = self.certificates.ca_file
        self.tokens = Tokens()
        self.identity = IdentityServer(self.tokens, self.vms, self.identity_header)
        self.faults = Faults()
        self.calls = CallLog()
        self.tables = LogTables(delay=self._options.ingestion_delay, keep=self._options.keep_rows)
        self.engine = KqlEngine(self.tables)
        self.operations = Operations(self._options.retry_after_seconds)
        self.activity = ActivityLog()
        self.permissions = Permissions()
        self.compute = Compute(
            self.vms, self.operations, self.activity, page_size=self._options.list_page_size
        )
        self._managed_commands: ManagedRunCommands | None = None
        self._listeners = self._build()

    async def start(self) -> None:
        """Listen; all or nothing."""
        try:
            for listener in self._listeners.values():
                await listener.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End running operations and stop listening; safe to call twice."""
        await self.operations.close()
        if self._managed_commands is not None:
            await self._managed_commands.close()
        await asyncio.gather(*(listener.stop() for listener in self._listeners.values()))
        self.tables.close()

    def url_for(self, service: str, host: str | None = None) -> str:
        """Where ``service`` (arm, logs, ingestion, identity) is reached on ``host``."""
        origins = self._listeners[service].origins
        return origins[self._hosts.index(host) if host else 0]

    @property
    def arm_url(self) -> str:
        return self.url_for("arm")

    @property
    def logs_url(self) -> str:
        return self.url_for("logs")

    @property
    def ingestion_url(self) -> str:
        return self.url_for("ingestion")

    @property
    def identity_url(self) -> str:
        """The value of IDENTITY_ENDPOINT."""
        return self.url_for("identity") + APP_SERVICE_PATH

    @property
    def imds_url(self) -> str:
        """IMDS for callers that have an address of their own."""
        return self.url_for("identity")

    def imds_url_for(self, vm_name: str, host: str | None = None) -> str:
        """The IMDS base address of one VM, for VMs that share addresses."""
        return f"{self.url_for('identity', host)}/vm/{vm_name}"

    @property
    def connection_string(self) -> str:
        return self.connection_string_for()

    def connection_string_for(self, host: str | None = None) -> str:
        """The Application Insights connection string, with ``host``'s ingestion endpoint."""
        endpoint = self.url_for("ingestion", host)
        return f"InstrumentationKey={self.instrumentation_key};IngestionEndpoint={endpoint}/"

    def environment(self) -> dict[str, str]:
        """The standard variables that lead Azure SDKs here: CA and managed identity."""
        return {
            "SSL_CERT_FILE": str(self.ca_file),
            "IDENTITY_ENDPOINT": self.identity_url,
            "IDENTITY_HEADER": self.identity_header,
        }

    def _build(self) -> dict[str, Listener]:
        options = self._options
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(self.certificates.cert_file, self.certificates.key_file)
        return {
            "identity": Listener(self._identity(), self._hosts, options.identity_port),
            "ingestion": Listener(self._ingestion(), self._hosts, options.ingestion_port),
            "logs": Listener(self._logs(), self._hosts, options.logs_port, tls),
            "arm": Listener(self._arm(), self._hosts, options.arm_port, tls),
        }

    def _app(self, service: str, error_body: ErrorBody, *more: object) -> web.Application:
        middlewares = [observed(service, self.faults, self.calls, error_body), *more]
        app = web.Application(middlewares=middlewares, client_max_size=_MAX_BODY_BYTES)
        add_fault_routes(app, self.faults)
        return app

    def _identity(self) -> web.Application:
        app = self._app("identity", identity_error)
        self.identity.add_routes(app)
        return app

    def _ingestion(self) -> web.Application:
        app = self._app("ingestion", ingestion_error)
        Ingestion(
            self.tables,
            self.tokens,
            instrumentation_key=self.instrumentation_key,
            tenant_columns={"TenantId": self.workspace_id},
            require_entra=self._options.require_entra,
        ).add_routes(app)
        return app

    def _logs(self) -> web.Application:
        app = self._app("logs", logs_error)
        LogsApi(
            self.engine, self.tokens, self.workspace_id, lambda: self._listeners["logs"].origins
        ).add_routes(app)
        return app

    def _arm(self) -> web.Application:
        guard = arm_guard(self.tokens, lambda: self._listeners["arm"].origins, self.permissions.check)
        app = self._app("arm", arm_error, guard)
        wait = self._options.agent_wait_seconds
        find, updates = self.compute.find, self._options.run_commands_update_vm
        action = RunCommandAction(find, self.operations, agent_wait_seconds=wait, updates_vm=updates)
        managed = ManagedRunCommands(find, self.operations, agent_wait_seconds=wait, updates_vm=updates)
        self.compute.before_restart = [action.interrupt, managed.interrupt]
        self._managed_commands = managed
        for part in (self.operations, self.compute, self.activity, action, managed):
            part.add_routes(app)
        return app
