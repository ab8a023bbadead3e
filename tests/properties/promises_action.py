"""The promises on what is done to VMs. Each is a function that is asked at every entry of the chronicle.

They know what an instance was shown and what it did, and judge by the words of the design, not by the
product's own functions. A breach names its promise.
"""

from __future__ import annotations

import re
from datetime import timedelta

from tests.properties.checking import Held, actions_of, breach, clock, short, unit_of, what
from tests.properties.chronicle import Entry, Saved, Sent, Shown
from vm_health.model import Cause
from vm_health.repairs import AGENT_UNIT
from vm_health.state import UnitState

_NAME = re.compile(r"[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]{0,250}\.(service|socket|timer|mount|target|path)")
_TOLERANCE = timedelta(milliseconds=1)


def check_one_restart_for_one_intent(held: Held, entry: Entry) -> None:
    """1: what is sent was saved before, and is sent once."""
    if isinstance(entry, Saved):
        for name, unit in new_attempts(entry):
            assert unit.command is not None, f"an attempt on {name} without a token"
            held.intents.add(unit.command.token)
        held.intents |= {action.token for action in actions_of(entry.after)}
    if isinstance(entry, Sent):
        if entry.token not in held.intents:
            breach("one restart for one intent", f"{what(entry)} was sent before it was saved")
        if entry.token in held.tokens:
            breach("one restart for one intent", f"{what(entry)} was sent twice")
        held.tokens.add(entry.token)


def check_waits_are_kept(held: Held, entry: Entry) -> None:
    """1, 7: attempts are numbered on, and never nearer to each other than the backoff says."""
    if not isinstance(entry, Saved):
        return
    shown, now = entry.shown, entry.shown.now
    for name, unit in new_attempts(entry):
        if shown.kind == "request":
            continue
        before, most = unit_of(entry.before, name), shown.policy.max_attempts
        text = f"attempt {unit.attempts} on {name} of {short(shown)} at {clock(now)}"
        if unit.attempts != before.attempts + 1 or unit.attempts > most:
            breach("waits are kept", f"{text} follows attempt {before.attempts} of {most}")
        since = before.last_attempt_at if before.attempts else held.first_down.get((shown.vm_id, name))
        steps = shown.policy.backoff.steps_seconds
        wait = timedelta(seconds=steps[min(unit.attempts, len(steps)) - 1] * (1.0 - held.jitter))
        if since is None or now - since < wait - _TOLERANCE:
            after = "no look that saw it down" if since is None else clock(since)
            breach("waits are kept", f"{text}, after {after}, but the backoff says {wait}")
    _note_first_down(held, entry)


def _note_first_down(held: Held, saved: Saved) -> None:
    """Remember since when a unit has been seen down: what the first wait counts from."""
    shown = saved.shown
    if not shown.is_running or shown.kind == "request":
        return  # nobody judges units at such a look
    seen, vm_id = shown.newest(), shown.vm_id
    for (other, name), since in list(held.first_down.items()):
        is_up = seen is not None and (name in seen.up or (name == AGENT_UNIT and name not in seen.down))
        if other == vm_id and is_up and shown.now >= since:
            del held.first_down[other, name]
    silent = {AGENT_UNIT} if is_silent(shown) else set()
    for name in silent if seen is None else seen.down:
        since = held.first_down.setdefault((vm_id, name), shown.now)
        held.first_down[vm_id, name] = min(since, shown.now)  # who saves later may have begun earlier


def check_retry_after_is_kept(held: Held, entry: Entry) -> None:
    """7: where Azure said when to come again, the next attempt is not earlier."""
    if not isinstance(entry, Sent) or entry.action is not None:
        return
    key, now = (entry.shown.vm_id, entry.unit), entry.shown.now
    until = held.throttled.pop(key, now)
    if now < until and not entry.is_requested and entry.attempt > 1:
        breach("Retry-After is kept", f"{what(entry)} came before {clock(until)}")
    if entry.outcome.retry_after_seconds is not None and not entry.shown.is_disturbed:
        held.throttled[key] = now + timedelta(seconds=entry.outcome.retry_after_seconds)


def check_backoff_starts_over_only_when_stable(_held: Held, entry: Entry) -> None:
    """7: attempts are forgotten after the stable time, for a person or another machine; by nothing else."""
    if not isinstance(entry, Saved) or entry.before is None or entry.after is None:
        return
    shown, seen = entry.shown, entry.shown.newest()
    is_other = entry.before.instance_id != entry.after.instance_id or entry.after.cause is Cause.VM_GONE
    stable = timedelta(seconds=shown.policy.stable_after_seconds)
    for name, unit in entry.before.units.items():
        kept = unit_of(entry.after, name).attempts >= unit.attempts
        if kept or is_other or shown.kind == "request":
            continue
        is_stable = seen is not None and unit.up_since is not None and seen.at - unit.up_since >= stable
        if not is_stable or seen is None or name in seen.down:
            breach(
                "backoff starts over when stable", f"{name} of {short(shown)} lost {unit.attempts} attempts"
            )
    for name, unit in entry.after.units.items():
        if unit.up_since is None or unit.up_since == unit_of(entry.before, name).up_since:
            continue
        is_up = seen is not None and name not in seen.down | seen.starting
        if not is_up or (unit.last_attempt_at is not None and unit.up_since <= unit.last_attempt_at):
            breach(
                "backoff starts over when stable", f"{name} of {short(shown)} counts as up without evidence"
            )


def check_two_witnesses(held: Held, entry: Entry) -> None:
    """3: Azure says "running", and a fresh report that is newer than the last attempt says "down"; or the VM
    has long been silent to both, and then it is the agent that is restarted."""
    if not isinstance(entry, Saved):
        return
    shown = entry.shown
    _count_silent_looks(held, entry)
    for name, unit in new_attempts(entry):
        text = f"attempt {unit.attempts} on {name} of {short(shown)} at {clock(shown.now)}"
        if not shown.is_running:
            breach("two witnesses", f"{text}: Azure did not say that the VM runs")
        seen, last = shown.newest(), unit_of(entry.before, name).last_attempt_at
        if shown.kind == "request" or (seen is None and name == AGENT_UNIT and _is_known_silent(entry)):
            continue
        if seen is None:
            breach("two witnesses", f"{text}: no fresh report")
        if name not in seen.down or (last is not None and seen.at <= last):
            breach("two witnesses", f"{text}: the newest report ({seen.source}, {seen.at}) does not say so")
    if actions_of(entry.after) != actions_of(entry.before):
        seen = shown.newest()
        if not shown.is_running or (seen is None and not _is_known_silent(entry)) or (seen and not seen.down):
            breach("two witnesses", f"an action on {short(shown)} at {clock(shown.now)} without evidence")


def _is_known_silent(saved: Saved) -> bool:
    return is_silent(saved.shown) and saved.after is not None and saved.after.cause is Cause.VM_SILENT


def _count_silent_looks(held: Held, saved: Saved) -> None:
    """A VM turns silent only after enough looks in a row that neither witness answered."""
    vm_id, after, before = saved.shown.vm_id, saved.after, saved.before
    if after is None:
        held.silent_looks.pop(vm_id, None)
        return
    if saved.shown.kind == "request" or (vm_id, saved.shown.instance) in held.looked:
        return  # not a look, or a look's second write: its notices were sent, or Azure has answered
    held.looked.add((vm_id, saved.shown.instance))
    held.silent_looks[vm_id] = held.silent_looks.get(vm_id, 0) + 1 if is_silent(saved.shown) else 0
    turned = after.cause is Cause.VM_SILENT and (before is None or before.cause is not Cause.VM_SILENT)
    if turned and held.silent_looks[vm_id] < saved.shown.policy.confirm_silent:
        breach("two witnesses", f"{short(saved.shown)} is silent after {held.silent_looks[vm_id]} looks")


def check_holds_are_kept(held: Held, entry: Entry) -> None:
    """4: nothing while frozen, silenced, flapping, observed or locked by a deployment."""
    if not isinstance(entry, Sent):
        return
    shown, target, why = entry.shown, entry.shown.target, ""
    if target is None or target.tags.get("watchdog") != "on" or not held.may_act:
        why = "it is only observed"
    elif not shown.is_running:
        why = f"the VM is {target.power}"
    elif shown.frozen:
        why = "all action was frozen"
    elif shown.stopped_by_silence("action"):
        why = "action was silenced"
    elif shown.row is not None and shown.row.is_flapping and not entry.is_requested:
        why = "the VM was flapping"
    elif _is_locked(shown) and not entry.is_requested:
        why = "a deployment held the VM"
    if why:
        breach("holds are kept", f"{what(entry)}, but {why}")


def _is_locked(shown: Shown) -> bool:
    """Whether the endpoint's report asks to be left alone, and has not asked for too long."""
    report = None if shown.probe is None else shown.probe.report
    lock = None if report is None else report.sample.deploy_lock
    since = None if shown.row is None else shown.row.excused_since
    is_heeded = since is None or (shown.now - since).total_seconds() < shown.policy.excuse_max_seconds
    seen = shown.newest()
    return (
        lock is not None
        and shown.now < lock.until
        and is_heeded
        and seen is not None
        and seen.source == "endpoint"
    )


def check_open_circuits_stay_open(held: Held, entry: Entry) -> None:
    """6: a unit whose circuit is open is not restarted until it was up, or a person asked."""
    if not isinstance(entry, Saved):
        return
    vm_id, after = entry.shown.vm_id, {} if entry.after is None else dict(entry.after.units)
    is_request = entry.shown.kind == "request"
    if (
        entry.before is not None
        and entry.after is not None
        and entry.before.instance_id != entry.after.instance_id
    ):
        held.open_circuits = {of for of in held.open_circuits if of[0] != vm_id}
    for name, _unit_state in new_attempts(entry):
        if (vm_id, name) in held.open_circuits and not is_request:
            breach("open circuits stay open", f"{name} of {short(entry.shown)} at {clock(entry.shown.now)}")
    for name in {name for of, name in held.open_circuits if of == vm_id} | set(after):
        unit = after.get(name)
        if unit is not None and unit.circuit_open:
            held.open_circuits.add((vm_id, name))
        elif unit is None or unit.up_since is not None or is_request:
            held.open_circuits.discard((vm_id, name))
        elif (vm_id, name) in held.open_circuits:
            breach("open circuits stay open", f"that of {name} of {short(entry.shown)} closed by itself")


def check_vm_actions_are_rare(held: Held, entry: Entry) -> None:
    """8: at most one action on a whole VM an hour and two a day, and only what its owner allows."""
    if not isinstance(entry, Sent) or entry.action is None:
        return
    policy, now = entry.shown.policy, entry.shown.now
    every = held.vm_actions.setdefault(entry.shown.vm_id, [])
    every.append(now)
    hour = sum(now - one < timedelta(hours=1) for one in every)
    day = sum(now - one < timedelta(days=1) for one in every)
    if hour > policy.vm_actions_an_hour or day > policy.vm_actions_a_day:
        breach("VM actions are rare", f"{what(entry)}: {hour} within an hour, {day} within a day")
    if entry.action not in policy.ladder:
        breach("VM actions are rare", f"{what(entry)}: the policy allows {policy.ladder}")


def check_only_names_reach_the_runner(_held: Held, entry: Entry) -> None:
    """11: nothing but the name of a systemd unit."""
    if isinstance(entry, Sent) and entry.action is None and not _NAME.fullmatch(entry.unit):
        breach("only unit names reach the runner", repr(entry.unit))


def check_history_says_why(_held: Held, entry: Entry) -> None:
    """12: before a restart is sent, history tells of it: its token and evidence, or who asked."""
    if not isinstance(entry, Sent):
        return
    kinds = {event.kind: event for event in entry.told}
    event = kinds.get("vm_action" if entry.action else "requested" if entry.is_requested else "restart")
    if event is None or not event.reason:
        breach("history says why", f"{what(entry)}: history knows only {sorted(kinds)}")
    if entry.is_requested and not (event.detail.get("by") and event.detail.get("why")):
        breach("history says why", f"{what(entry)}: not who asked and why")
    if not entry.is_requested and "running" not in str(event.detail.get("evidence")):
        breach("history says why", f"{what(entry)}: no evidence")


def new_attempts(saved: Saved) -> list[tuple[str, UnitState]]:
    """The attempts that a write brought. Of two at one moment, the first one's command is gone by then."""
    if saved.after is None:
        return []
    found = list[tuple[str, UnitState]]()
    for name, unit in saved.after.units.items():
        before = unit_of(saved.before, name)
        is_other = before.last_attempt_at != unit.last_attempt_at
        is_other = is_other or (before.command is None and unit.command is not None)
        if unit.last_attempt_at == saved.shown.now and is_other:
            found.append((name, unit))
    return found


def is_silent(shown: Shown) -> bool:
    """Whether a running VM neither reported nor answered, though both were asked."""
    return shown.is_running and shown.has_telemetry and shown.is_unreachable and shown.newest() is None
