"""Azurite behind bearer tokens, as azure-data-tables and azure-storage-queue use it."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from azure.core import MatchConditions
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceExistsError
from azure.data.tables import UpdateMode
from azure.data.tables.aio import TableClient, TableServiceClient
from azure.storage.queue import TextBase64DecodePolicy, TextBase64EncodePolicy
from azure.storage.queue.aio import QueueClient

from devcloud.azurite import Azurite, AzuriteError
from devcloud.tls import Certificates
from tests.component.devcloud_site import Site

pytest_plugins = ["tests.component.devcloud_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="session")


class FixedToken:
    """A credential that gives a token for one audience, whatever is asked."""

    def __init__(self, site: Site, audience: str) -> None:
        self._token = site.cloud.tokens.mint(audience)

    async def get_token(self, *_scopes: str, **_options: object) -> AccessToken:
        return AccessToken(self._token.text, self._token.expires_on)

    async def close(self) -> None:
        """Nothing is open."""

    async def __aenter__(self) -> FixedToken:
        return self

    async def __aexit__(self, *_details: object) -> None:
        """Nothing is open."""


@pytest_asyncio.fixture(loop_scope="session")
async def table(site: Site, azurite: Azurite, request: pytest.FixtureRequest) -> AsyncIterator[TableClient]:
    """A table of the test's own."""
    name = f"t{abs(hash(request.node.name)) % 10**9}"
    options = {"credential": site.credential, "connection_verify": str(site.cloud.ca_file)}
    async with TableServiceClient(azurite.table_url, **options) as service:
        client = await service.create_table(name)
        async with client:
            yield client


async def test_etag_conflict_duplicate_and_query(table: TableClient) -> None:
    """The compare-and-set that the product's state rests on: a stale ETag is 412, a duplicate 409."""
    key = {"PartitionKey": "shard", "RowKey": "vm"}
    created = await table.create_entity({**key, "state": "first"})
    with pytest.raises(ResourceExistsError):
        await table.create_entity({**key, "state": "again"})
    options = {"mode": UpdateMode.REPLACE, "match_condition": MatchConditions.IfNotModified}
    await table.update_entity({**key, "state": "second"}, etag=created["etag"], **options)
    with pytest.raises(HttpResponseError) as conflict:
        await table.update_entity({**key, "state": "third"}, etag=created["etag"], **options)
    assert conflict.value.status_code == 412
    found = [entity["state"] async for entity in table.query_entities("PartitionKey eq 'shard'")]
    assert found == ["second"]


async def test_a_queue_hides_a_message_for_its_delay(site: Site, azurite: Azurite) -> None:
    """Sent with a visibility delay it can't be received at once, and can after the delay."""
    async with QueueClient(
        azurite.queue_url,
        "delayed",
        credential=site.credential,
        connection_verify=str(site.cloud.ca_file),
        message_encode_policy=TextBase64EncodePolicy(),
        message_decode_policy=TextBase64DecodePolicy(),
    ) as queue:
        await queue.create_queue()
        await queue.send_message("later", visibility_timeout=1)
        await queue.send_message("now")
        sent_at = time.monotonic()
        first = await queue.receive_message()
        assert first is not None
        assert first.content == "now"
        await queue.delete_message(first)
        while (second := await queue.receive_message()) is None:
            assert time.monotonic() - sent_at < 5
        assert second.content == "later"
        assert time.monotonic() - sent_at > 0.4  # Azurite counts in whole seconds
        await queue.delete_message(second)
        assert (await queue.get_queue_properties()).approximate_message_count == 0


@pytest.mark.parametrize(
    ("audience", "taken"),
    [
        ("https://storage.azure.com", True),
        ("https://storage.azure.com/", True),
        ("https://devstoreaccount1.table.core.windows.net", True),
        ("https://otheraccount.table.core.windows.net", False),
        ("https://management.azure.com", False),
    ],
)
async def test_audiences_that_azurite_takes(site: Site, azurite: Azurite, audience: str, taken: bool) -> None:
    """Tokens count: those for another service or account are refused."""
    options = {"credential": FixedToken(site, audience), "connection_verify": str(site.cloud.ca_file)}
    async with TableServiceClient(azurite.table_url, **options) as service:  # type: ignore[arg-type]
        if taken:
            assert [item async for item in service.list_tables() if item.name == "absent"] == []
        else:
            with pytest.raises(ClientAuthenticationError):
                [item async for item in service.list_tables()]


async def test_azurite_that_does_not_start_says_why(tmp_path: Path, azurite_package: Path) -> None:
    """The error carries its last words, and names what is missing."""
    missing = Certificates(tmp_path / "ca", tmp_path / "no.pem", tmp_path / "no.key")
    with pytest.raises(AzuriteError, match=r"(?s)ended with code 1 while starting.*no\.(pem|key)"):
        await Azurite(tmp_path, missing, package=azurite_package).start()
    with pytest.raises(AzuriteError, match="install the npm package"):
        await Azurite(tmp_path, missing, package=tmp_path).start()
    with pytest.raises(AzuriteError, match="no-such-node can't be run"):
        await Azurite(tmp_path, missing, ["no-such-node"], package=azurite_package).start()


async def test_azurite_that_stays_silent_is_ended(tmp_path: Path, azurite_package: Path) -> None:
    """A process that never listens is stopped at the time-out."""
    missing = Certificates(tmp_path / "ca", tmp_path / "no.pem", tmp_path / "no.key")
    stuck = [sys.executable, "-c", "import signal; signal.pause()"]
    with pytest.raises(AzuriteError, match=r"no answer within 0\.2 s"):
        await Azurite(tmp_path, missing, stuck, package=azurite_package).start(timeout_seconds=0.2)
