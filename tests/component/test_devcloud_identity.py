"""The local identity endpoints, as azure-identity and a VM use them."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from pathlib import Path

import aiohttp
import jwt
import pytest

from devcloud.azurite import Azurite
from devcloud.tls import make_certificates
from devcloud.tokens import TokenRefused, Tokens
from tests.component.devcloud_site import ROOT, Site
from vm_agent.collectors.scheduled_events import parse_events
from vm_agent.imds import Imds
from vm_health.model import ScheduledEvent

pytest_plugins = ["tests.component.devcloud_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="session")

APP_SERVICE = {"resource": "https://management.azure.com", "api-version": "2019-08-01"}


async def test_default_azure_credential_gets_a_token_for_the_asked_audience(site: Site) -> None:
    """The product's own credential class finds the endpoint by the two standard variables."""
    token = await site.credential.get_token("https://monitor.azure.com/.default")
    claims = jwt.decode(token.token, options={"verify_signature": False})
    assert claims["aud"] == "https://monitor.azure.com"
    site.cloud.tokens.verify(f"Bearer {token.token}", ["https://monitor.azure.com/"])


@pytest.mark.parametrize(
    ("headers", "left_out", "status"),
    [("none", "", 401), ("wrong", "", 401), ("right", "resource", 400), ("right", "api-version", 400)],
)
async def test_app_service_endpoint_refuses(site: Site, headers: str, left_out: str, status: int) -> None:
    """401 without the secret, 400 without a parameter."""
    sent = {"none": {}, "wrong": {"X-IDENTITY-HEADER": "guess"}}.get(
        headers, {"X-IDENTITY-HEADER": site.cloud.identity_header}
    )
    params = {name: value for name, value in APP_SERVICE.items() if name != left_out}
    async with site.http.get(site.cloud.identity_url, params=params, headers=sent) as response:
        assert response.status == status
        assert "access_token" not in await response.json()


async def test_imds_token_needs_the_metadata_header_and_has_numbers_as_strings(site: Site) -> None:
    """As a program on a VM reads it."""
    url = f"{site.cloud.imds_url}/metadata/identity/oauth2/token"
    params = {"resource": "https://monitor.azure.com", "api-version": "2018-02-01"}
    async with site.http.get(url, params=params) as response:
        assert response.status == 400
    async with site.http.get(url, params=params, headers={"Metadata": "true"}) as response:
        body = await response.json()
    assert response.status == 200
    assert isinstance(body["expires_in"], str)
    assert int(body["expires_on"]) > int(body["not_before"])
    site.cloud.tokens.verify(f"Bearer {body['access_token']}", ["https://monitor.azure.com"])


async def test_imds_knows_the_caller_by_its_address(site: Site) -> None:
    """Two callers, two answers; an address that is no VM's gets none."""
    url = f"{site.cloud.imds_url}/metadata/instance/compute?api-version=2021-02-01"
    names = {}
    for address in ("127.0.0.7", "127.0.0.8", "127.0.0.99"):
        connector = aiohttp.TCPConnector(local_addr=(address, 0))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(url, headers={"Metadata": "true"}) as response,
        ):
            names[address] = (response.status, (await response.json()).get("name"))
    assert names == {"127.0.0.7": (200, "web-1"), "127.0.0.8": (200, "web-2"), "127.0.0.99": (404, None)}


async def test_imds_of_one_vm_by_name(site: Site) -> None:
    """For VMs that share an address; the id is ARM's."""
    url = f"{site.cloud.imds_url_for('db-3')}/metadata/instance/compute?api-version=2021-02-01"
    async with site.http.get(url, headers={"Metadata": "true"}) as response:
        body = await response.json()
    spec = site.vms["Db-3"].spec
    assert (body["resourceId"], body["resourceGroupName"], body["location"], body["subscriptionId"]) == (
        spec.vm_id,
        spec.resource_group,
        spec.location,
        spec.subscription_id,
    )


async def test_imds_announces_what_it_was_told_to_each_vm(site: Site) -> None:
    """As a VM asks for its Scheduled Events; the agent's own reader understands it."""
    event = {"EventId": "A1", "EventType": "Redeploy", "EventStatus": "Scheduled", "NotBefore": ""}
    site.cloud.identity.announce("Db-3", [event])
    try:
        found = await asyncio.to_thread(Imds(site.cloud.imds_url_for("db-3")).scheduled_events)
        assert parse_events(found) == (ScheduledEvent("A1", "Redeploy", "Scheduled"),)
        nothing = await asyncio.to_thread(Imds(site.cloud.imds_url_for("web-1")).scheduled_events)
        assert nothing == {"DocumentIncarnation": 0, "Events": []}
        url = f"{site.cloud.imds_url_for('db-3')}/metadata/scheduledevents?api-version=2020-07-01"
        async with site.http.get(url) as response:
            assert response.status == 400
    finally:
        site.cloud.identity.announce("Db-3", [])


async def test_tokens_of_another_run_expired_ones_and_nonsense_are_refused() -> None:
    """Each with its reason."""
    tokens = Tokens()
    good = tokens.mint("https://a").text
    tokens.verify(f"Bearer {good}", ["https://a/"])
    for header, reason in (
        (f"Bearer {Tokens().mint('https://a').text}", "invalid"),
        (f"Bearer {tokens.mint('https://a', -1).text}", "expired"),
        ("Bearer nonsense", "invalid"),
        (f"Basic {good}", "missing"),
        (None, "missing"),
    ):
        with pytest.raises(TokenRefused, match=reason):
            tokens.verify(header, ["https://a"])
    with pytest.raises(TokenRefused) as refused:
        tokens.verify(f"Bearer {good}", ["https://b"])
    assert refused.value.wrong_audience


async def test_certificate_holds_for_every_address_and_for_no_other(site: Site, tmp_path: Path) -> None:
    """A client that trusts only the CA connects by each address; with another CA to none."""
    for host in ("127.0.0.1", "127.0.0.2"):
        url = site.cloud.url_for("logs", host)
        async with site.http.get(url) as response:
            assert response.status == 404
    port = site.cloud.url_for("logs").rpartition(":")[2]
    async with site.http.get(f"https://localhost:{port}") as response:
        assert response.status == 404
    other = make_certificates(tmp_path, [])
    tls = ssl.create_default_context(cafile=str(other.ca_file))
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await site.http.get(site.cloud.logs_url, ssl=tls)


PRODUCT_LIKE = """
import asyncio, sys
from azure.identity.aio import DefaultAzureCredential
from azure.mgmt.compute.aio import ComputeManagementClient
from azure.monitor.query.aio import LogsQueryClient
from azure.data.tables.aio import TableServiceClient
from azure.storage.queue.aio import QueueServiceClient
arm, logs, workspace, table, queue, subscription = sys.argv[1:]
async def main():
    async with (DefaultAzureCredential() as credential,
                ComputeManagementClient(credential, subscription, base_url=arm) as compute,
                LogsQueryClient(credential, endpoint=logs) as query,
                TableServiceClient(table, credential=credential) as tables,
                QueueServiceClient(queue, credential=credential) as queues):
        print(sorted([vm.name async for vm in compute.virtual_machines.list_all()]))
        print((await query.query_workspace(workspace, "AppEvents | count", timespan=None)).tables[0].columns)
        await tables.create_table_if_not_exists("standard")
        print([item.name async for item in tables.list_tables() if item.name == "standard"])
        await queues.create_queue("standard")
        print([item.name async for item in queues.list_queues() if item.name == "standard"])
asyncio.run(main())
"""


async def test_a_process_with_only_the_standard_variables_reaches_everything(
    site: Site, azurite: Azurite
) -> None:
    """SSL_CERT_FILE, IDENTITY_ENDPOINT, IDENTITY_HEADER and endpoints: no other setting, no client option."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PRODUCT_LIKE,
        site.cloud.arm_url,
        site.cloud.logs_url,
        site.cloud.workspace_id,
        azurite.table_url,
        azurite.queue_url,
        site.vms["web-1"].spec.subscription_id,
        cwd=ROOT,
        env=os.environ | site.cloud.environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()[-2000:]
    assert out.decode().splitlines() == [
        "['Db-3', 'web-1', 'web-2']",
        "['Count']",
        "['standard']",
        "['standard']",
    ]
