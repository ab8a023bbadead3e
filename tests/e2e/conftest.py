"""One stack for the whole tier: three VMs with a real systemd each, under an impatient watchdog."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from azure.data.tables.aio import TableServiceClient
from azure.identity.aio import ManagedIdentityCredential
from azure.storage.queue import TextBase64EncodePolicy
from azure.storage.queue.aio import QueueClient

from devcloud.stack import TOOLS, Stack, StackOptions
from devcloud.vms.systemd import supported
from tests.conftest import require
from tests.e2e.site import Site

# Telemetry must not be stale before an agent's second try after a failed one, which comes after 6 s at most.
POLICY = """\
[defaults]
backoff_seconds = [1, 2, 4, 8, 16]
stable_after_seconds = 1
verify_after_seconds = 0.5
snapshot_max_age_seconds = 10
confirm_silent = 5

[defaults.thresholds]
disk_warning_percent = 100
disk_critical_percent = 100
memory_warning_percent = 100
"""
SETTINGS = {"WATCHDOG_LIVE_MAX_AGE_SECONDS": "10", "WATCHDOG_PROBE_TIMEOUT_SECONDS": "1"}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    require((TOOLS / "node_modules" / "azurite").is_dir(), "Azurite, which make setup installs")
    reason = supported()
    require(reason is None, str(reason))
    policy = tmp_path_factory.mktemp("policy") / "watchdog.toml"
    policy.write_text(POLICY)
    options = StackOptions(
        kind="systemd",
        port=0,
        schedule="* * * * * *",
        sample_interval_seconds=0.5,
        report_interval_seconds=1,
        settings={**SETTINGS, "WATCHDOG_POLICY_FILE": str(policy)},
    )
    async with Stack(options, lambda _: None) as stack:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in stack.cloud.environment().items():
                patch.setenv(name, value)
            credential = ManagedIdentityCredential()
        ca_file = str(stack.cloud.ca_file)
        tables = TableServiceClient(stack.azurite.table_url, credential=credential, connection_verify=ca_file)
        rechecks = QueueClient(
            stack.azurite.queue_url,
            "watchdog-recheck",
            credential=credential,
            connection_verify=ca_file,
            message_encode_policy=TextBase64EncodePolicy(),
        )
        async with aiohttp.ClientSession() as http, credential, tables, rechecks:
            yield Site(stack, http, tables, rechecks)


@pytest_asyncio.fixture(loop_scope="session")
async def site(shared_site: Site) -> AsyncIterator[Site]:
    """The stack with every VM healthy before a test, and after it again."""
    await shared_site.healthy()
    shared_site.begin()
    yield shared_site
    shared_site.stack.cloud.faults.clear()
    await shared_site.healthy()
