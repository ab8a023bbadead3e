"""The stores over Table Storage as Azurite serves it: the ports' suites, and what only tables can do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from azure.core.credentials import AccessToken
from azure.core.exceptions import ResourceNotFoundError
from azure.data.tables.aio import TableClient, TableServiceClient

from devcloud.azurite import Azurite
from tests.builders import a_vm_id, at
from tests.component.devcloud_site import Site
from tests.contracts.fleet_store import A_FLEET, FleetStoreContract
from tests.contracts.silence_store import SilenceStoreContract
from tests.contracts.state_store import A_STATE, StateStoreContract
from vm_health.errors import ConflictError, PermanentError, TransientError
from vm_health.fleet import FleetState, Slot
from vm_health.names import vm_key
from vm_health.silence import Matcher, Silence, Stops
from vm_health.state import FLEET_ID, Event, UnitState, VmState
from vm_health.state_codec import MAX_STATE_CHARS
from vm_watchdog.adapters.table_fleet import TableFleetStore
from vm_watchdog.adapters.table_silences import TableSilenceStore
from vm_watchdog.adapters.table_state import TableStateStore
from vm_watchdog.tables import EVENT_TABLE, META_PARTITION, SILENCE_TABLE, STATE_TABLE

pytest_plugins = ["tests.component.devcloud_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="session")


def options_of(site: Site, credential: object) -> dict[str, Any]:
    """How a client reaches the local service."""
    return {"credential": credential, "connection_verify": str(site.cloud.ca_file)}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def tables(shared_site: Site, azurite: Azurite) -> AsyncIterator[TableServiceClient]:
    """The table service, reached with tokens of the local identity."""
    options = options_of(shared_site, shared_site.credential)
    async with TableServiceClient(azurite.table_url, **options) as service:
        yield service


async def raw(tables: TableServiceClient, name: str) -> TableClient:
    return await tables.create_table_if_not_exists(name)


class TestTableStateStore(StateStoreContract):
    @pytest.fixture
    def store(self, tables: TableServiceClient) -> TableStateStore:
        return TableStateStore(tables)


class TestTableFleetStore(FleetStoreContract):
    @pytest_asyncio.fixture(loop_scope="session")
    async def fleet(self, tables: TableServiceClient) -> TableFleetStore:
        """The store, without what the test before saved of the fleet."""
        await (await raw(tables, STATE_TABLE)).delete_entity(META_PARTITION, "fleet")
        return TableFleetStore(tables)


class TestTableSilenceStore(SilenceStoreContract):
    @pytest.fixture
    def silences(self, tables: TableServiceClient) -> TableSilenceStore:
        return TableSilenceStore(tables)


@pytest.fixture
def vm_id(request: pytest.FixtureRequest) -> str:
    """A VM that no other test has."""
    return a_vm_id(request.node.name.replace("_", "-")[:60])


async def test_rows_lie_where_the_design_says(tables: TableServiceClient, vm_id: str) -> None:
    store, key = TableStateStore(tables), vm_key(vm_id)
    await store.save(vm_id, VmState(status=A_STATE.status, since=at(7)), None)
    await store.append_events(vm_id, [Event("transition", "x", at(0))])
    await store.append_events(FLEET_ID, [Event("laid", "x", at(0))])
    row = await (await raw(tables, STATE_TABLE)).get_entity(key[0], key)
    assert (row["VmId"], row["Status"], row["Cause"], row["BadSince"]) == (vm_id, "CRITICAL", "ok", at(7))
    events = await raw(tables, EVENT_TABLE)
    assert [row["Kind"] async for row in events.query_entities(f"PartitionKey eq '{key}'")] == ["transition"]
    fleets = events.query_entities(f"PartitionKey eq '{vm_key(FLEET_ID)}'")
    assert "laid" in [row["Kind"] async for row in fleets]


async def test_a_row_has_no_more_columns_than_its_state_needs(tables: TableServiceClient, vm_id: str) -> None:
    store, key = TableStateStore(tables), vm_key(vm_id)
    units = {f"worker-{number:04}.service": UnitState(3, at(0), at(1)) for number in range(400)}
    etag = await store.save(vm_id, VmState(units=units), None)
    table = await raw(tables, STATE_TABLE)
    long = await table.get_entity(key[0], key)
    assert "State2" in long
    assert all(len(str(value)) <= 32_767 for value in long.values())
    await store.save(vm_id, VmState(), etag)
    assert "State2" not in await table.get_entity(key[0], key)


async def test_the_longest_state_that_is_written_is_within_the_service_limits(
    tables: TableServiceClient, vm_id: str
) -> None:
    """Azurite takes more than the service: the sizes are counted as the service documents them."""
    store, key = TableStateStore(tables), vm_key(vm_id)
    units = {f"{number:03}.service": UnitState(held="x" * 900) for number in range(500)}
    state = VmState(reason="x" * 4_096, units=units)
    await store.save(vm_id, state, None)
    row = await (await raw(tables, STATE_TABLE)).get_entity(key[0], key)
    texts = [value for value in row.values() if isinstance(value, str)]
    assert sum(map(len, texts)) > MAX_STATE_CHARS * 0.95
    assert max(map(len, texts)) * 2 <= 64 * 1024
    assert sum(2 * len(name) + 2 * len(str(value)) + 8 for name, value in row.items()) <= 1024 * 1024
    loaded = await store.load_one(vm_id)
    assert loaded is not None
    assert loaded.state == state
    await store.delete(vm_id, loaded.etag)


async def test_an_unreadable_state_is_never_started_afresh(tables: TableServiceClient, vm_id: str) -> None:
    """It would forget attempts: the VM is left alone, and whoever looks at it loses the race."""
    store, key = TableStateStore(tables), vm_key(vm_id)
    await store.save(vm_id, A_STATE, None)
    row = {"PartitionKey": key[0], "RowKey": key, "VmId": vm_id, "State": '{"schema": 99}'}
    await (await raw(tables, STATE_TABLE)).upsert_entity(row, mode="replace")
    assert await store.load_one(vm_id) is None
    assert vm_id not in await store.load(0, 1)
    with pytest.raises(ConflictError):
        await store.save(vm_id, VmState(), None)
    await (await raw(tables, STATE_TABLE)).delete_entity(key[0], key)


async def test_an_unreadable_fleet_is_an_error_and_no_thaw(tables: TableServiceClient) -> None:
    table = await raw(tables, STATE_TABLE)
    fleet = TableFleetStore(tables)
    bad = {"PartitionKey": META_PARTITION, "RowKey": "fleet", "State": '{"schema": 99}'}
    await table.upsert_entity(bad, mode="replace")
    with pytest.raises(PermanentError, match="the fleet's state is unreadable"):
        await fleet.load_fleet()
    await table.upsert_entity({"PartitionKey": "slots", "RowKey": vm_key("odd"), "Slots": "[]"})
    with pytest.raises(PermanentError, match="restart slots of group odd"):
        await fleet.load_slots("odd")
    await table.delete_entity(META_PARTITION, "fleet")


async def test_an_unreadable_silence_costs_only_itself(tables: TableServiceClient) -> None:
    table, silences = await raw(tables, SILENCE_TABLE), TableSilenceStore(tables)
    good = Silence("good-one", Matcher("web-1"), at(0), at(60), Stops.ACTION, "anna", "why not")
    await silences.add_silence(good)
    await table.upsert_entity({"PartitionKey": "silence", "RowKey": "odd", "Silence": "{}"})
    found = await silences.list_silences()
    assert good in found
    assert "odd" not in [one.id for one in found]
    assert await silences.end_silence("odd", at(0)) is None
    await table.delete_entity("silence", "odd")


@pytest.mark.parametrize("silence_id", ["", "a/b", "a#b", "ä", "x" * 129])
async def test_a_silence_with_an_id_that_no_row_can_have_is_refused(
    tables: TableServiceClient, silence_id: str
) -> None:
    silence = Silence(silence_id, Matcher(), at(0), at(60), Stops.BOTH, "anna", "why")
    with pytest.raises(PermanentError, match="a silence's id must be"):
        await TableSilenceStore(tables).add_silence(silence)


async def test_a_row_that_vanished_under_its_etag_is_a_lost_race(tables: TableServiceClient) -> None:
    fleet, table = TableFleetStore(tables), await raw(tables, STATE_TABLE)
    await table.delete_entity(META_PARTITION, "fleet")
    etag = await fleet.save_fleet(A_FLEET, None)
    await table.delete_entity(META_PARTITION, "fleet")
    with pytest.raises(ConflictError):
        await fleet.save_fleet(FleetState(), etag)
    with pytest.raises(ConflictError):
        await fleet.save_slots("never-saved", (Slot(vm_key("a"), at(0)),), etag)
    with pytest.raises(ResourceNotFoundError):
        await table.get_entity(META_PARTITION, "fleet")


async def test_a_token_that_is_refused_is_a_permanent_error(shared_site: Site, azurite: Azurite) -> None:
    wrong = shared_site.cloud.tokens.mint("https://vault.azure.net")

    class WrongToken:
        async def get_token(self, *_scopes: str, **_options: object) -> AccessToken:
            return AccessToken(wrong.text, wrong.expires_on)

        async def close(self) -> None:
            """Nothing is open."""

    options = options_of(shared_site, WrongToken())
    async with TableServiceClient(azurite.table_url, **options) as service:
        with pytest.raises(PermanentError):
            await TableStateStore(service).load_one(a_vm_id())
        with pytest.raises(PermanentError):
            await TableFleetStore(service).load_fleet()
        with pytest.raises(PermanentError):
            await TableSilenceStore(service).list_silences()


async def test_a_service_that_does_not_answer_is_a_transient_error(shared_site: Site) -> None:
    options = options_of(shared_site, shared_site.credential)
    async with TableServiceClient("https://127.0.0.1:9/devstoreaccount1", retry_total=0, **options) as dead:
        for asked in (
            TableStateStore(dead).load(0, 1),
            TableStateStore(dead).count_bad(at(0)),
            TableStateStore(dead).find_events(["restart"], at(0), 1),
            TableFleetStore(dead).load_slots("rg-web"),
            TableSilenceStore(dead).list_silences(),
        ):
            with pytest.raises(TransientError):
                await asked
