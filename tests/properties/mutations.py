"""Small, likely mistakes in the watchdog, each with the flavour of story that has to meet it.

A mistake that no story finds is one that would reach somebody's fleet.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutation:
    """Changes of text in one file: each old text, found exactly once, becomes the new one."""

    name: str
    flavour: str
    path: str
    edits: tuple[tuple[str, str], ...]

    def apply(self, text: str) -> str:
        """The file with the mistake; raises ``ValueError`` where a text is not there exactly once."""
        for old, new in self.edits:
            if text.count(old) != 1:
                raise ValueError(f"{self.name}: {old!r} stands {text.count(old)} times in {self.path}")
            text = text.replace(old, new)
        return text


LOOK, EVALUATION, SLOTS = "vm_watchdog/look.py", "vm_watchdog/evaluation.py", "vm_watchdog/slots.py"
SIGHT, ON_DEMAND = "vm_watchdog/sight.py", "vm_watchdog/on_demand.py"
MACHINE, VERDICT, REPAIR = "vm_health/machine.py", "vm_health/verdict.py", "vm_health/repair.py"
REPAIRS, LADDER, INCIDENT = "vm_health/repairs.py", "vm_health/ladder.py", "vm_health/incident.py"
SAFETY, FREEZES, REQUESTS = "vm_health/safety.py", "vm_health/freezes.py", "vm_health/requests.py"

_SAVE = "            etag = await ports.store.save(target.vm_id, decision.state, etag)\n"
_SEND_FIRST = (
    "        for restart in decision.restarts:\n"
    "            await ports.runner.start_restart(target, restart)\n"
)
_QUEUE = "        await _queue(ports, target, decision, now)\n"
_CLEAR = "        await ports.store.save(target.vm_id, replace(decision.state, outbox=()), etag)\n"
_HISTORY = "    await ports.store.append_events(target.vm_id, events)\n"
_SENT = "    state, answers, outcomes = await _send(ports, target, decision, now)\n"
_DUE = "    if now < state.not_before:\n"
_OLD_NEWS = (
    "    if observed_at is not None and state.last_attempt_at is not None"
    " and observed_at <= state.last_attempt_at:\n"
)


def _one(name: str, flavour: str, path: str, old: str, new: str) -> Mutation:
    return Mutation(name, flavour, path, ((old, new),))


MUTATIONS = (
    Mutation(
        "a restart is sent before its intent is saved",
        "races",
        LOOK,
        (
            (
                "        if stored is None or decision.state != stored.state:\n",
                _SEND_FIRST + "        if stored is None or decision.state != stored.state:\n",
            ),
            (
                "    for restart in decision.restarts:\n        outcome",
                "    for restart in ():\n        outcome",
            ),
        ),
    ),
    _one(
        "who lost the race for the row acts all the same",
        "races",
        LOOK,
        _SAVE,
        "            try:\n    " + _SAVE + "            except ConflictError:\n                pass\n",
    ),
    _one("the outbox is cleared before it is queued", "races", LOOK, _QUEUE, _CLEAR + _QUEUE),
    Mutation(
        "history is written after the restart", "storm", LOOK, ((_HISTORY, ""), (_SENT, _SENT + _HISTORY))
    ),
    _one(
        "every look is saved",
        "storm",
        LOOK,
        "if stored is None or decision.state != stored.state:",
        "if True:",
    ),
    _one(
        "no recheck is queued",
        "calm",
        LOOK,
        "    if decision.look_again is not None:\n",
        "    if decision.look_again is None:\n",
    ),
    Mutation(
        "what Azure answered is lost where a queue fails",
        "races",
        LOOK,
        (
            ("    try:\n        await _queue(", "    if True:\n        await _queue("),
            ("    finally:\n        # What", "    if True:\n        # What"),
        ),
    ),
    _one(
        "no slot is needed", "storm", EVALUATION, "free = one.observed.target.vm_id in holders", "free = True"
    ),
    _one(
        "holds are ignored once something is due",
        "storm",
        EVALUATION,
        "        if hold is None:\n            wanting",
        "        if True:\n            wanting",
    ),
    _one(
        "slots are given back before the VM is up",
        "storm",
        EVALUATION,
        "if _has_come_up(one) and _is_over(one):",
        "if _has_come_up(one):",
    ),
    _one(
        "a slot of a later attempt is given back",
        "races",
        SLOTS,
        "if slot.vm in ends and slot.until <= ends[slot.vm]",
        "if slot.vm in ends",
    ),
    _one(
        "slots are taken whoever was first",
        "races",
        SLOTS,
        "        except ConflictError:\n            continue\n",
        "        except ConflictError:\n            pass\n",
    ),
    _one("the budget is off by one", "storm", SAFETY, "len(held) < limit", "len(held) <= limit"),
    _one("mass failure is not judged", "storm", SAFETY, 'if is_mass else ""', 'if False else ""'),
    _one("the inventory is always believed", "storm", SAFETY, "count * 2 <= believed", "count * 2 < 0"),
    _one(
        "a blocked way out is no problem",
        "storm",
        SAFETY,
        "    if senses.egress_problem:\n",
        "    if False:\n",
    ),
    _one(
        "a freeze is set and not told",
        "storm",
        FREEZES,
        "outbox=(*state.outbox, _notice(NoticeKind.FROZEN, freeze, reason, now)),",
        "",
    ),
    _one(
        "a freeze that lost the race is kept untold",
        "races",
        EVALUATION,
        "            await _take_theirs(ports, sight)\n            continue\n",
        "            await _take_theirs(ports, sight)\n"
        "            sight.fleet = replace(sight.fleet, freezes=decided.state.freezes)\n            return\n",
    ),
    _one(
        "silences of action alone are ignored",
        "storm",
        SIGHT,
        "if stops.action is not None:",
        "if stops.maintenance is not None:",
    ),
    _one(
        "observing watches over nothing",
        "storm",
        SIGHT,
        "if not self.options.may_act or not target.may_act:",
        "if not self.options.may_act:",
    ),
    _one(
        "people are not held by freezes",
        "races",
        ON_DEMAND,
        "    if hold is not None:\n        return hold.reason\n",
        '    if hold is not None and hold.kind != "frozen":\n        return hold.reason\n',
    ),
    _one(
        "backoff is counted from when the attempt was due",
        "calm",
        REPAIR,
        "    due = now + timedelta(seconds=wait)\n    tried",
        "    due = (state.not_before or now) + timedelta(seconds=wait)\n    tried",
    ),
    _one(
        "the first look restarts",
        "calm",
        REPAIR,
        "    if state.not_before is None:\n        wait = delay",
        "    if state.not_before is None and False:\n        wait = delay",
    ),
    _one("attempts don't wait", "calm", REPAIR, _DUE, "    if now < state.not_before and False:\n"),
    _one(
        "old news counts after an attempt",
        "storm",
        REPAIR,
        _OLD_NEWS,
        _OLD_NEWS.replace("    if ", "    if False and "),
    ),
    _one(
        "an open circuit is tried again",
        "storm",
        REPAIR,
        "    if state.circuit_open:\n",
        "    if state.circuit_open and hold is not None:\n",
    ),
    _one(
        "one attempt too many",
        "calm",
        REPAIR,
        "if state.attempts >= policy.max_attempts:\n        opened",
        "if state.attempts > policy.max_attempts:\n        opened",
    ),
    _one(
        "backoff starts over at the first look up",
        "calm",
        REPAIR,
        "if (observed_at - up_since).total_seconds() >= policy.stable_after_seconds or",
        "if True or",
    ),
    _one(
        "a stale snapshot counts",
        "storm",
        VERDICT,
        "if (now - observed_at).total_seconds() > policy.snapshot_max_age_seconds:",
        "if False:",
    ),
    _one(
        "a VM's clock ahead makes old news new",
        "storm",
        VERDICT,
        "return min(taken_at, snapshot.received_at, now)",
        "return min(taken_at, now)",
    ),
    _one(
        "a VM without a power state counts as running",
        "storm",
        VERDICT,
        "    if evidence.power is not PowerState.RUNNING or",
        "    if evidence.power not in (PowerState.RUNNING, PowerState.UNKNOWN) or",
    ),
    _one(
        "one silent look suffices",
        "storm",
        MACHINE,
        "    if verdict.cause is Cause.VM_SILENT:\n        return policy.confirm_silent\n",
        "    if verdict.cause is Cause.VM_SILENT:\n        return 1\n",
    ),
    _one(
        "late telemetry is resolved when the query fails",
        "storm",
        MACHINE,
        "    if verdict.cause is not Cause.OK:\n        return verdict\n",
        "    return verdict\n",
    ),
    _one(
        "flapping holds nothing",
        "storm",
        MACHINE,
        "    if hold is None and settled.is_flapping:\n",
        "    if False:\n",
    ),
    _one(
        "a token is used twice",
        "calm",
        REPAIRS,
        'token = f"{look.now:%Y%m%dT%H%M%S}-{vm_key(look.vm_id)[:8]}-{state.sequence + len(done.restarts)}"',
        'token = f"{vm_key(look.vm_id)[:8]}-{len(done.restarts)}"',
    ),
    _one(
        "one VM action too many",
        "storm",
        LADDER,
        "        if len(recent) >= most:\n",
        "        if len(recent) > most:\n",
    ),
    _one(
        "nobody hears of an open circuit",
        "calm",
        INCIDENT,
        "for name in telling.gave_up if name not in incident.given_up",
        "for name in ()",
    ),
    _one(
        "what gets worse is not told",
        "storm",
        INCIDENT,
        "if incident.told_at is None or is_worse or is_news:",
        "if incident.told_at is None:",
    ),
    _one(
        "unknown counts as over",
        "storm",
        INCIDENT,
        "        if state.status.needs_people:\n",
        '        if state.status.needs_people and state.status != "UNKNOWN":\n',
    ),
    _one(
        "Retry-After is not heeded",
        "storm",
        REQUESTS,
        "unit, not_before=max(unit.not_before, now + timedelta(seconds=outcome.retry_after_seconds))",
        "unit, not_before=unit.not_before",
    ),
)
