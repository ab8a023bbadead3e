"""Many looks at once: observe all, decide on each, hold the decisions against the fleet, then carry them out.

Freezes and budgets are judged over all decisions together; a VM that is held is decided on again, with the
hold's reason, so that nothing counts as tried that was not done.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from vm_health.errors import ConflictError, WatchdogError
from vm_health.fleet import FleetState
from vm_health.model import Cause, ProbeResult, Status
from vm_health.requests import on_absence
from vm_health.safety import FleetDecision, assess_turned_bad
from vm_health.state import FLEET_ID, Decision, Hold, VmState
from vm_watchdog import slots
from vm_watchdog.look import Observed, Ports, decide, finish, observe, probe_vm
from vm_watchdog.ports import FleetTelemetry, Stored, Target
from vm_watchdog.sight import Sight, TickOptions

log = logging.getLogger("vm_watchdog.evaluation")

LOOKS_AT_ONCE = 64
_TRIES = 4
_TELEMETRY_CAUSES = frozenset({Cause.TELEMETRY_DELAYED, Cause.TELEMETRY_UNAVAILABLE})


@dataclass(slots=True)
class Evaluation:
    """What came of it: VMs by status, and what went wrong on the way, in words and as raised."""

    statuses: Counter[str] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Looked:
    observed: Observed
    decision: Decision


async def load_sight(ports: Ports, options: TickOptions, now: datetime) -> Sight:
    """Read what is known beyond single VMs. Without it nobody may act, so failing is an error."""
    (fleet, etag), silences = await asyncio.gather(ports.fleet.load_fleet(), ports.silences.list_silences())
    windows = [window.silence_at(now) for window in options.book.windows]
    in_force = [
        silence for silence in (*silences, *windows) if silence is not None and silence.is_active(now)
    ]
    return Sight(options, now, fleet, in_force, etag, fleet)


async def read_telemetry(ports: Ports) -> FleetTelemetry:
    """Ask for the fleet's newest snapshots; where that fails, nothing may be concluded from their absence."""
    try:
        return await ports.telemetry.newest_snapshots()
    except WatchdogError as error:
        log.warning("telemetry unavailable", extra={"problem": str(error)})
        return FleetTelemetry(available=False)


async def save_fleet(ports: Ports, sight: Sight, decide_on: Callable[[FleetState], FleetDecision]) -> None:
    """Let a decision on the fleet hold: for this evaluation at once, for others by saving it.

    Where another instance has changed the fleet meanwhile, it is decided on again, on its new state. What
    can't be saved for long holds for this evaluation alone; the next one judges, and tells, anew.
    """
    for _ in range(_TRIES):
        decided = decide_on(sight.fleet)
        sight.fleet = decided.state
        if decided.state == sight.stored_fleet and not decided.state.outbox:
            return
        try:
            await _keep_fleet(ports, sight)
        except ConflictError:
            await _take_theirs(ports, sight)
            continue
        await _tell_of_fleet(ports, sight, decided)
        return
    sight.unsaved_freezes = decide_on(sight.fleet).state.freezes


async def _keep_fleet(ports: Ports, sight: Sight) -> None:
    if sight.fleet != sight.stored_fleet:
        sight.fleet_etag = await ports.fleet.save_fleet(sight.fleet, sight.fleet_etag)
        sight.stored_fleet = sight.fleet


async def _take_theirs(ports: Ports, sight: Sight) -> None:
    log.info("another instance has changed the fleet's state")
    sight.fleet, sight.fleet_etag = await ports.fleet.load_fleet()
    sight.stored_fleet = sight.fleet


async def _tell_of_fleet(ports: Ports, sight: Sight, decided: FleetDecision) -> None:
    """Write history and queue the notices, which wait in the saved outbox until then."""
    await ports.store.append_events(FLEET_ID, decided.events, offset=sight.fleet_events)
    sight.fleet_events += len(decided.events)
    for event in decided.events:
        log.warning("fleet", extra={"event": event.kind, "reason": event.reason})
    for notice in decided.state.outbox:
        await ports.queue.send_alert(notice)
    if decided.state.outbox:
        sight.fleet = replace(sight.fleet, outbox=())
        try:
            await _keep_fleet(ports, sight)
        except ConflictError:
            await _take_theirs(ports, sight)


async def evaluate(
    ports: Ports,
    sight: Sight,
    targets: Sequence[Target],
    states: Mapping[str, Stored],
    telemetry: FleetTelemetry | None,
    scope: str = "",
) -> Evaluation:
    """Look at ``targets``. ``telemetry`` None means: a recheck, that asks for it only where it must.

    ``scope`` names whose part of the fleet ``targets`` are; empty for rechecks, which know only their VM.
    """
    done = Evaluation()
    gate = asyncio.Semaphore(LOOKS_AT_ONCE)

    async def look(target: Target) -> _Looked | None:
        async with gate:
            try:
                stored = states.get(target.vm_id)
                observed = await _observe(ports, sight, target, stored, telemetry)
                return _Looked(observed, decide(observed, sight.now, sight.hold_for(target, observed.quiet)))
            except Exception as error:  # noqa: BLE001 - one VM's failure must not end the others' looks
                _note_failure(done, target.name, error)
                return None

    looked = [one for one in await asyncio.gather(*(look(target) for target in targets)) if one is not None]
    await _judge_fleet(ports, sight, looked, scope)
    allowed = await _allow(ports, sight, looked)

    lost: list[_Looked] = []

    async def carry_out(one: _Looked) -> Status:
        async with gate:
            try:
                is_mine = await finish(ports, one.observed, one.decision, sight.now)
            except Exception as error:  # noqa: BLE001 - one VM's failure must not end the others' looks
                _note_failure(done, one.observed.target.name, error)
                return Status.UNKNOWN
            if not is_mine:
                lost.append(one)
            return one.decision.state.status

    statuses = await asyncio.gather(*(carry_out(one) for one in allowed))
    done.statuses.update(statuses + [Status.UNKNOWN] * (len(targets) - len(allowed)))
    await _give_back(ports, sight, allowed)
    await _withdraw(ports, sight, lost)
    if scope:
        done.troubles += sight.faults_of(targets)
        await _note_absent(ports, sight, targets, states, done)
    return done


def _note_failure(done: Evaluation, name: str, error: Exception) -> None:
    log.error("look failed", exc_info=error, extra={"vm": name})
    done.troubles.append(f"{name}: {error}")
    done.failures.append(error)


async def _observe(
    ports: Ports, sight: Sight, target: Target, stored: Stored | None, telemetry: FleetTelemetry | None
) -> Observed:
    if telemetry is not None:
        return await observe(ports, sight, target, stored, telemetry)
    probe = await probe_vm(ports, target, "" if stored is None else stored.state.endpoint)
    telemetry = await _telemetry_for(ports, sight, target, stored, probe)
    return await observe(ports, sight, target, stored, telemetry, probe, is_routine=False)


async def _telemetry_for(
    ports: Ports, sight: Sight, target: Target, stored: Stored | None, probe: ProbeResult
) -> FleetTelemetry:
    """Log Analytics allows 200 queries in 30 s: a fleet in trouble must not spend them on VMs that answer."""
    max_age = sight.policy_for(target).snapshot_max_age_seconds
    is_fresh = probe.report is not None and probe.report.age_seconds <= max_age
    if is_fresh and (stored is None or stored.state.cause not in _TELEMETRY_CAUSES):
        return FleetTelemetry(available=False)
    return await read_telemetry(ports)


async def _judge_fleet(ports: Ports, sight: Sight, looked: Sequence[_Looked], scope: str) -> None:
    """Count who turned bad together. A recheck asks the store, and only where it wants to act."""
    if not scope:
        if any(one.decision.wants_action for one in looked):
            await judge_by_store(ports, sight)
        return
    policy, since = sight.options.book.safety, _window_start(sight)
    states = [one.decision.state for one in looked]
    bad = [state for state in states if state.status is Status.CRITICAL]
    turned = sum(1 for state in bad if state.since is not None and state.since >= since)
    count = (turned, len(bad), len(looked))
    await save_fleet(ports, sight, lambda fleet: assess_turned_bad(fleet, scope, *count, policy, sight.now))


async def judge_by_store(ports: Ports, sight: Sight) -> None:
    """Count who turned bad together by what is stored: for those who see one VM, or none."""
    policy = sight.options.book.safety
    count = await ports.store.count_bad(_window_start(sight))

    def decide_on(fleet: FleetState) -> FleetDecision:
        size = max(fleet.vm_count, 1)
        return assess_turned_bad(fleet, "fleet", count.turned, count.bad, size, policy, sight.now)

    await save_fleet(ports, sight, decide_on)


def _window_start(sight: Sight) -> datetime:
    return sight.now - timedelta(seconds=sight.options.book.safety.mass_failure_window_seconds)


async def _allow(ports: Ports, sight: Sight, looked: Sequence[_Looked]) -> list[_Looked]:
    """Hold what the freeze or the budget does not allow; the rest has its slots."""
    wanting: dict[str, list[_Looked]] = defaultdict(list)
    allowed: list[_Looked] = []
    for one in looked:
        if not one.decision.restarts and one.decision.vm_action is None:
            allowed.append(one)
            continue
        hold = sight.hold_for(one.observed.target, one.observed.quiet)
        if hold is None:
            wanting[one.observed.target.group].append(one)
        else:
            allowed.append(_held(one, sight.now, hold))
    for group, ones in wanting.items():
        holders, share = await slots.take(
            ports.fleet,
            group,
            [one.observed.target.vm_id for one in sorted(ones, key=_longest_down)],
            sight.fleet.groups.get(group, 1),
            ones[0].observed.policy.budget_percent,
            sight.now,
        )
        for one in ones:
            free = one.observed.target.vm_id in holders
            allowed.append(one if free else _held(one, sight.now, Hold("budget", share)))
    return allowed


def _longest_down(one: _Looked) -> datetime:
    since = one.decision.state.since
    return since if since is not None else datetime.max.replace(tzinfo=UTC)


def _held(one: _Looked, now: datetime, hold: Hold) -> _Looked:
    return _Looked(one.observed, decide(one.observed, now, hold))


async def _give_back(ports: Ports, sight: Sight, looked: Sequence[_Looked]) -> None:
    """Return the slots of VMs whose restarts are over: their units are seen up again."""
    over: dict[str, dict[str, datetime]] = defaultdict(dict)
    for one in looked:
        if _has_come_up(one) and _is_over(one):
            over[one.observed.target.group][one.observed.target.vm_id] = _last_tried(one.decision.state)
    try:
        await slots.release(ports.fleet, over, sight.now)
    except WatchdogError as error:
        log.warning("slots were not given back; they expire", extra={"problem": str(error)})


async def _withdraw(ports: Ports, sight: Sight, lost: Sequence[_Looked]) -> None:
    """Take back the slots of restarts that others have made: else a VM that is up would hold one on."""
    for one in lost:
        if one.decision.restarts or one.decision.vm_action is not None:
            await withdraw(ports, one.observed.target, sight.now)


async def withdraw(ports: Ports, target: Target, now: datetime) -> None:
    """Take back the slot that a look at ``now`` took before it lost the race for its VM."""
    try:
        stored = await ports.store.load_one(target.vm_id)
        state = VmState() if stored is None else stored.state
        under_way = any(
            unit.last_attempt_at is not None and (unit.up_since is None or unit.command is not None)
            for unit in state.units.values()
        )
        tried_at = _last_tried(state) if under_way else None
        await slots.withdraw(ports.fleet, target.group, target.vm_id, tried_at, now)
    except WatchdogError as error:
        log.warning("a slot was not given back; it expires", extra={"problem": str(error)})


def _has_come_up(one: _Looked) -> bool:
    """Tell whether this look saw a unit up again, or the end of a restart's command."""
    before = {} if one.observed.stored is None else one.observed.stored.state.units
    return any(
        name in before
        and (before[name].up_since is None or (before[name].command is not None and unit.command is None))
        for name, unit in one.decision.state.units.items()
    )


def _is_over(one: _Looked) -> bool:
    """A unit that was down has been restarted once it is up. One that ran when a person asked has been up all
    the while: there only the end of the command tells."""
    before = one.observed.state
    return all(
        unit.up_since is not None
        and (unit.command is None or name in before.subjects or before.cause is Cause.VM_SILENT)
        for name, unit in one.decision.state.units.items()
    )


def _last_tried(state: VmState) -> datetime:
    tried = [unit.last_attempt_at for unit in state.units.values() if unit.last_attempt_at is not None]
    return max(
        [*tried, *(action.at for action in state.vm_actions)], default=datetime.min.replace(tzinfo=UTC)
    )


async def _note_absent(
    ports: Ports,
    sight: Sight,
    targets: Sequence[Target],
    states: Mapping[str, Stored],
    done: Evaluation,
) -> None:
    """Let go of VMs that the inventory no longer shows, unless the inventory itself is in doubt."""
    if any(freeze.cause is Cause.INVENTORY_SUSPECT for freeze in sight.freezes):
        return
    present = {target.vm_id for target in targets}
    for vm_id in states.keys() - present:
        try:
            await _forget(ports, sight, vm_id, states[vm_id])
        except ConflictError:
            log.info("another instance has this VM", extra={"vm": vm_id})
        except WatchdogError as error:
            _note_failure(done, vm_id, error)


async def _forget(ports: Ports, sight: Sight, vm_id: str, stored: Stored) -> None:
    decision = on_absence(stored.state, vm_id, sight.options.book.defaults, sight.now)
    if decision is None:
        for notice in stored.state.outbox:
            await ports.queue.send_alert(notice)
        await ports.store.delete(vm_id, stored.etag)
        return
    etag = stored.etag
    if decision.state != stored.state:
        etag = await ports.store.save(vm_id, decision.state, etag)
    await ports.store.append_events(vm_id, decision.events)
    for notice in decision.state.outbox:
        await ports.queue.send_alert(notice)
    if decision.state.outbox:
        await ports.store.save(vm_id, replace(decision.state, outbox=()), etag)
