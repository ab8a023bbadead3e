"""What one VM's trouble is not: the fleet's. Freezes, budgets, silences and vanished VMs at whole ticks."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.builders import a_report, a_target, a_vm_id, at
from tests.fakes import World, endpoint_of, unavailable
from vm_health.fleet import FleetState
from vm_health.model import Cause, PowerState, Status
from vm_health.policy import Policy
from vm_health.safety import SafetyPolicy
from vm_health.silence import Matcher, Silence, Stops
from vm_health.state import FLEET_ID
from vm_watchdog.evaluation import evaluate, load_sight
from vm_watchdog.on_demand import preview, restart_on_request
from vm_watchdog.slots import SLOT_SECONDS
from vm_watchdog.tick import run_shard

CALM = SafetyPolicy(mass_failure_min_vms=1_000)


async def a_fleet(size: int, **world: object) -> World:
    """A world with VMs vm-0, vm-1 …, all found fine at second -60."""
    found = World(**world)  # type: ignore[arg-type]
    for number in range(size):
        found.add_vm(f"vm-{number}")
        found.all_is_fine(f"vm-{number}")
    await found.tick(-60)
    found.journal.take()
    return found


async def all_report(world: World, size: int) -> None:
    for number in range(size):
        world.report(f"vm-{number}", a_report())


async def fleet_state(world: World) -> FleetState:
    return (await world.fleet.load_fleet())[0]


def told(world: World, vm_id: str = FLEET_ID) -> list[tuple[str, str]]:
    return [(one.kind.value, one.cause.value) for one in world.queue.alerts if one.vm_id == vm_id]


async def fleet_history(world: World) -> list[str]:
    return [event.kind for event in reversed(await world.store.read_events(FLEET_ID, 100))]


def take_down(world: World, *numbers: int) -> None:
    for number in numbers:
        world.is_down(f"vm-{number}")


# --- mass failure ----------------------------------------------------------------------------------------


async def test_half_of_the_fleet_down_at_once_restarts_nothing_and_says_so_once() -> None:
    world = await a_fleet(10)
    world.clock.now = at(0)
    take_down(world, *range(5))
    for moment in (0, 60, 120):
        await world.tick(moment)
        world.clock.now = at(moment)
        take_down(world, *range(5))
    for number in range(5):
        await world.recheck(130, f"vm-{number}")
    assert world.runner.restarts == []
    assert told(world) == [("frozen", "mass_failure")]
    assert "held" in await world.history("vm-0")
    assert (await world.state("vm-0")).units["web.service"].attempts == 0


async def test_a_failure_that_comes_vm_by_vm_through_nudges_freezes_before_the_first_restart() -> None:
    """Each recheck sees one VM; the store knows how many have turned bad."""
    world = await a_fleet(10)
    for number in range(5):
        world.clock.now = at(number)
        world.is_down(f"vm-{number}")
        await world.recheck(number, f"vm-{number}")
    for number in range(5):
        await world.recheck(10 + number, f"vm-{number}")
    assert world.runner.restarts == []
    assert told(world) == [("frozen", "mass_failure")]


async def test_the_freeze_ends_when_most_are_fine_again_and_the_rest_is_repaired() -> None:
    world = await a_fleet(10)
    world.clock.now = at(0)
    take_down(world, *range(5))
    await world.tick(0)
    await world.tick(60)
    assert world.runner.restarts == []
    world.clock.now = at(120)
    for number in range(1, 5):
        world.all_is_fine(f"vm-{number}")
    for moment in (120, 125, 130):
        await world.tick(moment)
    assert told(world) == [("frozen", "mass_failure"), ("thawed", "mass_failure")]
    await world.recheck(140, "vm-0")
    assert [restart.attempt for _, restart in world.runner.restarts] == [1]
    assert await fleet_history(world) == ["frozen", "thawed"]


async def test_two_of_three_vms_are_no_mass() -> None:
    world = await a_fleet(3)
    world.clock.now = at(0)
    take_down(world, 0, 1)
    await world.tick(0)
    await world.tick(10)
    assert world.runner.restarts != []


# --- inventory -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [0, 5], ids=["empty", "halved"])
async def test_an_empty_or_halved_inventory_freezes_action_and_forgets_nobody(left: int) -> None:
    world = await a_fleet(10)
    world.clock.now = at(0)
    take_down(world, 0)
    gone = {vm_id: world.inventory.targets.pop(vm_id) for vm_id in list(world.inventory.targets)[left:]}
    for moment in (0, 10, 700):
        world.clock.now = at(moment)
        take_down(world, 0)
        await world.tick(moment)
    assert world.runner.restarts == []
    assert told(world) == [("frozen", "inventory_suspect")]
    for vm_id in gone:
        stored = await world.store.load_one(vm_id)
        assert stored is not None
        assert stored.state.gone_since is None
    world.inventory.targets |= gone
    await world.tick(760)
    assert told(world)[-1] == ("thawed", "inventory_suspect")


async def test_a_fleet_that_was_halved_on_purpose_is_believed_after_half_an_hour() -> None:
    world = await a_fleet(10)
    for vm_id in list(world.inventory.targets)[5:]:
        del world.inventory.targets[vm_id]
    for minute in range(45):
        world.clock.now = at(minute * 60)
        for number in range(5):
            world.all_is_fine(f"vm-{number}")
        await world.tick(minute * 60)
    assert told(world) == [("frozen", "inventory_suspect"), ("thawed", "inventory_suspect")]
    assert (await fleet_state(world)).vm_count == 5
    assert await world.store.load_one(a_vm_id("vm-9")) is None, "and those that are gone are forgotten"


# --- telemetry and canary --------------------------------------------------------------------------------


async def test_telemetry_stale_for_all_is_one_finding_of_the_fleet_and_freezes_it() -> None:
    world = await a_fleet(4)
    world.clock.now = at(0)
    world.serve("vm-0", a_report(down="web.service"))
    for moment in (400, 410, 460, 520):
        await world.tick(moment)
    assert world.runner.restarts == []
    assert told(world) == [("frozen", "telemetry_stale_for_all")]
    for number in (1, 2, 3):
        assert told(world, a_vm_id(f"vm-{number}")) == [], "not one alert a VM"
        assert (await world.state(f"vm-{number}")).status is Status.HEALTHY
    assert (await world.state("vm-0")).status is Status.CRITICAL


async def test_when_telemetry_comes_back_what_was_due_is_done() -> None:
    world = await a_fleet(4)
    world.clock.now = at(0)
    world.serve("vm-0", a_report(down="web.service"))
    for moment in (400, 410):
        await world.tick(moment)
    world.clock.now = at(460)
    for number in (1, 2, 3):
        world.report(f"vm-{number}", a_report())
    world.report("vm-0", a_report(down="web.service"))
    await world.tick(460)
    assert told(world) == [("frozen", "telemetry_stale_for_all"), ("thawed", "telemetry_stale_for_all")]
    assert len(world.runner.restarts) == 1


async def test_silence_of_the_whole_fleet_restarts_no_agent() -> None:
    """Neither telemetry nor endpoints, for all: that is the watchdog's own blindness."""
    world = await a_fleet(4)
    for number in range(4):
        world.serve(f"vm-{number}", None)
    for minute in range(6, 40):
        await world.tick(minute * 60)
    assert world.runner.restarts == []
    assert told(world) == [("frozen", "telemetry_stale_for_all")]


async def test_one_silent_vm_among_others_is_that_vms_own_trouble() -> None:
    world = await a_fleet(4)
    world.serve("vm-0", None)
    for minute in range(6, 14):
        world.clock.now = at(minute * 60)
        for number in (1, 2, 3):
            world.report(f"vm-{number}", a_report())
        await world.tick(minute * 60)
    assert {restart.unit for _, restart in world.runner.restarts} == {"vm-agent.service"}
    assert told(world) == []


async def test_an_own_event_that_does_not_come_back_freezes_action() -> None:
    world = await a_fleet(3)
    world.canary.sends = True
    await world.tick(0)
    world.canary.arrives = False
    for moment in (360, 400):
        world.clock.now = at(moment)
        for number in range(3):
            world.all_is_fine(f"vm-{number}")
        take_down(world, 0)
        await world.tick(moment)
    assert told(world) == [("frozen", "canary_failed")]
    assert world.runner.restarts == []


async def test_a_way_out_that_is_blocked_freezes_action() -> None:
    world = await a_fleet(3)
    world.canary.problem = "10.0.0.9 does not answer"
    for moment in (0, 10):
        world.clock.now = at(moment)
        take_down(world, 0)
        await world.tick(moment)
    assert told(world) == [("frozen", "canary_failed")]
    assert world.runner.restarts == []
    assert "10.0.0.9" in (await fleet_state(world)).frozen(at(10))


# --- budget ----------------------------------------------------------------------------------------------


async def test_at_most_a_tenth_of_a_group_is_in_restart_at_once() -> None:
    world = await a_fleet(20, safety=CALM)
    world.clock.now = at(0)
    take_down(world, *range(8))
    await world.tick(0)
    await world.tick(15)
    assert len({vm_id for vm_id, _ in world.runner.restarts}) == 2
    held = [number for number in range(8) if "held" in await world.history(f"vm-{number}")]
    assert len(held) == 6
    assert (await world.state(f"vm-{held[0]}")).units["web.service"].held.startswith("budget: 2 of 20")


async def test_a_slot_is_given_back_when_the_vm_is_seen_up_and_the_next_one_has_it() -> None:
    world = await a_fleet(3, safety=CALM)
    world.clock.now = at(0)
    take_down(world, 0, 1)
    await world.tick(0)
    await world.tick(11)
    (first,) = world.runner.restarts
    name = first[0].rsplit("/", 1)[-1]
    world.clock.now = at(16)
    world.all_is_fine(name)
    await world.recheck(16, name)
    await world.tick(26)
    assert len({vm_id for vm_id, _ in world.runner.restarts}) == 2


async def test_whoever_loses_the_race_for_a_vm_does_not_keep_its_slot() -> None:
    """Else the VM that the winner has restarted would hold the group's slot on, though it is up."""
    world = await a_fleet(3, safety=CALM)
    world.clock.now = at(0)
    take_down(world, 0)
    await world.tick(0)
    vm_id = a_vm_id("vm-0")
    before = await world.store.load_one(vm_id)
    assert before is not None
    await world.recheck(10, "vm-0")
    world.clock.now = at(12)
    sight = await load_sight(world.ports, world.options, world.clock.now)
    await evaluate(world.ports, sight, [world.inventory.targets[vm_id]], {vm_id: before}, None)
    assert len(world.runner.restarts) == 1
    (slot,) = (await world.fleet.load_slots("rg-web"))[0]
    assert slot.until == at(10 + SLOT_SECONDS)
    world.clock.now = at(15)
    world.all_is_fine("vm-0")
    await world.recheck(15, "vm-0")
    assert (await world.fleet.load_slots("rg-web"))[0] == ()


async def test_a_slot_that_nobody_gives_back_expires() -> None:
    world = await a_fleet(3, safety=CALM, policy=Policy(max_attempts=1))
    world.clock.now = at(0)
    take_down(world, 0, 1)
    await world.tick(0)
    await world.tick(11)
    assert len(world.runner.restarts) == 1
    late = 12 + SLOT_SECONDS
    world.clock.now = at(late)
    take_down(world, 0, 1)
    await world.tick(late)
    assert len({vm_id for vm_id, _ in world.runner.restarts}) == 2


async def test_groups_have_budgets_of_their_own() -> None:
    world = World(safety=CALM)
    for number in range(4):
        target = a_target(
            f"vm-{number}", watchdog_group=f"g{number % 2}", watchdog_endpoint=endpoint_of(f"vm-{number}")
        )
        world.inventory.targets[target.vm_id] = target
    take_down(world, *range(4))
    for moment in (0, 11):
        await world.tick(moment)
    assert len(world.runner.restarts) == 2
    assert (await fleet_state(world)).groups == {"g0": 2, "g1": 2}


# --- silences, windows, tags -----------------------------------------------------------------------------


def a_silence(stops: Stops, **match: str) -> Silence:
    return Silence("s-1", Matcher(**match), at(-100), at(600), stops, "alice", "release 7")  # type: ignore[arg-type]


async def test_a_silence_of_action_restarts_nothing_and_alerts() -> None:
    world = await a_fleet(1)
    await world.silences.add_silence(a_silence(Stops.ACTION, vm="vm-*"))
    take_down(world, 0)
    for moment in (0, 10, 60):
        world.clock.now = at(moment)
        take_down(world, 0)
        await world.tick(moment)
    assert world.runner.restarts == []
    assert told(world, a_vm_id("vm-0")) == [("fired", "service_down")]
    await world.tick(601)
    assert len(world.runner.restarts) == 1


async def test_a_silence_of_alerts_restarts_and_tells_nobody() -> None:
    world = await a_fleet(1)
    await world.silences.add_silence(a_silence(Stops.ALERTS, vm="vm-0"))
    for moment in (0, 10):
        world.clock.now = at(moment)
        take_down(world, 0)
        await world.tick(moment)
    assert len(world.runner.restarts) == 1
    assert world.queue.alerts == []


@pytest.mark.parametrize("how", ["silence", "tag"])
async def test_maintenance_stops_both_and_the_vm_says_so(how: str) -> None:
    world = await a_fleet(2)
    if how == "silence":
        await world.silences.add_silence(a_silence(Stops.BOTH, vm="vm-0"))
    else:
        target = world.inventory.targets[a_vm_id("vm-0")]
        tags = {**target.tags, "watchdog-maintenance-until": at(600).isoformat()}
        world.inventory.targets[target.vm_id] = replace(target, tags=tags)
    for moment in (0, 10, 60):
        world.clock.now = at(moment)
        take_down(world, 0, 1)
        await world.tick(moment)
    assert (await world.state("vm-0")).cause is Cause.MAINTENANCE
    assert told(world, a_vm_id("vm-0")) == []
    assert {vm_id for vm_id, _ in world.runner.restarts} == {a_vm_id("vm-1")}


async def test_a_tag_that_can_not_be_read_is_a_trouble_of_the_tick_and_silences_nothing() -> None:
    world = await a_fleet(1)
    target = world.inventory.targets[a_vm_id("vm-0")]
    tags = {**target.tags, "watchdog-maintenance-until": "soon", "watchdog-ladder": "explode"}
    world.inventory.targets[target.vm_id] = replace(target, tags=tags)
    record = await world.tick(0)
    assert len(record.troubles) == 2
    assert "watchdog-maintenance-until must be" in " ".join(record.troubles)
    assert "watchdog-ladder" in " ".join(record.troubles)
    assert (await world.state("vm-0")).status is Status.HEALTHY


# --- VMs that vanish -------------------------------------------------------------------------------------


async def test_a_vm_that_vanishes_is_resolved_and_then_forgotten_but_not_its_history() -> None:
    world = await a_fleet(5)
    world.clock.now = at(0)
    take_down(world, 0)
    await world.tick(0)
    del world.inventory.targets[a_vm_id("vm-0")]
    for minute in range(1, 13):
        await world.tick(minute * 60)
    assert told(world, a_vm_id("vm-0")) == [("fired", "service_down"), ("resolved", "service_down")]
    assert await world.store.load_one(a_vm_id("vm-0")) is None
    assert (await world.history("vm-0"))[-1] == "gone"


async def test_a_vm_missing_from_one_list_is_not_gone() -> None:
    world = await a_fleet(5)
    target = world.inventory.targets.pop(a_vm_id("vm-0"))
    await world.tick(0)
    world.inventory.targets[target.vm_id] = target
    await world.tick(60)
    state = await world.state("vm-0")
    assert (state.gone_since, state.status) == (None, Status.HEALTHY)


async def test_who_stopped_a_vm_is_asked_once() -> None:
    world = await a_fleet(2)
    world.activity.stoppers[a_vm_id("vm-0")] = "bob@contoso.com at 12:00 UTC (deallocate)"
    world.add_vm("vm-0", power=PowerState.DEALLOCATED)
    for moment in (0, 60, 120):
        await world.tick(moment)
    assert "bob@contoso.com" in (await world.state("vm-0")).reason
    assert world.activity.asked == 1


# --- the fleet's jitter ----------------------------------------------------------------------------------


async def test_few_vms_wait_to_the_second_and_fleets_spread() -> None:
    for size, spread in ((9, False), (12, True)):
        world = await a_fleet(size, safety=CALM)
        world.clock.now = at(0)
        take_down(world, *range(size))
        await world.tick(0)
        waits = {delay for _, delay in world.queue.rechecks}
        assert all(9 <= delay <= 11 for delay in waits)
        assert (len(waits) > 1) is spread


# --- shards ----------------------------------------------------------------------------------------------


async def test_shards_judge_their_own_part_and_one_alert_tells_of_all() -> None:
    world = World(shard_size=10)
    for number in range(40):
        world.add_vm(f"vm-{number}")
        world.all_is_fine(f"vm-{number}")
    await run_all(world, -60)
    world.clock.now = at(0)
    take_down(world, *range(40))
    await run_all(world, 0)
    await run_all(world, 15)
    assert world.runner.restarts == []
    assert told(world) == [("frozen", "mass_failure")]
    world.clock.now = at(60)
    for number in range(40):
        world.all_is_fine(f"vm-{number}")
    for moment in (60, 120, 180):
        await run_all(world, moment)
    assert told(world) == [("frozen", "mass_failure"), ("thawed", "mass_failure")]


async def test_a_freeze_of_a_shard_that_is_no_more_ends() -> None:
    world = World(shard_size=10)
    for number in range(20):
        world.add_vm(f"vm-{number}")
        world.all_is_fine(f"vm-{number}")
    await run_all(world, -60)
    world.clock.now = at(0)
    take_down(world, *range(20))
    await run_all(world, 0)
    assert {freeze.scope for freeze in (await fleet_state(world)).freezes} >= {"shard 0 of 2"}
    world.shard_size = 500
    world.clock.now = at(60)
    for number in range(20):
        world.all_is_fine(f"vm-{number}")
    for moment in (60, 120):
        await run_all(world, moment)
    assert (await fleet_state(world)).freezes == ()
    assert told(world)[-1] == ("thawed", "mass_failure")


async def run_all(world: World, moment: float) -> None:
    world.queue.shards.clear()
    await world.tick(moment)
    for shard, count in world.queue.shards:
        await run_shard(world.ports, world.options, shard, count)


# --- what people ask for ---------------------------------------------------------------------------------


async def ask(world: World, unit: str = "web.service", seconds: float = 0, name: str = "vm-0"):  # type: ignore[no-untyped-def]
    world.clock.now = at(seconds)
    return await restart_on_request(world.ports, world.options, a_vm_id(name), unit, "alice", "stuck")


async def test_a_person_may_have_a_unit_restarted_and_history_says_who_and_why() -> None:
    world = await a_fleet(2)
    answer = await ask(world)
    assert answer.accepted
    ((vm_id, restart),) = world.runner.restarts
    assert (vm_id, restart.unit, restart.token) == (a_vm_id("vm-0"), "web.service", answer.token)
    events = await world.store.read_events(a_vm_id("vm-0"), 10)
    requested = next(event for event in events if event.kind == "requested")
    assert (requested.detail["by"], requested.detail["why"]) == ("alice", "stuck")


async def test_asked_twice_it_is_done_once() -> None:
    world = await a_fleet(2)
    await ask(world)
    again = await ask(world, seconds=3)
    assert not again.accepted
    assert "under way" in again.reason
    assert len(world.runner.restarts) == 1


@pytest.mark.parametrize("unit", ["../../etc/passwd", "web.service; reboot", "-x.service", "ssh.service", ""])
async def test_only_units_that_the_vm_reports_and_that_are_names_may_be_asked_for(unit: str) -> None:
    world = await a_fleet(2)
    answer = await ask(world, unit)
    assert not answer.accepted
    assert world.runner.restarts == []


async def test_what_holds_the_watchdog_holds_people_too() -> None:
    world = await a_fleet(2)
    await world.silences.add_silence(a_silence(Stops.ACTION, vm="vm-0"))
    answer = await ask(world)
    assert not answer.accepted
    assert "release 7" in answer.reason
    world = await a_fleet(2)
    world.canary.problem = "no way out"
    await world.tick(0)
    answer = await ask(world)
    assert "no way out" in answer.reason
    world = World()
    world.add_vm("vm-0", mode="observe")
    world.all_is_fine("vm-0")
    assert "observing" in (await ask(world)).reason
    assert world.runner.restarts == []


async def test_the_budget_holds_for_people_too() -> None:
    world = await a_fleet(2)
    assert (await ask(world, name="vm-0")).accepted
    assert not (await ask(world, name="vm-1")).accepted


async def test_a_preview_neither_saves_nor_does_nor_takes_anything() -> None:
    world = await a_fleet(2)
    world.clock.now = at(0)
    take_down(world, 0)
    await world.tick(0)
    world.journal.take()
    world.clock.now = at(10)
    seen = await preview(world.ports, world.options, a_vm_id("vm-0"))
    assert len(seen.decision.restarts) == 1
    assert seen.hold is None
    assert world.journal.take() == []
    assert world.runner.restarts == []


async def test_a_failed_query_freezes_only_when_it_lasts() -> None:
    world = await a_fleet(3)
    world.telemetry.error = unavailable()
    for moment in range(0, 300, 60):
        await world.tick(moment)
    assert told(world) == []
    await world.tick(300)
    assert told(world) == [("frozen", "telemetry_stale_for_all")]
    world.telemetry.error = None
    world.clock.now = at(360)
    await all_report(world, 3)
    await world.tick(360)
    assert told(world)[-1] == ("thawed", "telemetry_stale_for_all")
    assert (await fleet_state(world)).telemetry_failing_since is None


async def test_a_person_may_overrule_a_freeze_for_a_time() -> None:
    world = await a_fleet(10)
    world.clock.now = at(0)
    take_down(world, *range(5))
    await world.tick(0)
    state, etag = await world.fleet.load_fleet()
    until = at(0) + timedelta(hours=1)
    await world.fleet.save_fleet(replace(state, thawed_until=until, thawed_by="alice"), etag)
    await world.tick(15)
    assert len(world.runner.restarts) == 1, "one at a time: the budget still holds"
