"""A look: observe, decide, save, act. The order of effects is the safety, crashes and races its test."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from tests.builders import VM_ID, a_report, at
from tests.fake_ports import FakeRunner
from tests.fakes import Crash, World, a_watched_vm, endpoint_of, unavailable
from vm_health.errors import TransientError
from vm_health.model import Cause, PowerState, Status
from vm_health.policy import Policy
from vm_health.state import (
    FLEET_ID,
    CommandRef,
    CommandResult,
    NoticeKind,
    RestartUnit,
    StartKind,
    StartOutcome,
)
from vm_watchdog.evaluation import evaluate, load_sight
from vm_watchdog.ports import Stored, Target


async def due_for_restart() -> World:
    """web.service went down at 0; the attempt is due at 10."""
    world = await a_watched_vm()
    world.is_down()
    await world.tick(0)
    world.journal.take()
    return world


async def look(world: World, stored: Stored | None, seconds: float) -> None:
    """One look by an instance that has read ``stored`` before."""
    world.clock.now = at(seconds)
    sight = await load_sight(world.ports, world.options, world.clock.now)
    states = {} if stored is None else {VM_ID: stored}
    await evaluate(world.ports, sight, [world.inventory.targets[VM_ID]], states, None)


async def test_a_kill_from_tick_to_resolved_with_the_order_of_every_effect() -> None:
    world = await a_watched_vm()
    world.is_down()
    await world.tick(0)
    assert world.journal.take() == [
        "save with 1 notices",
        "events transition, backoff",
        "recheck in 10 s",
        "alert fired",
        "save, nothing to send",
        "tick record",
    ]
    await world.recheck(10)
    assert world.journal.take() == [
        "slots of rg-web: 1",
        "save, nothing to send",
        "events restart",
        "restart web.service",
        "events restart_sent",
        "recheck in 5 s",
        "save, nothing to send",
    ]
    world.all_is_fine()
    await world.recheck(15)
    assert world.journal.take() == ["save, nothing to send", "recheck in 5 s", "slots of rg-web: 0"]
    await world.recheck(20)
    assert world.journal.take() == [
        "save with 1 notices",
        "events transition",
        "alert resolved",
        "save, nothing to send",
    ]
    assert [notice.kind for notice in world.queue.alerts] == ["fired", "resolved"]
    assert (await world.state()).outbox == ()


async def test_a_look_that_changes_nothing_writes_nothing() -> None:
    world = await a_watched_vm()
    await world.tick(0)
    assert world.journal.take() == ["tick record"]


async def test_the_restart_that_is_sent_is_the_one_that_was_saved() -> None:
    world = await due_for_restart()
    await world.recheck(10)
    ((vm_id, restart),) = world.runner.restarts
    assert vm_id == VM_ID
    unit = (await world.state()).units["web.service"]
    assert (unit.command, unit.attempts, unit.last_attempt_at) == (CommandRef(restart.token), 1, at(10))


class SlowRunner(FakeRunner):
    """While it asks Azure, ``meanwhile`` happens: Azure takes its time, and nobody waits for it."""

    meanwhile: Callable[[], Awaitable[None]]

    async def start_restart(self, target: Target, restart: RestartUnit) -> StartOutcome:
        await self.meanwhile()
        return await super().start_restart(target, restart)


async def test_a_look_while_the_restart_is_being_sent_does_not_ask_for_its_result() -> None:
    """Azure knows no such command yet: to ask would be told that it is gone."""
    world = await due_for_restart()
    runner = SlowRunner(world.journal)
    world.ports = replace(world.ports, runner=runner)

    async def meanwhile() -> None:
        stored = await world.store.load_one(VM_ID)
        assert stored is not None
        command = stored.state.units["web.service"].command
        assert command is not None
        runner.results[command.token] = CommandResult(False, "the command is gone")
        world.all_is_fine()
        await look(world, stored, 11)

    runner.meanwhile = meanwhile
    await world.recheck(10)
    events = await world.store.read_events(VM_ID, 100)
    assert "restart_failed" not in [event.kind for event in events]
    assert runner.results != {}


async def test_what_azure_answers_holds_though_another_look_saved_meanwhile() -> None:
    """Retry-After is obeyed, and nothing is taken for under way that was refused."""
    world = await due_for_restart()
    runner = SlowRunner(world.journal)
    runner.outcome = StartOutcome(StartKind.THROTTLED, "asked to wait 99 s", retry_after_seconds=99)
    world.ports = replace(world.ports, runner=runner)

    async def meanwhile() -> None:
        world.store.touch(VM_ID)

    runner.meanwhile = meanwhile
    await world.recheck(10)
    unit = (await world.state()).units["web.service"]
    assert (unit.command, unit.not_before) == (None, at(109))


async def test_whoever_loses_the_race_sends_nothing() -> None:
    world = await due_for_restart()
    stored = await world.store.load_one(VM_ID)
    world.store.touch(VM_ID)
    await look(world, stored, 10)
    assert world.runner.restarts == []
    assert world.journal.take() == [
        "slots of rg-web: 1",
        "save, nothing to send",
        "slots of rg-web: 0",
    ]


async def test_of_two_instances_with_the_same_look_one_restarts() -> None:
    world = await due_for_restart()
    stored = await world.store.load_one(VM_ID)
    for _ in range(2):
        await look(world, stored, 10)
    assert len(world.runner.restarts) == 1


async def test_of_two_instances_at_a_vms_first_look_one_alerts() -> None:
    world = World()
    world.add_vm()
    world.is_down()
    for _ in range(2):
        await look(world, None, 0)
    assert len(world.queue.alerts) == 1


# --- crashes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crash_at", ["events", "recheck", "alert", "save, nothing to send", "tick record"])
async def test_a_crash_after_saving_loses_no_alert_and_repeats_its_key(crash_at: str) -> None:
    """Whatever was reached: the next look says what is left, under the same key. Receivers deduplicate."""
    world = await a_watched_vm()
    world.is_down()
    world.journal.crash_at = crash_at
    with suppress(Crash):
        record = await world.tick(0)
        assert "web-1" in record.troubles[0]
    world.journal.crash_at = ""
    await world.tick(3)
    assert {notice.kind for notice in world.queue.alerts} == {NoticeKind.FIRED}
    assert len({notice.key for notice in world.queue.alerts}) == 1
    assert (await world.state()).outbox == ()


async def test_a_crash_before_saving_leaves_everything_to_the_next_look() -> None:
    world = await a_watched_vm()
    world.is_down()
    before = await world.state()
    world.journal.crash_at = "save"
    await world.tick(0)
    assert await world.state() == before
    assert (world.queue.alerts, world.queue.rechecks, world.runner.restarts) == ([], [], [])


async def test_a_crash_between_saving_and_restarting_costs_the_attempt_and_not_the_backoff() -> None:
    world = await due_for_restart()
    world.journal.crash_at = "restart"
    with pytest.raises(Crash):
        await world.recheck(10)
    world.journal.crash_at = ""
    assert (await world.state()).units["web.service"].attempts == 1
    for moment in (11, 15, 29):
        await world.recheck(moment)
    assert world.runner.restarts == []
    await world.recheck(30)
    assert [restart.attempt for _, restart in world.runner.restarts] == [2]


@pytest.mark.parametrize("kind", ["recheck", "alert"])
async def test_a_queue_that_is_down_does_not_swallow_a_restart_that_was_saved(kind: str) -> None:
    """The attempt is counted once it is saved: then it must be made."""
    world = await due_for_restart()
    world.is_down("web-1", "web.service", "db.service")  # worse: there is an alert to send as well
    world.queue.errors[kind] = TransientError("queue: 503")
    with pytest.raises(TransientError):
        await world.recheck(10)
    assert [restart.unit for _, restart in world.runner.restarts] == ["web.service"]
    world.queue.errors.clear()
    await world.tick(60)
    assert [notice.kind for notice in world.queue.alerts] == ["fired", "fired"]


async def test_a_race_lost_while_clearing_the_outbox_does_not_swallow_a_restart() -> None:
    world = await due_for_restart()
    world.is_down("web-1", "web.service", "db.service")
    world.queue.meanwhile = lambda: world.store.touch(VM_ID)
    await world.recheck(10)
    assert [restart.unit for _, restart in world.runner.restarts] == ["web.service"]


# --- outcomes of a restart -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in StartKind if kind is not StartKind.STARTED])
async def test_a_refused_restart_is_history_and_keeps_alerts_and_backoff(kind: StartKind) -> None:
    world = await due_for_restart()
    world.is_down("web-1", "web.service", "db.service")
    world.runner.outcome = StartOutcome(kind, "Azure says no")
    await world.recheck(10)
    assert [notice.kind for notice in world.queue.alerts] == ["fired", "fired"]
    (refused,) = [
        event for event in await world.store.read_events(VM_ID, 99) if event.kind == "restart_refused"
    ]
    assert refused.detail["outcome"] == kind
    assert refused.reason == "web.service: Azure says no"
    assert (await world.state()).units["web.service"].not_before == at(30)


@pytest.mark.parametrize(("succeeded", "kind"), [(True, "restart_done"), (False, "restart_failed")])
async def test_what_the_command_said_is_history(succeeded: bool, kind: str) -> None:
    world = await due_for_restart()
    await world.recheck(10)
    token = world.runner.restarts[0][1].token
    world.runner.results[token] = CommandResult(
        succeeded, "refused: not on the allow-list", {"result": "refused"}
    )
    await world.recheck(15)
    event = next(event for event in await world.store.read_events(VM_ID, 99) if event.kind == kind)
    assert event.reason == "web.service: refused: not on the allow-list"
    assert event.detail == {"unit": "web.service", "token": token, "result": {"result": "refused"}}
    assert (await world.state()).units["web.service"].command is None


async def test_a_result_that_can_not_be_read_ends_no_look() -> None:
    world = await due_for_restart()
    await world.recheck(10)
    token = world.runner.restarts[0][1].token
    world.runner.results[token] = TransientError("reading the result: 503")
    await world.recheck(30)
    assert len(world.runner.restarts) == 2


# --- who may be acted on ---------------------------------------------------------------------------------


async def test_a_vm_tagged_observe_is_watched_and_never_restarted() -> None:
    world = World()
    world.add_vm(mode="observe")
    world.is_down()
    for moment in (0, 10, 30, 60):
        await world.tick(moment)
    assert world.runner.restarts == []
    assert "would_restart" in await world.history()
    assert [notice.kind for notice in world.queue.alerts] == ["fired"]


async def test_an_observing_watchdog_restarts_nothing_whatever_the_tag_says() -> None:
    world = await a_watched_vm(Policy(may_act=False))
    world.is_down()
    for moment in (0, 10, 30):
        await world.tick(moment)
    assert world.runner.restarts == []


@pytest.mark.parametrize("power", [power for power in PowerState if power is not PowerState.RUNNING])
async def test_a_vm_that_does_not_run_is_neither_probed_nor_restarted(power: PowerState) -> None:
    world = await due_for_restart()
    world.prober.probed.clear()
    world.add_vm(power=power)
    await world.tick(10)
    assert world.runner.restarts == []
    assert world.prober.probed == []


# --- witnesses -------------------------------------------------------------------------------------------


async def test_a_failed_query_is_unknown_and_never_a_restart() -> None:
    world = World()
    world.add_vm(probed=False)
    world.report("web-1", a_report(down="web.service"))
    await world.tick(0)
    world.telemetry.error = unavailable()
    for moment in range(10, 600, 30):
        record = await world.tick(moment)
        assert record.troubles == ("telemetry is unavailable",)
    assert world.runner.restarts == []
    assert (await world.state()).cause is Cause.TELEMETRY_UNAVAILABLE
    told = [(notice.kind, notice.vm_id) for notice in world.queue.alerts]
    assert told == [("fired", VM_ID), ("frozen", FLEET_ID)], (
        "once for the fleet, when it has lasted for five minutes"
    )


async def test_a_failed_query_leaves_the_endpoint_as_a_witness() -> None:
    world = await a_watched_vm()
    world.telemetry.error = unavailable()
    await world.tick(0)
    assert (await world.state()).status is Status.HEALTHY
    world.is_down()
    await world.tick(60)
    await world.recheck(70)
    assert len(world.runner.restarts) == 1


async def test_a_silent_vm_is_not_called_silent_while_the_query_fails() -> None:
    world = await a_watched_vm()
    world.telemetry.error = unavailable()
    world.serve("web-1", None)
    for moment in range(0, 600, 60):
        await world.tick(moment)
    assert (await world.state()).cause is Cause.TELEMETRY_UNAVAILABLE
    assert world.runner.restarts == []


async def test_a_recheck_spares_the_query_where_the_endpoint_answers() -> None:
    world = await due_for_restart()
    before = world.telemetry.queries
    await world.recheck(10)
    await world.recheck(15)
    assert world.telemetry.queries == before


async def test_a_recheck_asks_where_the_endpoint_does_not_answer() -> None:
    world = await due_for_restart()
    before = world.telemetry.queries
    world.serve("web-1", None)
    world.report("web-1", a_report(down="web.service"), age=-9)
    await world.recheck(10)
    assert world.telemetry.queries == before + 1
    assert len(world.runner.restarts) == 1


async def test_a_recheck_asks_where_the_endpoint_serves_an_old_sample() -> None:
    """A hung sampler settles nothing; what telemetry says does."""
    world = await a_watched_vm()
    world.serve("web-1", a_report(age=400))
    world.report("web-1", a_report())
    await world.recheck(0)
    state = await world.state()
    assert (state.status, state.soft_status) == (Status.HEALTHY, None)


async def test_a_recheck_asks_while_telemetry_itself_is_in_doubt() -> None:
    world = await a_watched_vm()
    world.telemetry.snapshots.clear()
    for moment in (400, 460):
        await world.tick(moment)
    assert (await world.state()).cause is Cause.TELEMETRY_DELAYED
    before = world.telemetry.queries
    await world.recheck(470)
    assert world.telemetry.queries == before + 1
    assert (await world.state()).cause is Cause.TELEMETRY_DELAYED


async def test_the_tag_wins_over_the_endpoint_that_the_agent_reports() -> None:
    world = World()
    world.add_vm("tagged")
    world.add_vm("untagged", probed=False)
    for name in ("tagged", "untagged"):
        world.report(name, a_report(endpoint="http://reported.example:8080"))
    await world.tick(0)
    assert sorted(world.prober.probed) == sorted([endpoint_of("tagged"), "http://reported.example:8080"])


async def test_the_reported_endpoint_is_remembered_for_the_day_of_silence() -> None:
    world = World()
    world.add_vm(probed=False)
    world.report("web-1", a_report(endpoint="http://reported.example:8080"))
    await world.tick(0)
    world.telemetry.snapshots.clear()
    world.prober.probed.clear()
    await world.tick(4_000)
    assert world.prober.probed == ["http://reported.example:8080"]


async def test_a_recheck_of_a_vm_that_is_gone_does_nothing() -> None:
    world = await due_for_restart()
    world.inventory.targets.clear()
    await world.recheck(10)
    assert world.journal.take() == []
