"""The tick: inventory, one telemetry query, states, then a look at every VM; one's failure ends no tick."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from vm_health.model import Status
from vm_health.names import vm_key
from vm_health.policy import Policy
from vm_watchdog.look import Ports, look_at, read_telemetry
from vm_watchdog.ports import Target, TickRecord

log = logging.getLogger("vm_watchdog.tick")

PARTITIONS = 16  # a VM's partition is the first hex digit of its key; a shard is a run of partitions
LOOKS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class TickOptions:
    """How a tick cuts its work. ``clock`` is read once a tick, and once more for the record of its end."""

    policy: Policy
    clock: Callable[[], datetime]
    shard_size: int = 500


async def run_tick(ports: Ports, options: TickOptions) -> TickRecord:
    """Look at the whole fleet, or hand its shards to the queue where it is larger than one shard."""
    now = options.clock()
    targets = await ports.inventory.list_targets()
    shard_count = shards_for(len(targets), options.shard_size)
    statuses, troubles = Counter[str](), list[str]()
    if shard_count > 1:
        await asyncio.gather(*(ports.queue.send_shard(shard, shard_count) for shard in range(shard_count)))
    else:
        statuses, troubles = await _look_at_all(ports, targets, 0, 1, options, now)
    record = TickRecord(now, options.clock(), len(targets), dict(statuses), tuple(troubles))
    await ports.store.save_tick(record)
    log.info(
        "tick",
        extra={
            "targets": record.targets,
            "shards": shard_count,
            "statuses": record.statuses,
            "troubles": list(record.troubles),
            "seconds": round((record.finished_at - now).total_seconds(), 3),
        },
    )
    return record


async def run_shard(ports: Ports, options: TickOptions, shard: int, shard_count: int) -> None:
    """Look at the VMs of one shard."""
    now = options.clock()
    targets = [
        target
        for target in await ports.inventory.list_targets()
        if shard_of(target.vm_id, shard_count) == shard
    ]
    statuses, troubles = await _look_at_all(ports, targets, shard, shard_count, options, now)
    log.info("shard", extra={"shard": shard, "statuses": dict(statuses), "troubles": list(troubles)})


async def run_recheck(ports: Ports, options: TickOptions, vm_id: str) -> None:
    """Look at one VM now, asking telemetry only where the endpoint alone does not settle it."""
    target = await ports.inventory.get_target(vm_id)
    if target is None:
        log.info("recheck of a VM that is gone or not opted in", extra={"vm": vm_id})
        return
    stored = await ports.store.load_one(vm_id)
    await look_at(ports, target, stored, None, options.policy, options.clock())


def shards_for(targets: int, shard_size: int) -> int:
    """Return the number of shards: a power of two up to PARTITIONS, the least whose share fits."""
    shard_count = 1
    while shard_count < PARTITIONS and targets > shard_count * shard_size:
        shard_count *= 2
    return shard_count


def shard_of(vm_id: str, shard_count: int) -> int:
    """Return which of ``shard_count`` shards a VM belongs to, by its partition."""
    return int(vm_key(vm_id)[0], 16) * shard_count // PARTITIONS


async def _look_at_all(
    ports: Ports,
    targets: Sequence[Target],
    shard: int,
    shard_count: int,
    options: TickOptions,
    now: datetime,
) -> tuple[Counter[str], list[str]]:
    telemetry, states = await asyncio.gather(read_telemetry(ports), ports.store.load(shard, shard_count))
    gate = asyncio.Semaphore(LOOKS_AT_ONCE)
    troubles = [] if telemetry.available else ["telemetry is unavailable"]

    async def look(target: Target) -> Status:
        async with gate:
            try:
                stored = states.get(target.vm_id)
                return await look_at(ports, target, stored, telemetry, options.policy, now)
            except Exception as error:
                log.exception("look failed", extra={"vm": target.name})
                troubles.append(f"{target.name}: {error}")
                return Status.UNKNOWN

    return Counter(await asyncio.gather(*(look(target) for target in targets))), troubles
