"""The tick: one query, every VM looked at, no VM able to end it; and how large fleets are cut."""

from __future__ import annotations

import pytest

from tests.builders import a_notice, a_report, a_vm_id, at
from tests.fakes import World, a_watched_vm, endpoint_of, unavailable
from vm_health.errors import PermanentError, TransientError
from vm_health.model import PowerState, Status
from vm_health.state_codec import encode_notice
from vm_watchdog.tick import PARTITIONS, run_shard, run_tick, shard_of, shards_for


async def test_a_fleet_of_all_sorts() -> None:
    world = World()
    for name in ("fine", "down", "off", "lost"):
        world.add_vm(name)
    world.add_vm("off", power=PowerState.DEALLOCATED)
    world.add_vm("lost", probed=False)
    world.all_is_fine("fine")
    world.is_down("down")
    for moment in (0, 1):
        record = await world.tick(moment)
    assert record.statuses == {"HEALTHY": 1, "CRITICAL": 1, "STOPPED": 1, "UNKNOWN": 1}
    assert (record.targets, record.troubles) == (4, ())
    assert world.telemetry.queries == 2, "one query a tick, whatever the fleet's size"
    assert await world.store.load_tick() == record


async def test_one_vms_failure_ends_no_tick() -> None:
    world = World()
    for name in ("bad", "down"):
        world.add_vm(name)
        world.is_down(name)
    world.prober.results[endpoint_of("bad")] = RuntimeError("a bug that nobody foresaw")
    record = await world.tick(0)
    assert record.statuses == {"UNKNOWN": 1, "CRITICAL": 1}
    assert record.troubles == ("bad: a bug that nobody foresaw",)
    assert [notice.vm_id for notice in world.queue.alerts] == [a_vm_id("down")]


async def test_an_inventory_that_can_not_be_read_is_no_empty_fleet() -> None:
    world = await a_watched_vm()
    world.inventory.error = TransientError("listing: 503")
    with pytest.raises(TransientError):
        await world.tick(0)
    assert world.journal.take() == ["fleet"], "once may be chance"
    assert world.queue.alerts == []
    record = await world.store.load_tick()
    assert record is not None
    assert record.finished_at == at(-60)
    with pytest.raises(TransientError):
        await world.tick(60)
    (notice,) = world.queue.alerts
    assert (notice.kind, notice.cause) == ("frozen", "canary_failed")
    assert "the list of VMs can't be read" in notice.reason
    world.inventory.error = None
    await world.tick(120)
    assert [notice.kind for notice in world.queue.alerts] == ["frozen", "thawed"]


async def test_states_that_can_not_be_read_are_no_new_fleet() -> None:
    world = await a_watched_vm()
    world.store.error = TransientError("reading states: 503")
    world.is_down()
    with pytest.raises(TransientError):
        await world.tick(0)
    assert world.queue.alerts == []


async def test_an_empty_fleet_is_recorded_too() -> None:
    world = World()
    record = await world.tick(0)
    assert (record.targets, record.statuses, record.troubles) == (0, {}, ())


async def test_the_failed_query_is_a_trouble_of_the_tick() -> None:
    world = await a_watched_vm()
    world.telemetry.error = unavailable()
    assert (await world.tick(0)).troubles == ("telemetry is unavailable",)


# --- shards ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "size", "shards"),
    [
        (0, 500, 1),
        (1, 500, 1),
        (500, 500, 1),
        (501, 500, 2),
        (1_000, 500, 2),
        (1_001, 500, 4),
        (2_001, 500, 8),
        (4_001, 500, 16),
        (8_000, 500, 16),
        (100_000, 500, 16),
        (17, 1, 16),
    ],
)
def test_shard_counts(targets: int, size: int, shards: int) -> None:
    assert shards_for(targets, size) == shards


@pytest.mark.parametrize("count", [1, 2, 4, 8, PARTITIONS])
def test_shards_cover_every_vm_once_and_about_evenly(count: int) -> None:
    fleet = [a_vm_id(f"vm-{number}") for number in range(3_200)]
    sizes = [sum(shard_of(vm_id, count) == shard for vm_id in fleet) for shard in range(count)]
    assert sum(sizes) == len(fleet)
    assert max(sizes) < 1.3 * len(fleet) / count


async def test_the_states_of_a_shard_are_those_of_its_vms() -> None:
    """``shard_of`` and the store's partitions must agree, or a VM would forget its state."""
    world = World()
    fleet = [world.add_vm(f"vm-{number}") for number in range(40)]
    await world.tick(0)
    for count in (1, 2, 4, 8, PARTITIONS):
        for shard in range(count):
            expected = {vm_id for vm_id in fleet if shard_of(vm_id, count) == shard}
            assert set(await world.store.load(shard, count)) == expected


async def test_a_fleet_of_501_is_handed_to_two_shards_and_looked_at_by_neither_tick() -> None:
    world = World()
    for number in range(501):
        world.add_vm(f"vm-{number}", probed=False)
    record = await world.tick(0)
    assert world.queue.shards == [(0, 2), (1, 2)]
    assert (record.targets, record.statuses) == (501, {})
    assert world.telemetry.queries == 0


async def test_the_shards_together_look_at_every_vm_once() -> None:
    world = World(shard_size=2)
    fleet = [world.add_vm(f"vm-{number}") for number in range(5)]
    for number in range(5):
        world.is_down(f"vm-{number}")
    await world.tick(0)
    assert len(world.queue.shards) == 4
    for shard, count in world.queue.shards:
        await run_shard(world.ports, world.options, shard, count)
    assert sorted(notice.vm_id for notice in world.queue.alerts) == sorted(fleet)
    assert len(world.prober.probed) == 5


async def test_a_shard_that_can_not_be_queued_fails_the_tick() -> None:
    world = World(shard_size=1)
    for number in range(3):
        world.add_vm(f"vm-{number}")
    world.queue.errors["shard"] = TransientError("queue: 503")
    with pytest.raises(TransientError):
        await run_tick(world.ports, world.options)
    assert await world.store.load_tick() is None


# --- alerts ----------------------------------------------------------------------------------------------


async def test_an_alert_is_delivered_from_its_message() -> None:
    world = World()
    await world.watchdog.send_alert(encode_notice(a_notice()))
    assert world.alerts.sent == [a_notice()]


@pytest.mark.parametrize("error", [TransientError("429"), PermanentError("404")])
async def test_an_alert_that_fails_goes_back_to_the_queue(error: TransientError | PermanentError) -> None:
    world = World()
    world.alerts.error = error
    with pytest.raises(type(error)):
        await world.watchdog.send_alert(encode_notice(a_notice()))


async def test_what_the_queue_carries_is_what_the_sender_gets() -> None:
    world = await a_watched_vm()
    world.is_down()
    await world.tick(0)
    for notice in world.queue.alerts:
        await world.watchdog.send_alert(encode_notice(notice))
    assert world.alerts.sent == world.queue.alerts
    assert (await world.state()).status is Status.CRITICAL
    assert a_report().vm_id == world.alerts.sent[0].vm_id
