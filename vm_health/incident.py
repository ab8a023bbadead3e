"""When people hear of a VM: an incident opens, worsens, is repeated, gives up, resolves; never for want of
data, and never while a silence or flapping holds it back (what was held back is told afterwards)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from vm_health.model import Cause, Status
from vm_health.names import vm_key
from vm_health.state import Incident, Notice, NoticeKind, VmState

MAX_SUBJECTS = 20
MAX_SEEN = 50
MAX_STEPS = 10
MAX_STEP_CHARS = 300
# The query is one for the whole fleet: where it fails, the fleet's freeze tells people, once.
_FLEET_WIDE = frozenset({Cause.TELEMETRY_UNAVAILABLE})


@dataclass(frozen=True, slots=True)
class Telling:
    """What else decides whether people hear of it.

    ``gave_up`` names the units for which nothing is left to try; ``attempts`` how many restarts were made;
    ``steps`` what was done and what comes next;
    ``is_silenced`` keeps everything back but a resolution of what was told before.
    """

    vm_id: str
    now: datetime
    attempts: int = 0
    gave_up: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    is_silenced: bool = False
    reminder_seconds: float = 14_400.0


def follow_incident(before: VmState, state: VmState, telling: Telling) -> VmState:
    """Return ``state`` (the one that a look settled on) with its incident and what must be said of it."""
    kinds: list[tuple[NoticeKind, str]] = []
    incident = state.incident
    if state.is_flapping and not telling.is_silenced:
        if not before.is_flapping or incident is None or incident.told_at is None:
            kinds.append((NoticeKind.FLAPPING, f"{state.sequence}"))
            incident = replace(incident or _open(state, telling), told_at=telling.now)
    elif state.since is not None and state.status is not Status.MAINTENANCE and not state.is_flapping:
        if state.status.needs_people:
            incident, kinds = _in_trouble(incident, state, telling)
        elif incident is not None:
            kinds = [(NoticeKind.RESOLVED, "")] if incident.told_at is not None else []
            return _with_notices(replace(state, incident=None), incident, kinds, telling)
    return _with_notices(replace(state, incident=incident), incident, kinds, telling)


def _in_trouble(
    incident: Incident | None, state: VmState, telling: Telling
) -> tuple[Incident | None, list[tuple[NoticeKind, str]]]:
    if incident is None:
        if state.cause in _FLEET_WIDE:
            return None, []
        incident = _open(state, telling)
    kinds = []
    news = [mark for mark in _marks(state) if mark not in incident.seen]
    is_worse = state.status.severity > incident.status.severity
    is_news = bool(news) and state.status.severity >= incident.status.severity
    is_news = is_news and state.cause not in _FLEET_WIDE and len(incident.seen) < MAX_SEEN
    if is_worse or is_news:
        subjects = tuple(dict.fromkeys((*incident.subjects, *state.subjects)))[:MAX_SUBJECTS]
        incident = replace(incident, status=state.status, cause=state.cause, subjects=subjects)
    if telling.is_silenced:
        return incident, []
    if incident.told_at is None or is_worse or is_news:
        seen = tuple(dict.fromkeys((*incident.seen, *_marks(state))))[:MAX_SEEN]
        incident = replace(incident, told_at=telling.now, seen=seen)
        kinds.append((NoticeKind.FIRED, _digest(seen)))
    untold = tuple(name for name in telling.gave_up if name not in incident.given_up)
    if untold:
        incident = replace(incident, told_at=telling.now, given_up=(*incident.given_up, *untold)[:MAX_SEEN])
        kinds += [(NoticeKind.GAVE_UP, f"{name}:{state.sequence}") for name in untold]
    told_at = incident.told_at
    if told_at is not None and (telling.now - told_at).total_seconds() >= telling.reminder_seconds:
        incident = replace(incident, told_at=telling.now)
        kinds.append((NoticeKind.REMINDER, f"{telling.now:%Y%m%dT%H%M%S}"))
    return incident, kinds


def _open(state: VmState, telling: Telling) -> Incident:
    return Incident(
        id=f"{vm_key(telling.vm_id)[:12]}-{telling.now:%Y%m%dT%H%M%S}-{state.sequence}",
        opened_at=telling.now,
        status=state.status,
        cause=state.cause,
        subjects=state.subjects[:MAX_SUBJECTS],
    )


def _with_notices(
    state: VmState, incident: Incident | None, kinds: list[tuple[NoticeKind, str]], telling: Telling
) -> VmState:
    if incident is None or not kinds:
        return state
    notices = [_notice(kind, mark, incident, state, telling) for kind, mark in kinds]
    return replace(state, outbox=(*state.outbox, *notices), sequence=state.sequence + len(notices))


def _notice(kind: NoticeKind, mark: str, incident: Incident, state: VmState, telling: Telling) -> Notice:
    over = kind is NoticeKind.RESOLVED
    return Notice(
        kind=kind,
        key=":".join(part for part in (incident.id, kind.value, mark) if part),
        vm_id=telling.vm_id,
        incident_id=incident.id,
        status=state.status,
        cause=incident.cause if over else state.cause,
        subjects=incident.subjects,
        reason=state.reason,
        opened_at=incident.opened_at,
        at=telling.now,
        attempts=telling.attempts,
        steps=tuple(step[:MAX_STEP_CHARS] for step in telling.steps[:MAX_STEPS]),
    )


def _marks(state: VmState) -> list[str]:
    """Mark what a status says, one mark a subject: only marks not seen before are news."""
    return [
        _digest((state.status, state.cause, subject)) for subject in state.subjects[:MAX_SUBJECTS] or ("",)
    ]


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:8]
