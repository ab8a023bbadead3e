"""The promises on what people hear, and on what is remembered: alerts are never lost, never resolved for want
of data; an open circuit ends in people; a healthy VM costs no write."""

from __future__ import annotations

from datetime import timedelta

from tests.properties.checking import Held, breach, clock, short
from tests.properties.chronicle import Entry, Queued, Saved, Shown
from vm_health.model import Cause, PowerState, ProbeOutcome, Status
from vm_health.state import Notice, NoticeKind, VmState

_OPENING = (NoticeKind.FIRED, NoticeKind.FLAPPING)
_FOLLOWING = (NoticeKind.RESOLVED, NoticeKind.REMINDER, NoticeKind.GAVE_UP)
_TROUBLE = (Status.WARNING, Status.CRITICAL, Status.UNKNOWN)
_SEVERITY = {Status.UNKNOWN: 1, Status.WARNING: 2, Status.CRITICAL: 3}


def check_notices_are_never_lost(held: Held, entry: Entry) -> None:
    """5: a notice that was saved stays in the saved outbox until it is queued; one key is one notice."""
    if isinstance(entry, Queued):
        held.queued.add(entry.notice.key)
        if entry.notice.key not in held.told:
            breach("notices are never lost", f"{entry.notice.key} was queued before it was saved")
    if not isinstance(entry, Saved):
        return
    after = () if entry.after is None else entry.after.outbox
    for notice in () if entry.before is None else entry.before.outbox:
        if notice not in after and notice.key not in held.queued:
            breach("notices are never lost", f"{notice.key} left the outbox at {clock(entry.at)}, not queued")
    for notice in after:
        other = held.told.setdefault(notice.key, notice)
        if (other.kind, other.at, other.subjects) != (notice.kind, notice.at, notice.subjects):
            breach("one key is one notice", f"{notice.key} says {other.reason!r} and {notice.reason!r}")


def check_trouble_is_told(_held: Held, entry: Entry) -> None:
    """5: a hard turn to trouble of a VM that is not silenced fires, once more where it gets worse."""
    if not isinstance(entry, Saved) or entry.after is None or entry.shown.kind == "request":
        return
    before, after, shown = entry.before, entry.after, entry.shown
    if shown.target is None:
        return
    was_told = before is not None and before.incident is not None and before.incident.told_at is not None
    is_quiet = shown.stopped_by_silence("alerts")
    if after.since is None or after.status not in _TROUBLE or is_quiet:
        return
    if after.is_flapping:
        if before is None or not before.is_flapping:
            _expect(entry, NoticeKind.FLAPPING, "it has begun to flap")
        return
    if after.cause is Cause.TELEMETRY_UNAVAILABLE and (before is None or before.incident is None):
        return  # the query is the fleet's: one finding of the fleet
    if not was_told:
        _expect(entry, NoticeKind.FIRED, f"it is {after.status} ({after.cause})")
        return
    told = None if before is None or before.incident is None else before.incident.status
    if told is not None and _SEVERITY[after.status] > _SEVERITY.get(told, 0):
        _expect(entry, NoticeKind.FIRED, f"it has become {after.status}")


def _expect(entry: Saved, kind: NoticeKind, why: str) -> None:
    fresh = _new_notices(entry)
    if not any(one.kind is kind and one.at == entry.shown.now for one in fresh):
        kinds = [one.kind.value for one in fresh]
        breach("trouble is told", f"{short(entry.shown)} at {clock(entry.shown.now)}: {why}; told: {kinds}")


def check_resolved_comes_after_fired(held: Held, entry: Entry) -> None:
    """5: nothing is resolved that was not fired before. A look at one VM may queue the end while the
    beginning still waits in the outbox for the next tick: whoever delivers holds the end back until then."""
    if isinstance(entry, Saved):
        held.fired |= {one.incident_id for one in _new_notices(entry) if one.kind in _OPENING}
    is_following = isinstance(entry, Queued) and entry.notice.kind in _FOLLOWING
    if isinstance(entry, Queued) and is_following and entry.notice.incident_id not in held.fired:
        breach("resolved comes after fired", entry.notice.key)


def check_the_told_hear_of_the_end(_held: Held, entry: Entry) -> None:
    """5: an incident that people heard of ends in a resolution."""
    if not isinstance(entry, Saved) or entry.before is None:
        return
    was = entry.before.incident
    if was is None or was.told_at is None:
        return
    if entry.after is not None and entry.after.incident is not None and entry.after.incident.id == was.id:
        return
    if not any(one.kind is NoticeKind.RESOLVED and one.incident_id == was.id for one in _new_notices(entry)):
        breach("the told hear of the end", f"{was.id} ended at {clock(entry.shown.now)} without a word")


def check_nothing_is_resolved_for_want_of_data(_held: Held, entry: Entry) -> None:
    """10: only evidence ends an incident: the VM is fine by a fresh report, or off, or gone for long."""
    if not isinstance(entry, Saved):
        return
    for notice in _new_notices(entry):
        if notice.kind is NoticeKind.RESOLVED and not _is_over(entry.shown, notice, entry.before):
            text = f"{notice.key} ({notice.cause}) at {clock(entry.shown.now)}"
            breach("nothing is resolved for want of data", text)


def _is_over(shown: Shown, notice: Notice, before: VmState | None) -> bool:
    target = shown.target
    if target is None:
        since = None if before is None else before.gone_since
        long_gone = timedelta(seconds=shown.policy.forget_after_seconds)
        suspect = any(freeze.cause is Cause.INVENTORY_SUSPECT for freeze in shown.fleet.freezes)
        return since is not None and shown.now - since >= long_gone and not suspect
    if target.power in (PowerState.STOPPED, PowerState.DEALLOCATED):
        return True
    seen = shown.newest()
    if target.power is not PowerState.RUNNING or seen is None or seen.down:
        return False
    last = before.cause if before is not None else notice.cause
    if last is Cause.TELEMETRY_DELAYED and not any(one.source == "telemetry" for one in shown.reports()):
        return False
    return not (last is Cause.ENDPOINT_UNREACHABLE and shown.is_unreachable)


def check_an_open_circuit_calls_people(_held: Held, entry: Entry) -> None:
    """6: where restarts did not help and no rung is left, people hear that it was given up."""
    if not isinstance(entry, Saved) or entry.after is None or entry.shown.kind == "request":
        return
    after, shown = entry.after, entry.shown
    seen = shown.newest()
    if after.is_flapping or shown.stopped_by_silence("alerts") or shown.policy.ladder or seen is None:
        return
    if after.status is not Status.CRITICAL or after.cause is not Cause.SERVICE_DOWN:
        return
    told = () if after.incident is None else after.incident.given_up
    helps = timedelta(seconds=shown.policy.ladder_wait_seconds)
    if any(shown.now < action.at + helps for action in after.vm_actions):
        return  # its owner has just taken the ladder away: what was done may still help
    for name, unit in after.units.items():
        if unit.circuit_open and name in seen.down and name in after.subjects and name not in told:
            breach("an open circuit calls people", f"{name} of {short(shown)} at {clock(shown.now)}")


def check_a_healthy_vm_costs_no_write(_held: Held, entry: Entry) -> None:
    """9: nothing is written that says what is there already, or of a VM that was, and is, fine."""
    if not isinstance(entry, Saved) or entry.before is None or entry.after is None:
        return
    before, shown = entry.before, entry.shown
    if before == entry.after:
        breach("a healthy VM costs no write", f"{short(shown)} was written as it stood at {clock(entry.at)}")
    if shown.kind == "request" or not _is_settled(before, shown):
        return
    seen, reports = shown.newest(), shown.reports()
    sources = {one.source for one in reports}
    is_fine = (
        seen is not None
        and not any(one.down or one.starting for one in reports)
        and sources == {"endpoint", "telemetry"}
    )
    if is_fine and not shown.stopped_by_silence("both") and not _is_excused(shown):
        breach("a healthy VM costs no write", f"{short(shown)} at {clock(shown.now)}")


def _is_settled(before: VmState, shown: Shown) -> bool:
    target = shown.target
    if target is None or target.is_updating or target.power is not PowerState.RUNNING:
        return False
    quiet = (before.units, before.outbox, before.incident, before.changes, before.excused_since)
    is_same = before.instance_id == target.instance_id and before.was_reached
    is_same = is_same and before.gone_since is None and before.next_look_at is None
    reported = "" if shown.snapshot is None else shown.snapshot.report.endpoint
    is_same = (
        is_same
        and reported in ("", before.endpoint)
        and shown.clock_offset_seconds == before.clock_offset_seconds
    )
    return before.status is Status.HEALTHY and before.soft_looks == 0 and not any(quiet) and is_same


def _is_excused(shown: Shown) -> bool:
    reports = [None if shown.probe is None else shown.probe.report]
    reports.append(None if shown.snapshot is None else shown.snapshot.report)
    answered = shown.probe is not None and shown.probe.outcome is not ProbeOutcome.UNREACHABLE
    return not answered or any(one is not None and one.sample.deploy_lock is not None for one in reports)


def _new_notices(entry: Saved) -> list[Notice]:
    old = () if entry.before is None else entry.before.outbox
    return [] if entry.after is None else [one for one in entry.after.outbox if one not in old]
