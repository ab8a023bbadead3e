"""The tick: inventory, one telemetry query, states, then a look at every VM; one's failure ends no tick.

Decisions on single VMs are made first and held against the fleet as a whole before any of them is carried
out: see ``evaluation``. Fleets larger than one shard are cut up and handed to the queue.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from vm_health.errors import WatchdogError
from vm_health.fleet import FLEET_SCOPE, FleetDecision, FleetState, Freeze, Senses
from vm_health.model import Cause
from vm_health.names import vm_key
from vm_health.safety import assess_senses, lift_orphans
from vm_watchdog.evaluation import (
    Evaluation,
    evaluate,
    judge_by_store,
    load_sight,
    read_telemetry,
    save_fleet,
)
from vm_watchdog.look import Ports
from vm_watchdog.ports import FleetTelemetry, Target, TickRecord
from vm_watchdog.sight import Sight, TickOptions

log = logging.getLogger("vm_watchdog.tick")

BLIND_AFTER_SECONDS = 50.0  # the second tick in a row
PARTITIONS = 16  # a VM's partition is the first hex digit of its key; a shard is a run of partitions


async def run_tick(ports: Ports, options: TickOptions) -> TickRecord:
    """Look at the whole fleet, or hand its shards to the queue where it is larger than one shard.

    Raises:
        WatchdogError: inventory or state store can't be read: that is no tick, and ``live`` will tell.
    """
    now = options.clock()
    sight, egress_problem, _ = await asyncio.gather(
        load_sight(ports, options, now), ports.canary.egress_problem(), ports.canary.send(now)
    )
    try:
        targets = await ports.inventory.list_targets()
    except WatchdogError as error:
        await _note_blindness(ports, sight, error)
        raise
    groups = Counter(target.group for target in targets)
    senses = Senses(vm_count=len(targets), groups=dict(groups), egress_problem=egress_problem)
    shard_count = shards_for(len(targets), options.shard_size)
    await _let_go_of_orphans(ports, sight, shard_count)
    if shard_count > 1:
        await _sense(ports, sight, senses)
        await judge_by_store(ports, sight)
        await asyncio.gather(*(ports.queue.send_shard(shard, shard_count) for shard in range(shard_count)))
        done = Evaluation()
    else:
        done = await _evaluate_part(ports, sight, targets, senses, 0, 1)
    record = TickRecord(now, options.clock(), len(targets), dict(done.statuses), tuple(done.troubles))
    await ports.store.save_tick(record)
    await ports.dead_man.ping(record)
    log.info(
        "tick",
        extra={
            "targets": record.targets,
            "shards": shard_count,
            "statuses": record.statuses,
            "troubles": list(record.troubles),
            "frozen": sight.fleet.frozen(now),
            "seconds": round((record.finished_at - now).total_seconds(), 3),
        },
    )
    return record


async def run_shard(ports: Ports, options: TickOptions, shard: int, shard_count: int) -> None:
    """Look at the VMs of one shard."""
    now = options.clock()
    sight, everything = await asyncio.gather(load_sight(ports, options, now), ports.inventory.list_targets())
    targets = [target for target in everything if shard_of(target.vm_id, shard_count) == shard]
    senses = Senses(scope=_scope(shard, shard_count))
    done = await _evaluate_part(ports, sight, targets, senses, shard, shard_count)
    log.info("shard", extra={"shard": shard, "statuses": dict(done.statuses), "troubles": done.troubles})


async def run_recheck(ports: Ports, options: TickOptions, vm_id: str) -> None:
    """Look at one VM now, asking telemetry only where the endpoint alone does not settle it.

    Raises:
        Exception: whatever went wrong, so that the queue tries again.
    """
    now = options.clock()
    target = await ports.inventory.get_target(vm_id)
    if target is None:
        log.info("recheck of a VM that is gone or not opted in", extra={"vm": vm_id})
        return
    sight, stored = await asyncio.gather(load_sight(ports, options, now), ports.store.load_one(vm_id))
    states = {} if stored is None else {vm_id: stored}
    done = await evaluate(ports, sight, [target], states, None)
    if done.failures:
        raise done.failures[0]


def shards_for(targets: int, shard_size: int) -> int:
    """Return the number of shards: a power of two up to PARTITIONS, the least whose share fits."""
    shard_count = 1
    while shard_count < PARTITIONS and targets > shard_count * shard_size:
        shard_count *= 2
    return shard_count


def shard_of(vm_id: str, shard_count: int) -> int:
    """Return which of ``shard_count`` shards a VM belongs to, by its partition."""
    return int(vm_key(vm_id)[0], 16) * shard_count // PARTITIONS


async def _evaluate_part(
    ports: Ports,
    sight: Sight,
    targets: Sequence[Target],
    senses: Senses,
    shard: int,
    shard_count: int,
) -> Evaluation:
    """Look at a part of the fleet whose states lie in one run of partitions; believe senses first."""
    telemetry, states = await asyncio.gather(read_telemetry(ports), ports.store.load(shard, shard_count))
    max_age = sight.options.book.defaults.snapshot_max_age_seconds
    reporting = [
        target.vm_id
        for target in targets
        if target.is_running
        and (
            target.vm_id in telemetry.snapshots
            or (target.vm_id in states and states[target.vm_id].state.endpoint)
        )
    ]
    fresh = sum(1 for vm_id in reporting if _is_fresh(telemetry, vm_id, max_age, sight.now))
    canary_age = None if telemetry.canary_at is None else (sight.now - telemetry.canary_at).total_seconds()
    senses = replace(
        senses,
        running=len(reporting),
        fresh=fresh,
        telemetry_available=telemetry.available,
        canary_age_seconds=canary_age,
        canary_is_sent=ports.canary.sends,
    )
    await _sense(ports, sight, senses)
    done = await evaluate(ports, sight, targets, states, telemetry, scope=senses.scope)
    if not telemetry.available:
        done.troubles.insert(0, "telemetry is unavailable")
    return done


def _is_fresh(telemetry: FleetTelemetry, vm_id: str, max_age_seconds: float, now: datetime) -> bool:
    snapshot = telemetry.snapshots.get(vm_id)
    return snapshot is not None and (now - snapshot.received_at).total_seconds() <= max_age_seconds


async def _let_go_of_orphans(ports: Ports, sight: Sight, shard_count: int) -> None:
    """Lift freezes whose judge is no more, for the fleet is now cut in another way."""
    shards = {_scope(shard, shard_count) for shard in range(shard_count)} if shard_count > 1 else set()

    def is_judged(freeze: Freeze) -> bool:
        if freeze.scope in shards:
            return True
        by_shards = shard_count > 1 and freeze.cause is Cause.TELEMETRY_STALE_FOR_ALL
        return freeze.scope == FLEET_SCOPE and not by_shards

    await save_fleet(ports, sight, lambda fleet: lift_orphans(fleet, is_judged, sight.now))


def _scope(shard: int, shard_count: int) -> str:
    return f"shard {shard} of {shard_count}"


async def _note_blindness(ports: Ports, sight: Sight, error: WatchdogError) -> None:
    """The VMs can't be listed. Once may be chance; for longer, Azure is out of reach: freeze, and say so."""
    book, now = sight.options.book, sight.now
    senses = Senses(egress_problem=f"the list of VMs can't be read: {error}")
    stale_after = book.defaults.snapshot_max_age_seconds

    def decide_on(fleet: FleetState) -> FleetDecision:
        since = fleet.inventory_failing_since or now
        fleet = replace(fleet, inventory_failing_since=since)
        if (now - since).total_seconds() < BLIND_AFTER_SECONDS:
            return FleetDecision(fleet)
        return assess_senses(fleet, senses, book.safety, stale_after, now)

    await save_fleet(ports, sight, decide_on)


async def _sense(ports: Ports, sight: Sight, senses: Senses) -> None:
    """Judge whether the watchdog sees at all."""
    await save_fleet(ports, sight, lambda fleet: _assess(fleet, senses, sight))


def _assess(fleet: FleetState, senses: Senses, sight: Sight) -> FleetDecision:
    """A single query that fails is no blindness; failing for as long as makes a snapshot stale is."""
    book = sight.options.book
    stale_after = book.defaults.snapshot_max_age_seconds
    if senses.vm_count is not None and fleet.inventory_failing_since is not None:
        fleet = replace(fleet, inventory_failing_since=None)
    if senses.running is not None:
        since = None if senses.telemetry_available else fleet.telemetry_failing_since or sight.now
        if since != fleet.telemetry_failing_since:
            fleet = replace(fleet, telemetry_failing_since=since)
        failing_seconds = 0.0 if since is None else (sight.now - since).total_seconds()
        senses = replace(senses, telemetry_failing_seconds=failing_seconds)
    return assess_senses(fleet, senses, book.safety, stale_after, sight.now)
