"""Steps in which the world changes: VMs, Azure, and what people want."""

from __future__ import annotations

from tests.properties.cloud import Listing
from tests.properties.sim_vm import HOSTILE_NAMES, Command, Unit
from tests.properties.steps import Step, unit_of, vm_of
from tests.properties.world import World, request_of
from vm_health.model import PowerState
from vm_health.safety import thaw
from vm_health.silence import Matcher, Silence, Stops

POWERS = (
    PowerState.RUNNING,
    PowerState.STOPPED,
    PowerState.DEALLOCATED,
    PowerState.STARTING,
    PowerState.STOPPING,
)

# --- VMs -------------------------------------------------------------------------------------------------


def unit_changes(world: World, step: Step) -> None:
    vm = vm_of(world, step)
    how = (Unit.DOWN, Unit.BROKEN, Unit.UP, Unit.STUCK)[step.a % 4]
    world.tell(f"{unit_of(vm, step)} on {vm.name} is {how.name}")
    vm.set_unit(unit_of(vm, step), how, world.clock.now)
    if step.b % 2:
        vm.emit(world.clock.now, at_once=True)


def unit_starts(world: World, step: Step) -> None:
    vm = vm_of(world, step)
    vm.set_unit(unit_of(vm, step), Unit.STARTING, world.clock.now)
    world.tell(f"{unit_of(vm, step)} on {vm.name} is starting")


def many_fall(world: World, step: Step) -> None:
    """A bad release: units go down on several VMs at once."""
    every = list(world.cloud.vms.values())
    fallen = every[: 1 + step.a * len(every) // 256]
    world.tell(f"{len(fallen)} VMs have a unit down")
    for vm in fallen:
        vm.set_unit(next(iter(vm.units)), Unit.DOWN if step.b % 2 else Unit.UP, world.clock.now)


def dies(world: World, step: Step) -> None:
    """The agent, or all of the VM, falls silent; or comes back."""
    vm = vm_of(world, step)
    vm.agent_runs = bool(step.a % 3 == 2)
    vm.agent_is_broken = bool(step.b % 2) and not vm.agent_runs
    world.tell(f"{vm.name} {'speaks' if vm.agent_runs else 'is silent'}")


def power(world: World, step: Step) -> None:
    vm = vm_of(world, step)
    was, vm.power = vm.power, POWERS[step.a % len(POWERS)]
    if vm.power is PowerState.RUNNING and was is not PowerState.RUNNING:
        world.cloud.boot(vm)
    vm.has_unknown_power = bool(step.b % 8 == 7)
    vm.is_updating = bool(step.b % 8 == 6)
    world.tell(f"{vm.name} is {vm.power}{', says Azure: unknown' if vm.has_unknown_power else ''}")


def comes_and_goes(world: World, step: Step) -> None:
    """A VM is deleted, listed again, or rebuilt under its name."""
    vm = vm_of(world, step)
    if step.a % 3 == 2:
        vm.instance_id = f"machine-{step.b}"
        vm.obeyed.clear()
        world.cloud.boot(vm)
        world.tell(f"{vm.name} is rebuilt")
        return
    vm.is_listed = not vm.is_listed
    world.tell(f"{vm.name} is {'listed' if vm.is_listed else 'gone'}")


def senses_of_one(world: World, step: Step) -> None:
    """A VM's firewall, telemetry and clock."""
    vm = vm_of(world, step)
    match step.a % 4:
        case 0:
            vm.endpoint_is_open = not vm.endpoint_is_open
        case 1:
            vm.telemetry_flows = not vm.telemetry_flows
        case 2:
            vm.latency_seconds = (2.0, 30.0, 150.0, 400.0)[step.b % 4]
        case _:
            vm.skew_seconds = (0.0, 90.0, -90.0, 900.0, -900.0)[step.b % 5]
    how = "open" if vm.endpoint_is_open else "shut", "sends" if vm.telemetry_flows else "sends nothing"
    world.tell(f"{vm.name}: {', '.join(how)}, late {vm.latency_seconds}, clock {vm.skew_seconds:+}")


def command(world: World, step: Step) -> None:
    vm = vm_of(world, step)
    vm.command = Command(step.a % len(Command))
    world.tell(f"commands on {vm.name}: {vm.command.name}")


def tags(world: World, step: Step) -> None:
    """Its owner changes a VM's tags."""
    vm = vm_of(world, step)
    match step.a % 4:
        case 0:
            vm.tags["watchdog"] = "on" if vm.tags["watchdog"] == "observe" else "observe"
        case 1:
            until = world.after((60.0, 300.0)[step.b % 2])
            vm.tags["watchdog-maintenance-until"] = until.isoformat()
        case 2:
            vm.tags.pop("watchdog-maintenance-until", None)
        case _:
            vm.tags["watchdog-ladder"] = ("none", "vm-restart", "vm-restart,redeploy")[step.b % 3]
    world.tell(f"{vm.name} has the tags {vm.tags}")


def wishes(world: World, step: Step) -> None:
    """A VM holds a deploy lock, or reports what no systemd has."""
    vm = vm_of(world, step)
    if step.a % 2:
        vm.hostile_name = "" if vm.hostile_name else HOSTILE_NAMES[step.b % len(HOSTILE_NAMES)]
    else:
        vm.locked_until = world.after((30.0, 400.0, 7_200.0)[step.b % 3])


# --- the fleet, Azure and people -------------------------------------------------------------------------


def senses_of_all(world: World, step: Step) -> None:
    """What the watchdog sees by fails, or works again."""
    cloud = world.cloud
    match step.a % 4:
        case 0:
            cloud.telemetry_fails = not cloud.telemetry_fails
        case 1:
            cloud.ingested_until = None if cloud.ingested_until is not None else world.clock.now
        case 2:
            cloud.listing = (
                Listing(step.b % len(Listing)) if cloud.listing is Listing.WHOLE else Listing.WHOLE
            )
        case _:
            cloud.egress_problem = "" if cloud.egress_problem else "10.0.0.9 does not answer"
    world.tell(f"query fails {cloud.telemetry_fails}, ingested until {cloud.ingested_until}, list "
               f"{cloud.listing.name}, way out: {cloud.egress_problem or 'free'}")  # fmt: skip


def queues(world: World, step: Step) -> None:
    cloud = world.cloud
    if step.a % 2:
        cloud.alerts_fail = not cloud.alerts_fail
    else:
        cloud.rechecks_fail = not cloud.rechecks_fail
    world.tell(f"alert queue fails {cloud.alerts_fail}, recheck queue fails {cloud.rechecks_fail}")


def silence(world: World, step: Step) -> None:
    """A person silences one VM, a group or all."""
    vm = vm_of(world, step)
    match = (Matcher(vm=vm.name), Matcher(group=vm.group), Matcher())[step.a % 3]
    stops = (Stops.ACTION, Stops.BOTH, Stops.ALERTS)[step.b % 3]
    ends_at = world.after((30.0, 120.0, 1_200.0)[step.c % 3])
    world.tell(f"{match}: {stops} silenced until {ends_at:%H:%M:%S}")
    one = Silence(f"s-{len(world.chronicle.story)}", match, world.clock.now, ends_at, stops, "alice", "why")
    world.at_once(world.silences.add_silence(one))


def unsilence(world: World, _step: Step) -> None:
    for one in world.at_once(world.silences.list_silences()):
        world.at_once(world.silences.end_silence(one.id, world.clock.now))


def overrule(world: World, step: Step) -> None:
    """A person overrules every freeze."""
    state, etag = world.at_once(world.fleet.load_fleet())
    decided = thaw(state, world.after((120.0, 900.0)[step.a % 2]), "alice", world.clock.now)
    world.at_once(world.fleet.save_fleet(decided.state, etag))
    world.fleet_row = decided.state
    world.tell("alice overrules every freeze")


def request(world: World, step: Step) -> None:
    """A person wants a unit restarted."""
    vm = vm_of(world, step)
    world.tell(f"alice wants {unit_of(vm, step)} on {vm.name} restarted")
    world.run("request", request_of(vm.vm_id, unit_of(vm, step)))
