"""What people ask of the watchdog: how things stand, why, and a few requests under the same safety."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.builders import NOW, VM_ID, a_report, a_target, a_vm_id, at
from tests.fakes import World, a_watched_vm, unavailable
from vm_health.errors import ConfigError, ConflictError, NotFoundError, TransientError
from vm_health.fleet import FleetState, Freeze
from vm_health.model import Cause, PowerState, Status
from vm_health.policy_book import PolicyBook, PolicyRule
from vm_health.silence import Matcher, Stops
from vm_health.state import FLEET_ID, Event
from vm_health.windows import MaintenanceWindow
from vm_watchdog.api_requests import SilenceRequest
from vm_watchdog.checks import InputError
from vm_watchdog.operator import Operator

GONE_ID = a_vm_id("old-1")
HOUR = timedelta(hours=1)


def an_operator(world: World, *, may_act: bool = True, book: PolicyBook | None = None) -> Operator:
    options = replace(world.options, may_act=may_act)
    ids = iter(f"silence-{number}" for number in range(1, 100))
    return Operator(world.ports, options if book is None else replace(options, book=book), lambda: next(ids))


async def a_down_vm() -> World:
    """web-1 is down since second 0 and was restarted at second 10; it is second 15."""
    world = await a_watched_vm()
    world.is_down()
    for moment in (0, 10):
        await world.tick(moment)
    world.clock.now = at(15)
    return world


def another_web_1(world: World, group: str = "rg-other") -> str:
    """A VM of the same name in another resource group."""
    vm_id = a_vm_id("web-1", group)
    world.inventory.targets[vm_id] = replace(a_target(), vm_id=vm_id, resource_group=group)
    return vm_id


async def freeze(world: World) -> None:
    state = FleetState(
        freezes=(Freeze(Cause.MASS_FAILURE, "5 of 9 VMs turned bad at once", NOW, "freeze-1"),)
    )
    await world.fleet.save_fleet(state, (await world.fleet.load_fleet())[1])


def a_request(**fields: object) -> SilenceRequest:
    return SilenceRequest.model_validate(
        {"vm": "web-1", "until": "2h", "why": "deploy", "by": "ann", **fields}
    )


# --- which VM is meant -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["web-1", "WEB-1", VM_ID, VM_ID.upper()])
async def test_a_vm_is_found_by_name_or_id_in_any_case(name: str) -> None:
    view = await an_operator(await a_watched_vm()).vm(name)
    assert (view.vm_id, view.status, view.is_in_inventory) == (VM_ID, Status.HEALTHY, True)


async def test_a_vm_of_the_inventory_is_found_before_its_first_look() -> None:
    world = World()
    world.add_vm()
    view = await an_operator(world).vm("web-1")
    assert (view.status, view.reason, view.mode) == (Status.UNKNOWN, "never looked at", "on")


async def test_a_vm_that_is_only_remembered_is_found() -> None:
    world = await a_watched_vm()
    world.inventory.targets.clear()
    view = await an_operator(world).vm("web-1")
    assert (view.is_in_inventory, view.mode, view.power) == (False, "", PowerState.UNKNOWN)
    assert view.status is Status.HEALTHY


@pytest.mark.parametrize("name", ["web-1", VM_ID])
async def test_what_is_remembered_can_be_asked_while_azure_does_not_answer(name: str) -> None:
    world = await a_watched_vm()
    world.inventory.error = unavailable()
    view = await an_operator(world).vm(name)
    assert (view.is_in_inventory, view.status) == (None, Status.HEALTHY)


async def test_a_name_that_two_vms_have_is_refused_with_their_groups() -> None:
    world = await a_watched_vm()
    other = another_web_1(world)
    operator = an_operator(world)
    with pytest.raises(ConflictError, match="2 VMs are named 'web-1': say which group, of rg-other, rg-web"):
        await operator.vm("web-1")
    assert (await operator.vm("web-1", "RG-Other")).vm_id == other
    assert (await operator.vm("web-1", "rg-web")).vm_id == VM_ID


async def test_a_tagged_group_and_the_resource_group_both_tell_vms_apart() -> None:
    world = await a_watched_vm()
    other = another_web_1(world)
    world.inventory.targets[other] = replace(world.inventory.targets[other], tags={"watchdog-group": "Shop"})
    operator = an_operator(world)
    for group in ("shop", "rg-other"):
        assert (await operator.vm("web-1", group)).vm_id == other


async def test_two_vms_of_one_name_and_group_are_told_by_their_ids() -> None:
    world = await a_watched_vm()
    other = another_web_1(world)
    shared = {"watchdog-group": "shop"}
    for vm_id in (other, VM_ID):
        world.inventory.targets[vm_id] = replace(world.inventory.targets[vm_id], tags=shared)
    with pytest.raises(ConflictError, match="give the full id") as caught:
        await an_operator(world).vm("web-1")
    assert VM_ID in str(caught.value)
    assert other in str(caught.value)


@pytest.mark.parametrize(
    ("name", "group", "told"),
    [
        ("web-2", "", "near it: web-1"),
        ("database", "", "one that is gone has its history under its full id"),
        ("web-1", "rg-x", "one is in rg-web"),
        (GONE_ID, "", "old-1 is in the inventory or remembered"),
        ("", "", "no VM is named ''"),
    ],
)
async def test_a_name_that_no_vm_has_is_refused_with_what_may_have_been_meant(
    name: str, group: str, told: str
) -> None:
    with pytest.raises(NotFoundError, match=told):
        await an_operator(await a_watched_vm()).vm(name, group)


# --- how things stand ------------------------------------------------------------------------------------


async def test_status_tells_who_needs_people_and_why() -> None:
    world = await a_down_vm()
    world.add_vm("b-fine")
    world.all_is_fine("b-fine")
    await world.tick(20)
    view = await an_operator(world).status()
    assert (view.mode, view.vms, view.statuses) == ("on", 2, {Status.HEALTHY: 1, Status.CRITICAL: 1})
    assert [row.name for row in view.needing] == ["web-1"]
    assert [(one.name, one.opened_at, one.cause) for one in view.incidents] == [
        ("web-1", at(0), Cause.SERVICE_DOWN)
    ]
    assert view.last_tick is not None
    assert (view.last_tick.age_seconds, view.last_tick.targets) == (0.0, 2)


async def test_status_of_nothing_yet() -> None:
    view = await an_operator(World(), may_act=False).status()
    assert (view.mode, view.vms, view.last_tick, view.frozen, view.needing) == ("observe", 0, None, "", [])


async def test_the_worst_comes_first() -> None:
    world = World()
    for name, disk in (("a-warns", 85), ("b-fine", 40), ("c-down", 40)):
        world.add_vm(name)
        report = a_report(disk=disk, down="web.service" if name == "c-down" else ())
        world.serve(name, report)
        world.report(name, report)
    for moment in (0, 10):
        await world.tick(moment)
    view, rows = await an_operator(world).overview()
    assert [row.name for row in rows.vms] == ["c-down", "a-warns", "b-fine"]
    assert [row.name for row in view.needing] == ["c-down", "a-warns"]


async def test_a_freeze_is_told_with_its_cause_and_a_thaw_with_who_did_it() -> None:
    world = await a_watched_vm()
    await freeze(world)
    operator = an_operator(world)
    view = await operator.status()
    assert view.frozen == "5 of 9 VMs turned bad at once"
    assert [(one.cause, one.since, one.scope) for one in view.freezes] == [(Cause.MASS_FAILURE, NOW, "fleet")]
    view = await operator.thaw(world.clock.now + HOUR, "ann", "it was a planned switch-over")
    assert (view.frozen, view.thawed_by, view.thawed_until) == ("", "ann", world.clock.now + HOUR)
    assert len(view.freezes) == 1
    world.clock.now += HOUR
    view = await operator.status()
    assert (view.frozen, view.thawed_by, view.thawed_until) == ("5 of 9 VMs turned bad at once", "", None)


async def test_a_vm_tells_where_its_repair_stands_and_what_applies_to_it() -> None:
    world = await a_down_vm()
    rule = PolicyRule("[groups.rg-web]", "groups.rg-web", Matcher(group="rg-web"), {"max_attempts": 3})
    view = await an_operator(world, book=PolicyBook(rules=(rule,))).vm("web-1")
    (unit,) = view.units
    assert (unit.name, unit.attempts, unit.last_attempt_at, unit.circuit_open) == (
        "web.service",
        1,
        at(10),
        False,
    )
    assert unit.command is not None
    assert unit.command.token == world.runner.restarts[0][1].token
    assert view.incident is not None
    assert view.incident.opened_at == at(0)
    assert (view.policy["max_attempts"].value, view.policy["max_attempts"].source) == (3, "[groups.rg-web]")
    assert (view.policy["confirm_down"].value, view.policy["confirm_down"].source) == (2, "default")


async def test_why_a_unit_was_restarted_is_one_call_away() -> None:
    """ "Why was this restarted at 12:00:10?", with what each witness had said."""
    world = await a_down_vm()
    found = await an_operator(world).history("web-1", since=at(10), until=at(10))
    restart = next(event for event in found.events if event.kind == "restart")
    assert restart.at == at(10)
    assert restart.detail["unit"] == "web.service"
    assert "web.service is down" in str(restart.detail)
    assert restart.detail["token"] == world.runner.restarts[0][1].token


async def test_history_is_cut_to_the_limit_and_says_so() -> None:
    world = World()
    events = [Event("transition", str(number), at(number)) for number in range(5)]
    await world.store.append_events(VM_ID, events)
    operator = an_operator(world)
    found = await operator.history(VM_ID, limit=3)
    assert ([event.reason for event in found.events], found.has_more) == (["4", "3", "2"], True)
    found = await operator.history(VM_ID, limit=5)
    assert (len(found.events), found.has_more) == (5, False)


async def test_history_outlives_the_vm() -> None:
    world = World()
    await world.store.append_events(GONE_ID, [Event("gone", "the VM is gone", NOW)])
    found = await an_operator(world).history(GONE_ID.upper())
    assert (found.vm_id, found.name, found.events[0].kind) == (GONE_ID, "old-1", "gone")


async def test_the_fleet_has_a_history_of_its_own() -> None:
    world = await a_watched_vm()
    await freeze(world)
    operator = an_operator(world)
    await operator.thaw(at(60), "ann", "known")
    found = await operator.history("fleet")
    assert found.vm_id == FLEET_ID
    assert found.events[0].kind == "freeze_overruled"
    assert found.events[0].reason.endswith(": known")
    assert found.events[0].detail.items() >= {"by": "ann", "why": "known"}.items()


async def test_history_of_impossible_times_is_refused_with_every_fault() -> None:
    with pytest.raises(InputError) as caught:
        await an_operator(World()).history(VM_ID, limit=0, since=at(2), until=at(1))
    assert [fault.field for fault in caught.value.errors] == ["limit", "since"]


async def test_half_a_character_from_a_vm_does_not_break_its_history() -> None:
    world = World()
    await world.store.append_events(
        VM_ID, [Event("restart_done", "ok", NOW, {"result": {"a\ud800": ["\udc80"]}})]
    )
    found = await an_operator(world).history(VM_ID)
    assert "a?" in found.model_dump_json()


# --- silences --------------------------------------------------------------------------------------------


async def test_a_silence_is_kept_listed_and_written_into_the_vms_history() -> None:
    world = await a_watched_vm()
    operator = an_operator(world)
    view = await operator.add_silence(a_request(stops="both"))
    assert (view.id, view.is_active, view.ends_at - view.starts_at) == ("silence-1", True, 2 * HOUR)
    assert await operator.silences() == [view]
    assert (await operator.vm("web-1")).silences == [view]
    assert (await operator.status()).silences == [view]
    event = (await world.store.read_events(VM_ID, 1))[0]
    assert event.kind == "silenced"
    assert "vm web-1: both silenced until" in event.reason
    assert event.detail.items() >= {"by": "ann", "why": "deploy", "silence": "silence-1"}.items()


async def test_a_silence_holds_the_watchdogs_hand() -> None:
    """What the operator adds is what a look obeys."""
    world = await a_watched_vm()
    await an_operator(world).add_silence(a_request(stops="action"))
    world.is_down()
    for moment in (0, 10, 20):
        await world.tick(moment)
    assert world.runner.restarts == []


@pytest.mark.parametrize(
    "fields", [{"vm": "web-*"}, {"vm": "", "group": "rg-web"}, {"vm": "", "all": True}, {"vm": "unheard-of"}]
)
async def test_a_silence_of_more_than_one_known_vm_is_in_the_fleets_history(
    fields: dict[str, object],
) -> None:
    world = await a_watched_vm()
    await an_operator(world).add_silence(a_request(**fields))
    assert [event.kind for event in await world.store.read_events(FLEET_ID, 10)] == ["silenced"]
    assert "silenced" not in await world.history()


async def test_a_silence_may_begin_later() -> None:
    world = await a_watched_vm()
    operator = an_operator(world)
    view = await operator.add_silence(a_request(starts_at="1h", until="30m"))
    assert (view.starts_at, view.ends_at, view.is_active) == (
        world.clock.now + HOUR,
        world.clock.now + 1.5 * HOUR,
        False,
    )
    assert await operator.silences() == [view]
    assert (await operator.status()).silences == []
    world.clock.now = view.ends_at
    assert await operator.silences() == []


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"until": "0s"}, "until"),
        ({"until": NOW - HOUR}, "until"),
        ({"until": "91d"}, "until"),
        ({"until": NOW - HOUR, "starts_at": NOW - 2 * HOUR}, "until"),
        ({"by": ""}, "by"),
    ],
)
async def test_a_silence_that_makes_no_sense_is_refused(fields: dict[str, object], field: str) -> None:
    world = World()
    with pytest.raises(ConfigError) as caught:
        await an_operator(world).add_silence(a_request(**fields))
    assert isinstance(caught.value, InputError)
    assert [fault.field for fault in caught.value.errors] == [field]
    assert await world.silences.list_silences() == []


async def test_ending_a_silence_ends_it_once_and_says_who_did() -> None:
    world = await a_watched_vm()
    operator = an_operator(world)
    await operator.add_silence(a_request())
    world.clock.now += timedelta(minutes=5)
    view = await operator.end_silence("silence-1", "bob")
    assert (view.ends_at, view.is_active) == (world.clock.now, False)
    assert await operator.silences() == []
    event = (await world.store.read_events(VM_ID, 1))[0]
    assert (event.kind, event.detail["by"]) == ("silence_ended", "bob")
    with pytest.raises(NotFoundError):
        await operator.end_silence("silence-1", "bob")


async def test_maintenance_windows_are_listed_while_they_are_in_force() -> None:
    window = MaintenanceWindow("night", Matcher(group="rg-web"), 11 * 60, 120, "patches")
    operator = an_operator(await a_watched_vm(), book=PolicyBook(windows=(window,)))
    (view,) = await operator.silences()
    assert (view.id, view.why, view.stops) == ("window-night", "patches", Stops.BOTH)
    assert [one.id for one in (await operator.vm("web-1")).silences] == ["window-night"]


async def test_a_vms_own_maintenance_tag_is_shown_with_it() -> None:
    world = await a_watched_vm()
    until = (NOW + HOUR).isoformat()
    target = world.inventory.targets[VM_ID]
    world.inventory.targets[VM_ID] = replace(
        target, tags={**target.tags, "watchdog-maintenance-until": until}
    )
    (silence,) = (await an_operator(world).vm("web-1")).silences
    assert (silence.ends_at, silence.stops) == (NOW + HOUR, Stops.BOTH)


# --- restarts --------------------------------------------------------------------------------------------


async def test_a_restart_is_sent_with_who_and_why_in_the_history() -> None:
    world = await a_watched_vm()
    view = await an_operator(world).restart("WEB-1", "web.service", "ann", "it leaks")
    ((vm_id, restart),) = world.runner.restarts
    assert (vm_id, restart.unit, restart.token) == (VM_ID, "web.service", view.token)
    requested = next(one for one in await world.store.read_events(VM_ID, 10) if one.kind == "requested")
    assert requested.detail.items() >= {"by": "ann", "why": "it leaks", "token": view.token}.items()


async def test_a_restart_is_held_by_a_freeze() -> None:
    world = await a_watched_vm()
    await freeze(world)
    with pytest.raises(ConflictError, match="5 of 9 VMs turned bad at once"):
        await an_operator(world).restart("web-1", "web.service", "ann", "why not")
    assert world.runner.restarts == []


async def test_a_restart_is_held_by_a_silence_and_in_observe_mode() -> None:
    world = await a_watched_vm()
    with pytest.raises(ConflictError, match="only observing"):
        await an_operator(world, may_act=False).restart("web-1", "web.service", "ann", "x")
    operator = an_operator(world)
    await operator.add_silence(a_request(stops="action"))
    with pytest.raises(ConflictError, match="action is silenced: deploy"):
        await operator.restart("web-1", "web.service", "ann", "x")
    assert world.runner.restarts == []


async def test_a_second_restart_waits_for_the_first() -> None:
    world = await a_watched_vm()
    operator = an_operator(world)
    await operator.restart("web-1", "web.service", "ann", "x")
    with pytest.raises(ConflictError, match="under way"):
        await operator.restart("web-1", "web.service", "bob", "me too")
    assert len(world.runner.restarts) == 1


@pytest.mark.parametrize(
    "unit",
    ["", "web", "web.service; reboot", "-web.service", "$(reboot).service", "web.service\n", "é.service"],
)
async def test_what_is_no_units_name_reaches_nothing(unit: str) -> None:
    world = await a_watched_vm()
    with pytest.raises(InputError) as caught:
        await an_operator(world).restart("web-1", unit, "ann", "x")
    assert [fault.field for fault in caught.value.errors] == ["unit"]
    assert world.journal.take() == []
    assert world.runner.restarts == []


async def test_a_restart_without_unit_who_and_why_tells_all_three() -> None:
    with pytest.raises(InputError) as caught:
        await an_operator(World()).restart("web-1", "", "", "")
    assert {fault.field for fault in caught.value.errors} == {"unit", "by", "why"}


async def test_a_vm_that_is_only_remembered_is_not_restarted() -> None:
    world = await a_watched_vm()
    world.inventory.targets.clear()
    with pytest.raises(NotFoundError, match="not in the inventory"):
        await an_operator(world).restart("web-1", "web.service", "ann", "x")


async def test_a_restart_while_azure_does_not_answer_is_an_error_and_no_guess() -> None:
    world = await a_watched_vm()
    world.inventory.error = unavailable()
    with pytest.raises(TransientError):
        await an_operator(world).restart("web-1", "web.service", "ann", "x")
    assert world.runner.restarts == []


# --- thaw ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [timedelta(), -HOUR, 24 * HOUR + timedelta(seconds=1)])
async def test_a_thaw_is_for_a_day_at_most(ahead: timedelta) -> None:
    world = await a_watched_vm()
    await freeze(world)
    with pytest.raises(InputError) as caught:
        await an_operator(world).thaw(world.clock.now + ahead, "ann", "x")
    assert [fault.field for fault in caught.value.errors] == ["until"]
    assert (await world.fleet.load_fleet())[0].thawed_until is None


async def test_a_thaw_survives_a_lost_race() -> None:
    """Another instance changes the fleet between reading and writing, once; then it holds."""
    world = await a_watched_vm()
    await freeze(world)
    fleet = Racing(world, times=1)
    operator = an_operator(world)
    operator = replace(operator, ports=replace(operator.ports, fleet=fleet))
    view = await operator.thaw(world.clock.now + HOUR, "ann", "x")
    assert view.thawed_by == "ann"
    kinds = [event.kind for event in await world.store.read_events(FLEET_ID, 10)]
    assert kinds.count("freeze_overruled") == 1


async def test_a_thaw_that_always_loses_is_an_error_and_leaves_no_trace() -> None:
    world = await a_watched_vm()
    await freeze(world)
    operator = an_operator(world)
    operator = replace(operator, ports=replace(operator.ports, fleet=Racing(world, times=100)))
    with pytest.raises(ConflictError):
        await operator.thaw(world.clock.now + HOUR, "ann", "x")
    assert "freeze_overruled" not in [one.kind for one in await world.store.read_events(FLEET_ID, 10)]


class Racing:
    """The fleet's store, where another instance writes right after each of the first reads."""

    def __init__(self, world: World, times: int) -> None:
        self._fleet = world.fleet
        self._times = times
        self.load_slots, self.save_slots = world.fleet.load_slots, world.fleet.save_slots
        self.save_fleet = world.fleet.save_fleet

    async def load_fleet(self) -> tuple[FleetState, str | None]:
        found = await self._fleet.load_fleet()
        if self._times > 0:
            self._times -= 1
            self._fleet.touch_fleet()
        return found


# --- explain and would-have ------------------------------------------------------------------------------


async def test_explain_says_what_is_seen_and_what_would_be_done_and_does_nothing() -> None:
    world = await a_watched_vm()
    world.is_down()
    await world.tick(0)
    world.journal.take()
    world.clock.now = at(10)
    world.is_down()
    view = await an_operator(world).explain("web-1")
    assert view.status is Status.CRITICAL
    assert view.evidence[0] == "Azure says that the VM is running"
    assert any("its endpoint is unhealthy" in one for one in view.evidence)
    assert any(one.startswith("telemetry's newest snapshot came in") for one in view.evidence)
    assert "restart web.service, attempt 1" in view.would_do
    assert view.hold is None
    assert world.journal.take() == []


async def test_explain_says_what_holds_action() -> None:
    world = await a_watched_vm()
    await freeze(world)
    world.is_down()
    view = await an_operator(world).explain("web-1")
    assert view.hold is not None
    assert view.hold.kind == "frozen"
    assert not any(one.startswith("restart ") for one in view.would_do)


async def test_explain_of_blindness_claims_nothing() -> None:
    world = await a_watched_vm()
    world.serve("web-1", None)
    world.telemetry.error = unavailable()
    view = await an_operator(world).explain("web-1")
    assert "telemetry holds nothing that could be believed" in view.evidence
    assert any(one.startswith("its endpoint is unreachable") for one in view.evidence)


async def test_observe_mode_reports_what_it_would_have_done() -> None:
    world = await a_watched_vm()
    operator = an_operator(world, may_act=False)
    await world.store.append_events(VM_ID, [Event("would_restart", "web.service is down", at(5))])
    await world.store.append_events(
        GONE_ID, [Event("held", "frozen", at(3)), Event("transition", "x", at(4))]
    )
    found = await operator.would_have(at(0))
    assert [(one.name, one.kind) for one in found] == [("web-1", "would_restart"), ("old-1", "held")]
    assert await operator.would_have(at(6)) == []
