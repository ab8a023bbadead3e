"""The budget of a group in practice: slots in a shared row, taken before an intent is saved.

Whoever can't get one waits; a slot that is not given back (its holder crashed) expires by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from vm_health.errors import ConflictError
from vm_health.fleet import Slot
from vm_health.names import vm_key
from vm_health.safety import budget, give_back, take_slots
from vm_watchdog.ports import FleetStore

log = logging.getLogger("vm_watchdog.slots")

SLOT_SECONDS = 150.0  # a command's time-out, and some time to be seen up after it
_TRIES = 4


async def take(
    fleet: FleetStore,
    group: str,
    vm_ids: Sequence[str],
    group_size: int,
    percent: float,
    now: datetime,
) -> tuple[frozenset[str], str]:
    """Take slots of ``group`` for as many of ``vm_ids`` as its budget allows, in their order.

    Returns:
        The VMs that have one, and why the others have not.
    """
    keys = {vm_key(vm_id): vm_id for vm_id in vm_ids}
    limit = budget(group_size, percent)
    until = now + timedelta(seconds=SLOT_SECONDS)
    for _ in range(_TRIES):
        slots, etag = await fleet.load_slots(group)
        after, holders = take_slots(slots, tuple(keys), limit, until, now)
        try:
            if after != tuple(slots):
                await fleet.save_slots(group, after, etag)
        except ConflictError:
            continue
        share = f"{limit} of {max(group_size, 1)} VMs of group {group} may be in restart at once"
        return frozenset(keys[key] for key in holders if key in keys), share
    return frozenset(), f"others are taking the restart slots of group {group} just now"


async def release(
    fleet: FleetStore, tried_by_group: Mapping[str, Mapping[str, datetime]], now: datetime
) -> None:
    """Give back the slots of VMs that are seen up, each with the moment of its last attempt that is known.

    A slot that was taken for a later attempt stays: whoever saw the VM up has not seen that one.
    """
    for group, tried in tried_by_group.items():
        ends = {vm_key(vm_id): at + timedelta(seconds=SLOT_SECONDS) for vm_id, at in tried.items()}

        def without(slots: Sequence[Slot], ends: Mapping[str, datetime] = ends) -> tuple[Slot, ...]:
            over = [slot.vm for slot in slots if slot.vm in ends and slot.until <= ends[slot.vm]]
            return give_back(slots, over, now)

        await _change(fleet, group, without)


async def withdraw(
    fleet: FleetStore, group: str, vm_id: str, tried_at: datetime | None, now: datetime
) -> None:
    """Take back what a look at ``now`` took for a VM before it lost the race for it: the slot then lasts for
    as long as the winner's attempt at ``tried_at`` needs it, and goes where nothing is under way (None)."""
    key, mine = vm_key(vm_id), now + timedelta(seconds=SLOT_SECONDS)

    def shortened(slots: Sequence[Slot]) -> tuple[Slot, ...]:
        kept = [slot for slot in slots if (slot.vm, slot.until) != (key, mine)]
        if len(kept) < len(slots) and tried_at is not None:
            kept.append(Slot(key, tried_at + timedelta(seconds=SLOT_SECONDS)))
        return tuple(kept)

    await _change(fleet, group, shortened)


async def _change(
    fleet: FleetStore, group: str, change: Callable[[Sequence[Slot]], tuple[Slot, ...]]
) -> None:
    """Change a group's slots. Where others keep changing them it is left: slots expire."""
    for _ in range(_TRIES):
        slots, etag = await fleet.load_slots(group)
        after = change(slots)
        if after == tuple(slots):
            return
        with suppress(ConflictError):
            await fleet.save_slots(group, after, etag)
            return
    log.info("others keep changing the slots", extra={"group": group})
