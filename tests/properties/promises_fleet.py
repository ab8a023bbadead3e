"""The promises on the fleet as a whole: the budget, and that a blind watchdog freezes and says so."""

from __future__ import annotations

from datetime import timedelta

from tests.properties.checking import Held, breach, clock, short, what
from tests.properties.chronicle import Ended, Entry, FleetSaved, Sent, SlotsSaved
from vm_health.fleet import SafetyPolicy
from vm_health.model import Cause, Status
from vm_health.names import vm_key

SAFETY = SafetyPolicy()
LONGEST_RESTART = timedelta(seconds=150)  # then a slot ends by itself


def check_budget_is_kept(_held: Held, entry: Entry) -> None:
    """2: never more VMs of a group in restart than its budget; a restart has a slot as long as it lasts."""
    if isinstance(entry, Sent) and not entry.shown.is_disturbed:
        key = vm_key(entry.shown.vm_id)
        if not any(slot.vm == key and entry.at < slot.until for slot in entry.slots):
            breach("the budget is kept", f"{what(entry)} without a slot of its group")
    if isinstance(entry, SlotsSaved):
        before = {slot.vm for slot in entry.before if entry.now < slot.until}
        after = {slot.vm for slot in entry.after if entry.now < slot.until}
        percent = next((one.policy.budget_percent for one in entry.shown.values()), 10.0)
        size = entry.fleet.groups.get(entry.group, 1)
        limit = max(1, int(size * percent / 100.0))
        if after - before and len(after) > limit:
            breach(
                "the budget is kept", f"{len(after)} of {size} VMs of {entry.group} at once, {limit} may be"
            )
        for key in before - after:
            _check_given_back(entry, key)


def _check_given_back(entry: SlotsSaved, key: str) -> None:
    """A slot comes back early only when its VM was seen up after its last restart. A unit that ran while a
    person had it restarted is up all the while: there the command must be over."""
    shown = entry.shown.get(key)
    row = None if shown is None else entry.rows.get(shown.vm_id)
    if shown is None or row is None:
        breach("the budget is kept", f"a slot of {entry.group} was given back by one that did not see its VM")
    seen = shown.newest()
    acted = [action.at for action in row.vm_actions]
    for name, unit in row.units.items():
        tried = [*acted, *([] if unit.last_attempt_at is None else [unit.last_attempt_at])]
        if not tried or entry.now - max(tried) >= LONGEST_RESTART:
            continue
        is_down = seen is not None and name in seen.down
        seen_up = seen is not None and seen.at > max(tried)
        is_at_it = unit.command is not None and unit.command.token in entry.wished
        if is_down or (unit.up_since is None and not seen_up) or is_at_it:
            text = f"{short(shown)} gave its slot back at {clock(entry.now)} while {name} is in restart"
            breach("the budget is kept", text)


def check_a_freeze_is_told(held: Held, entry: Entry) -> None:
    """5: whoever freezes all action tells people; the notice is queued, or waits in the saved outbox."""
    if not isinstance(entry, FleetSaved):
        return
    for notice in entry.after.outbox:
        held.told.setdefault(notice.key, notice)
    for notice in entry.before.outbox:
        if notice not in entry.after.outbox and notice.key not in held.queued:
            breach("notices are never lost", f"{notice.key} left the fleet's outbox and was not queued")
    for freeze in entry.after.freezes:
        if f"{freeze.incident_id}:frozen" not in held.told:
            breach("a freeze is told", f"{freeze.incident_id} ({freeze.reason}) has no notice")
    left = {freeze.incident_id for freeze in entry.before.freezes}
    left -= {freeze.incident_id for freeze in entry.after.freezes}
    still = {freeze.cause for freeze in entry.after.freezes}
    for freeze in entry.before.freezes:
        over = freeze.incident_id in left and freeze.cause not in still
        if over and f"{freeze.incident_id}:thawed" not in held.told:
            breach("a freeze is told", f"{freeze.incident_id} ended and nobody heard of it")


def check_a_blind_watchdog_freezes(_held: Held, entry: Entry) -> None:
    """4: what the design calls blindness or a mass failure has frozen all action at the end of that tick."""
    if not isinstance(entry, Ended) or entry.shards:
        return
    now, believed = entry.now, entry.believed
    causes = {freeze.cause for freeze in entry.fleet.freezes}
    if entry.egress_problem and Cause.CANARY_FAILED not in causes:
        breach("a blind watchdog freezes", f"its way out was blocked at {clock(now)}")
    is_new = believed.shrunk_since is None or now - believed.shrunk_since < timedelta(
        seconds=SAFETY.inventory_settles_seconds
    )
    is_empty = entry.listed == 0 < believed.vm_count
    is_halved = believed.vm_count >= 2 and 2 * entry.listed <= believed.vm_count
    if (is_empty or is_halved) and is_new and Cause.INVENTORY_SUSPECT not in causes:
        breach(
            "a blind watchdog freezes", f"{entry.listed} of {believed.vm_count} VMs listed at {clock(now)}"
        )
    if _is_stale_for_all(entry) and Cause.TELEMETRY_STALE_FOR_ALL not in causes:
        breach("a blind watchdog freezes", f"telemetry was stale for all at {clock(now)}")
    _check_mass_failure(entry, causes)


def _is_stale_for_all(entry: Ended) -> bool:
    ages = [(entry.now - moment).total_seconds() for moment in entry.received]
    return entry.has_telemetry and len(ages) >= SAFETY.stale_min_vms and min(ages) > 300.0


def _check_mass_failure(entry: Ended, causes: set[Cause]) -> None:
    if entry.has_failed:
        return
    bad = [
        row for vm_id, row in entry.rows.items() if vm_id in entry.vm_ids and row.status is Status.CRITICAL
    ]
    since = entry.now - timedelta(seconds=SAFETY.mass_failure_window_seconds)
    turned, size = sum(row.since is not None and row.since >= since for row in bad), len(entry.vm_ids)
    is_mass = turned >= SAFETY.mass_failure_min_vms and turned * 100 > SAFETY.mass_failure_percent * size
    if is_mass and Cause.MASS_FAILURE not in causes:
        breach(
            "a blind watchdog freezes", f"{turned} of {size} VMs turned bad together, not frozen: {causes}"
        )
