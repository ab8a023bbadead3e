"""The promises of time: restarts come when they are due, and in the end every trouble is over, or known."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from tests.properties.checking import breach
from tests.properties.chronicle import Queued
from tests.properties.cloud import Listing
from tests.properties.sim_vm import Command, SimVm, Unit
from tests.properties.world import World
from vm_health.model import PowerState, Status
from vm_health.state import NoticeKind


def check_restarts_are_punctual(world: World) -> None:
    """7: on a calm day an attempt that nothing holds is at most a second late, and a unit that is down is
    known after a tick."""
    now = world.clock.now
    for vm in world.cloud.vms.values():
        row = world.rows.get(vm.vm_id)
        if row is None or row.is_flapping or world.fleet_row.freezes or vm.sample_seconds > 1:
            continue
        for name, how in vm.units.items():
            if how is Unit.UP or "watchdog-endpoint" not in vm.tags or not vm.agent_runs:
                continue
            unit = row.units.get(name)
            down_for = now - vm.changed_at[name]
            if unit is None and down_for > timedelta(seconds=61):
                breach(
                    "restarts are punctual", f"{name} of {vm.name} is down for {down_for} and nobody knows"
                )
            if unit is None or unit.circuit_open or unit.not_before is None or unit.held:
                continue
            late = min(now - unit.not_before, down_for)
            if late > timedelta(seconds=1):
                breach(
                    "restarts are punctual",
                    f"attempt {unit.attempts + 1} on {name} of {vm.name} is {late} late",
                )


def settle(world: World, check: Callable[[], None]) -> None:
    """Let every trouble end but one VM's: then all others must become fine, and people hear of that one."""
    cloud = world.cloud
    cloud.listing, cloud.telemetry_fails, cloud.ingested_until, cloud.egress_problem = (
        Listing.WHOLE,
        False,
        None,
        "",
    )
    cloud.alerts_fail = cloud.rechecks_fail = False
    world.is_prompt, world.next_tick = True, world.after(1.0)
    for one in world.at_once(world.silences.list_silences()):
        world.at_once(world.silences.end_silence(one.id, world.clock.now))
    for number, vm in enumerate(cloud.vms.values()):
        _heal(vm, world, is_lost=number == 0)
    world.tell("all troubles end but one")
    for _ in range(_settling_minutes(world)):
        world.pass_time(60.0)
        check()
    check_all_is_settled(world)


def _heal(vm: SimVm, world: World, *, is_lost: bool) -> None:
    vm.is_listed, vm.has_unknown_power, vm.is_updating = True, False, False
    vm.endpoint_is_open = vm.telemetry_flows = True
    vm.latency_seconds, vm.skew_seconds, vm.locked_until, vm.hostile_name = 2.0, 0.0, None, ""
    vm.agent_is_broken, vm.command = False, Command.WORKS
    vm.tags.pop("watchdog-maintenance-until", None)
    vm.power = PowerState.RUNNING
    world.cloud.boot(vm)
    for name, how in vm.units.items():
        if how is Unit.BROKEN:
            vm.set_unit(name, Unit.UP, world.clock.now)
    if is_lost:
        vm.set_unit(next(iter(vm.units)), Unit.BROKEN, world.clock.now)


def _settling_minutes(world: World) -> int:
    """As long as the whole backoff and ladder last, and some minutes for freezes and flapping to end."""
    policy = world.book.defaults
    steps = policy.backoff.steps_seconds
    waits = sum(steps[min(attempt, len(steps) - 1)] for attempt in range(policy.max_attempts + 1))
    return 26 + int((waits + 3 * policy.ladder_wait_seconds + policy.stable_after_seconds) / 60)


def check_all_is_settled(world: World) -> None:
    """5, 6: in the end every VM is fine or people know that it is lost, and nothing waits to be told."""
    if world.fleet_row.outbox or any(row.outbox for row in world.rows.values()):
        breach("all is settled", "notices still wait to be sent")
    if world.fleet_row.freezes:
        breach("all is settled", f"still frozen: {world.fleet_row.freezes}")
    for number, vm in enumerate(world.cloud.vms.values()):
        row = world.rows[vm.vm_id]
        if number:
            if row.incident is not None or row.status is not Status.HEALTHY:
                breach(
                    "all is settled",
                    f"{vm.name} is fine and counts as {row.status} ({row.cause}: {row.reason})",
                )
            continue
        name = next(iter(vm.units))
        incident = row.incident
        if row.status is not Status.CRITICAL or incident is None or incident.told_at is None:
            breach("all is settled", f"{vm.name} is lost and nobody knows: {row.status} ({row.reason})")
        acts = world.may_act and vm.tags["watchdog"] == "on"
        if acts and name not in incident.given_up:
            breach(
                "all is settled",
                f"{name} of {vm.name} is lost, and was never given up: {row.units.get(name)}",
            )
        keys = {entry.notice.kind for entry in world.chronicle.entries if isinstance(entry, Queued)}
        if acts and NoticeKind.GAVE_UP not in keys:
            breach("all is settled", f"nobody heard that {name} of {vm.name} was given up")
