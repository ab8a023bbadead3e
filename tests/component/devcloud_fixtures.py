"""Fixtures of the local Azure's tests: one cloud and one Azurite for the session.

Named in ``pytest_plugins`` by the modules that use them, so that all share one.
"""

from __future__ import annotations

import contextlib
import shutil
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from azure.identity.aio import DefaultAzureCredential
from azure.mgmt.compute.aio import ComputeManagementClient
from azure.monitor.query.aio import LogsQueryClient

from devcloud.azurite import Azurite
from devcloud.cloud import CloudOptions, LocalCloud
from tests.component.devcloud_site import ROOT, ShellVm, Site
from tests.kql.tools import missing_tool


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for as long as the block runs."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        yield


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    vms = {
        "web-1": ShellVm("web-1", "127.0.0.7", watchdog="on"),
        "web-2": ShellVm("web-2", "127.0.0.8", watchdog="observe"),
        "Db-3": ShellVm("Db-3", "127.0.0.9"),
    }
    options = CloudOptions(retry_after_seconds=0.05, list_page_size=2, agent_wait_seconds=0.3)
    cloud = LocalCloud(
        tmp_path_factory.mktemp("cloud"), vms.values(), extra_hosts=["127.0.0.2"], options=options
    )
    await cloud.start()
    with environment(cloud.environment()):
        credential = DefaultAzureCredential()
    tls = ssl.create_default_context(cafile=str(cloud.ca_file))
    compute = ComputeManagementClient(
        credential,
        vms["web-1"].spec.subscription_id,
        base_url=cloud.arm_url,
        connection_verify=str(cloud.ca_file),
    )
    logs = LogsQueryClient(credential, endpoint=cloud.logs_url, connection_verify=str(cloud.ca_file))
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as http,
        credential,
        compute,
        logs,
    ):
        yield Site(cloud, vms, credential, compute, logs, http)
    await cloud.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def site(shared_site: Site) -> AsyncIterator[Site]:
    """The session's cloud, with no fault left and every VM running."""
    shared_site.cloud.faults.clear()
    for vm in shared_site.vms.values():
        vm.power_state, vm.vm_agent_ready = "running", True
    yield shared_site
    shared_site.cloud.faults.clear()


@pytest.fixture(scope="session")
def azurite_package() -> Path:
    """Where the npm package is."""
    package = ROOT / ".tools" / "node_modules" / "azurite"
    if not package.is_dir():
        missing_tool("azurite, an npm package")
    if shutil.which("node") is None:
        missing_tool("node")
    return package


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def azurite(
    shared_site: Site, azurite_package: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Azurite]:
    """Azurite with the cloud's certificate."""
    directory = tmp_path_factory.mktemp("azurite")
    storage = Azurite(directory, shared_site.cloud.certificates, package=azurite_package)
    await storage.start()
    yield storage
    await storage.stop()
