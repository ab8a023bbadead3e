"""Fixtures of the tests that hold the watchdog's ARM adapters against the local Azure."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from azure.mgmt.compute.aio import ComputeManagementClient

from tests.builders import SUBSCRIPTION
from tests.component.arm_site import GROUP, Agent, OddArm, OneClient, clear_commands, target_of
from tests.component.devcloud_site import Site
from vm_watchdog.adapters.compute_inventory import ComputeInventory
from vm_watchdog.ports import Target


@pytest.fixture
def clients(site: Site) -> Any:
    return OneClient(site.compute)


@pytest.fixture
def inventory(clients: Any) -> ComputeInventory:
    return ComputeInventory(clients, [SUBSCRIPTION])


@pytest_asyncio.fixture(loop_scope="session")
async def odd_arm(site: Site) -> AsyncIterator[OddArm]:
    arm = OddArm(site)
    await arm.listener.start()
    yield arm
    await arm.listener.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def odd_clients(site: Site, odd_arm: OddArm) -> AsyncIterator[Any]:
    """Clients of that ARM."""
    async with ComputeManagementClient(
        site.credential,
        SUBSCRIPTION,
        base_url=odd_arm.listener.origins[0],
        credential_scopes=["https://management.azure.com/.default"],
        connection_verify=str(site.cloud.ca_file),
        retry_total=0,
    ) as client:
        yield OneClient(client)


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Agent:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Agent(tmp_path)


@pytest_asyncio.fixture(loop_scope="session")
async def target(inventory: ComputeInventory, site: Site) -> AsyncIterator[Target]:
    """web-1, without a run command or a denied permission from the tests before."""
    yield await target_of(inventory, site)
    site.cloud.faults.clear()
    site.cloud.permissions.allow_all()
    site.cloud.compute.vm_agent_versions.clear()
    await clear_commands(site)
    # What an action has left running ends with the VM, as in Azure.
    await (await site.compute.virtual_machines.begin_start(GROUP, "web-1")).result()
    await (await site.compute.virtual_machines.begin_restart(GROUP, "web-1")).result()
