"""The StateStore port: one suite over the tests' fake and over Table Storage as Azurite serves it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from azure.core.credentials import AccessToken
from azure.data.tables.aio import TableClient, TableServiceClient

from devcloud.azurite import Azurite
from tests.builders import NOW, a_notice, a_vm_id, an_incident, at
from tests.component.devcloud_site import Site
from tests.fakes import FakeStore
from vm_health.errors import ConflictError, NotFoundError, PermanentError
from vm_health.model import Status
from vm_health.names import vm_key
from vm_health.state import Event, UnitState, VmState
from vm_watchdog.adapters.table_state import EVENT_TABLE, STATE_TABLE, TableStateStore
from vm_watchdog.ports import StateStore, TickRecord
from vm_watchdog.tick import PARTITIONS, shard_of

pytest_plugins = ["tests.component.devcloud_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="session")

_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def tables(shared_site: Site, azurite: Azurite) -> AsyncIterator[TableServiceClient]:
    """The table service, reached with tokens of the local identity."""
    options = {"credential": shared_site.credential, "connection_verify": str(shared_site.cloud.ca_file)}
    async with TableServiceClient(azurite.table_url, **options) as service:
        yield service


@pytest.fixture(params=["fake", "azurite"])
def store(request: pytest.FixtureRequest) -> StateStore:
    """Both implementations of the port."""
    if request.param == "fake":
        return FakeStore()
    return TableStateStore(request.getfixturevalue("tables"))


@pytest.fixture
def vm_id() -> str:
    """A VM that no other test has."""
    return a_vm_id(f"store-{next(_numbers)}")


A_STATE = VmState(
    status=Status.CRITICAL,
    subjects=("web.service",),
    reason="web.service is down; Zürich 🌉",
    since=NOW,
    units={"web.service": UnitState(attempts=2, not_before=at(40), last_attempt_at=NOW, command="token-1")},
    incident=an_incident(),
    sequence=3,
    next_look_at=at(5),
    endpoint="http://10.0.0.4:8080",
    was_reached=True,
    outbox=(a_notice(),),
)


async def test_a_vm_that_was_never_saved_is_not_there(store: StateStore, vm_id: str) -> None:
    assert await store.load_one(vm_id) is None
    assert vm_id not in await store.load(0, 1)


async def test_what_is_saved_comes_back(store: StateStore, vm_id: str) -> None:
    etag = await store.save(vm_id, A_STATE, None)
    one, every = await store.load_one(vm_id), await store.load(0, 1)
    assert one is not None
    assert one == every[vm_id]
    assert (one.state, one.etag) == (A_STATE, etag)


async def test_a_change_under_its_etag(store: StateStore, vm_id: str) -> None:
    first = await store.save(vm_id, A_STATE, None)
    second = await store.save(vm_id, VmState(), first)
    assert second != first
    stored = await store.load_one(vm_id)
    assert stored is not None
    assert (stored.state, stored.etag) == (VmState(), second)


async def test_an_etag_from_a_scan_is_good_for_a_change(store: StateStore, vm_id: str) -> None:
    await store.save(vm_id, A_STATE, None)
    scanned = (await store.load(0, 1))[vm_id]
    await store.save(vm_id, VmState(), scanned.etag)


async def test_an_old_etag_loses_and_changes_nothing(store: StateStore, vm_id: str) -> None:
    old = await store.save(vm_id, A_STATE, None)
    await store.save(vm_id, replace(A_STATE, sequence=4), old)
    with pytest.raises(ConflictError):
        await store.save(vm_id, VmState(), old)
    stored = await store.load_one(vm_id)
    assert stored is not None
    assert stored.state.sequence == 4


async def test_a_second_first_save_loses(store: StateStore, vm_id: str) -> None:
    await store.save(vm_id, A_STATE, None)
    with pytest.raises(ConflictError):
        await store.save(vm_id, VmState(), None)


async def test_an_etag_of_a_row_that_is_gone(store: StateStore, vm_id: str) -> None:
    etag = await store.save(vm_id, A_STATE, None)
    with pytest.raises(NotFoundError):
        await store.save(a_vm_id("never-saved"), A_STATE, etag)


@pytest.mark.parametrize("count", [1, 2, 4, 8, PARTITIONS])
async def test_the_shards_hold_every_vm_once(store: StateStore, count: int) -> None:
    fleet = [a_vm_id(f"shard-{count}-{number}") for number in range(24)]
    await asyncio.gather(*(store.save(name, VmState(), None) for name in fleet))
    shards = [await store.load(shard, count) for shard in range(count)]
    for vm_id in fleet:
        assert [shard for shard, states in enumerate(shards) if vm_id in states] == [shard_of(vm_id, count)]


async def test_history_comes_newest_first_and_cut(store: StateStore, vm_id: str) -> None:
    assert await store.read_events(vm_id, 10) == []
    await store.append_events(vm_id, [Event("transition", "down", at(0), {"unit": "web.service", "n": 1})])
    await store.append_events(vm_id, [Event("restart", "first", at(10)), Event("backoff", "then", at(10))])
    await store.append_events(vm_id, [Event("restart_sent", "last", at(10))], offset=2)
    await store.append_events(vm_id, [])
    found = await store.read_events(vm_id, 10)
    assert [event.kind for event in found] == ["restart_sent", "backoff", "restart", "transition"]
    assert found[-1] == Event("transition", "down", at(0), {"unit": "web.service", "n": 1})
    assert [event.kind for event in await store.read_events(vm_id, 2)] == ["restart_sent", "backoff"]


async def test_moments_keep_their_microseconds(store: StateStore, vm_id: str) -> None:
    moments = [at(0.000001), at(0.000002), at(0.1)]
    for moment in moments:
        await store.append_events(vm_id, [Event("transition", "x", moment)])
    assert [event.at for event in await store.read_events(vm_id, 9)] == moments[::-1]


async def test_the_history_of_one_vm_is_not_anothers(store: StateStore, vm_id: str) -> None:
    await store.append_events(vm_id, [Event("transition", "x", at(0))])
    assert await store.read_events(vm_id + "-other", 9) == []


async def test_history_that_is_longer_than_a_column_can_still_be_read(store: StateStore, vm_id: str) -> None:
    subjects = [f"worker-with-a-long-name@{number}.service" for number in range(500)]
    await store.append_events(vm_id, [Event("transition", "r" * 60_000, at(0), {"subjects": subjects})])
    (event,) = await store.read_events(vm_id, 9)
    assert event.kind == "transition"
    assert event.reason.startswith("rrr")


async def test_the_ticks_record(store: StateStore) -> None:
    record = TickRecord(at(0), at(1.5), 3, {"HEALTHY": 2, "CRITICAL": 1}, ("web-1: Zürich",))
    await store.save_tick(record)
    assert await store.load_tick() == record
    later = TickRecord(at(60), at(61), 0)
    await store.save_tick(later)
    assert await store.load_tick() == later
    assert "tick" not in await store.load(0, 1)


async def test_a_tick_full_of_troubles_can_still_be_read(store: StateStore) -> None:
    """The record is what tells the outside that the watchdog lives: trouble must not break it."""
    troubles = tuple(f"vm-{number}: " + 'something "quoted" went wrong; ' * 40 for number in range(500))
    await store.save_tick(TickRecord(at(0), at(1), 500, {"UNKNOWN": 500}, troubles))
    record = await store.load_tick()
    assert record is not None
    assert (record.targets, record.statuses) == (500, {"UNKNOWN": 500})
    assert record.troubles[0].startswith("vm-0: something")


# --- what only the table can do --------------------------------------------------------------------------


async def raw(tables: TableServiceClient, name: str) -> TableClient:
    return await tables.create_table_if_not_exists(name)


async def test_rows_lie_where_the_design_says(tables: TableServiceClient, vm_id: str) -> None:
    store, key = TableStateStore(tables), vm_key(vm_id)
    await store.save(vm_id, A_STATE, None)
    await store.append_events(vm_id, [Event("transition", "x", at(0))])
    row = await (await raw(tables, STATE_TABLE)).get_entity(key[0], key)
    assert (row["VmId"], row["Status"], row["Cause"]) == (vm_id, "CRITICAL", "ok")
    history = (await raw(tables, EVENT_TABLE)).query_entities(f"PartitionKey eq '{key}'")
    assert [event["Kind"] async for event in history] == ["transition"]


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


async def test_a_token_that_is_refused_is_a_permanent_error(shared_site: Site, azurite: Azurite) -> None:
    wrong = shared_site.cloud.tokens.mint("https://vault.azure.net")

    class WrongToken:
        async def get_token(self, *_scopes: str, **_options: object) -> AccessToken:
            return AccessToken(wrong.text, wrong.expires_on)

        async def close(self) -> None:
            """Nothing is open."""

    options = {"credential": WrongToken(), "connection_verify": str(shared_site.cloud.ca_file)}
    async with TableServiceClient(azurite.table_url, **options) as service:
        with pytest.raises(PermanentError):
            await TableStateStore(service).load_one(a_vm_id())
