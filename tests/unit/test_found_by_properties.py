"""What the stories of tests/properties have found, each as the shortest story that shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.builders import a_report, a_vm_id, at
from tests.fakes import World, a_watched_vm, unavailable
from vm_health.errors import TransientError
from vm_health.model import Cause, ProbeResult, Status
from vm_health.names import vm_key
from vm_health.state import FLEET_ID, CommandResult, StartKind, StartOutcome
from vm_watchdog.evaluation import evaluate, load_sight
from vm_watchdog.on_demand import restart_on_request
from vm_watchdog.ports import Inventory, Prober, Target
from vm_watchdog.tick import run_tick


class BusyInventory:
    """While the VMs are listed, another instance changes the fleet's state."""

    def __init__(self, world: World, inner: Inventory) -> None:
        self._world, self._inner = world, inner

    async def list_targets(self) -> Sequence[Target]:
        self._world.fleet.touch_fleet()
        return await self._inner.list_targets()

    async def get_target(self, vm_id: str) -> Target | None:
        return await self._inner.get_target(vm_id)


async def test_a_freeze_that_lost_the_race_for_the_fleets_row_is_told_by_the_next_tick() -> None:
    """It was kept without its notice before: nobody would have heard of it."""
    world = await a_watched_vm()
    world.canary.problem = "no way out"
    world.is_down()
    world.clock.now = at(0)
    await run_tick(replace(world.ports, inventory=BusyInventory(world, world.inventory)), world.options)
    await world.recheck(10)
    for moment in (60, 120):
        await world.tick(moment)
    assert [one.kind for one in world.queue.alerts if one.vm_id == FLEET_ID] == ["frozen"]
    assert world.runner.restarts == []


async def test_late_telemetry_is_not_resolved_because_the_query_fails() -> None:
    world = await a_watched_vm()
    world.telemetry.snapshots.clear()
    for moment in (0, 60):
        await world.tick(moment)
    assert (await world.state()).cause is Cause.TELEMETRY_DELAYED
    world.telemetry.error = unavailable()
    for moment in (120, 180, 240):
        await world.tick(moment)
    assert [one.kind for one in world.queue.alerts] == ["fired"]
    assert (await world.state()).status is Status.WARNING
    world.telemetry.error = None
    for moment in (300, 360):
        world.clock.now = at(moment)
        world.all_is_fine()
        await world.tick(moment)
    assert [one.kind for one in world.queue.alerts] == ["fired", "resolved"]


async def slots_of(world: World) -> list[str]:
    return [slot.vm for slot in (await world.fleet.load_slots("rg-web"))[0]]


async def test_a_running_unit_that_a_person_has_restarted_keeps_its_slot_until_the_command_ends() -> None:
    """It is up all the while: that it is seen up does not say that its restart is over."""
    world = await a_watched_vm()
    world.clock.now = at(0)
    answer = await restart_on_request(world.ports, world.options, a_vm_id(), "web.service", "alice", "stuck")
    world.clock.now = at(5)
    world.all_is_fine()
    await world.recheck(5)
    assert await slots_of(world) == [vm_key(a_vm_id())]
    world.runner.results[answer.token] = CommandResult(True, "restarted")
    await world.recheck(10)
    assert await slots_of(world) == []


class BusyProber:
    """While the VM is probed, other looks save its state."""

    def __init__(self, world: World, inner: Prober, times: int) -> None:
        self._world, self._inner, self._times = world, inner, times

    async def probe(self, vm_id: str, endpoint: str) -> ProbeResult:
        if self._times:
            self._times -= 1
            self._world.store.touch(vm_id)
        return await self._inner.probe(vm_id, endpoint)


@pytest.mark.parametrize(("times", "accepted"), [(1, True), (9, False)])
async def test_a_person_need_not_ask_again_because_a_look_was_at_the_vm_just_then(
    times: int, accepted: bool
) -> None:
    world = await a_watched_vm()
    world.all_is_fine()
    ports = replace(world.ports, prober=BusyProber(world, world.ports.prober, times))
    answer = await restart_on_request(ports, world.options, a_vm_id(), "web.service", "alice", "stuck")
    assert answer.accepted is accepted
    assert len(world.runner.restarts) == accepted
    assert ("ask again" in answer.reason) is not accepted
    assert await slots_of(world) == [vm_key(a_vm_id())] * accepted


async def test_whoever_looked_before_a_restart_does_not_give_its_slot_back() -> None:
    """One instance saw the unit up after attempt 1, and was slow; meanwhile another made attempt 2."""
    world = await a_watched_vm()
    world.is_down()
    for moment in (0, 10):
        await world.tick(moment)
    stored = await world.store.load_one(a_vm_id())
    assert stored is not None
    for moment in (15, 30):
        world.clock.now = at(moment)
        world.is_down()
        await world.recheck(moment)
    assert len(world.runner.restarts) == 2
    world.serve("web-1", a_report())
    slow = replace(world.options, clock=lambda: at(16))
    sight = await load_sight(world.ports, slow, at(16))
    await evaluate(world.ports, sight, [world.inventory.targets[a_vm_id()]], {a_vm_id(): stored}, None)
    assert await slots_of(world) == [vm_key(a_vm_id())]


async def test_azures_retry_after_holds_though_the_recheck_can_not_be_queued() -> None:
    world = await a_watched_vm()
    world.is_down()
    await world.tick(0)
    world.runner.outcome = StartOutcome(StartKind.THROTTLED, "429", retry_after_seconds=90)
    world.queue.errors["recheck"] = TransientError("queue: 503")
    with pytest.raises(TransientError):
        await world.recheck(10)
    unit = (await world.state()).units["web.service"]
    assert (unit.not_before, unit.command) == (at(100), None)
