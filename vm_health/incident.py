"""When people hear of a VM: an incident opens, worsens, gives up, resolves; never for want of data."""

from __future__ import annotations

import hashlib
from datetime import datetime

from vm_health.model import Status
from vm_health.names import vm_key
from vm_health.state import Incident, Notice, NoticeKind, VmState


def follow_incident(
    state: VmState, vm_id: str, sequence: int, gave_up: tuple[str, ...], attempts: int, now: datetime
) -> tuple[Incident | None, tuple[Notice, ...]]:
    """Return the incident after a look that settled on ``state``, and what must be said about it."""
    before = state.incident
    if state.since is None or state.status is Status.MAINTENANCE:
        return before, ()
    if not state.status.needs_people:
        if before is None:
            return None, ()
        return None, (_notice(NoticeKind.RESOLVED, before, state, vm_id, "", attempts, now),)
    incident, notices = before, []
    if incident is None:
        incident = Incident(
            f"{vm_key(vm_id)[:12]}-{now:%Y%m%dT%H%M%S}-{sequence}",
            now,
            state.status,
            state.cause,
            state.subjects,
        )
    elif _is_worse(incident, state):
        subjects = tuple(sorted({*incident.subjects, *state.subjects}))
        incident = Incident(incident.id, incident.opened_at, state.status, state.cause, subjects)
    if incident != before:
        notices.append(_notice(NoticeKind.FIRED, incident, state, vm_id, _mark(incident), attempts, now))
    notices += [
        _notice(NoticeKind.GAVE_UP, incident, state, vm_id, f"{unit}:{sequence}", attempts, now)
        for unit in gave_up
    ]
    return incident, tuple(notices)


def _is_worse(incident: Incident, state: VmState) -> bool:
    if state.status is Status.UNKNOWN:
        return False
    if state.status.severity > incident.status.severity:
        return True
    same = (state.status, state.cause) == (incident.status, incident.cause)
    return same and not set(state.subjects) <= set(incident.subjects)


def _notice(
    kind: NoticeKind,
    incident: Incident,
    state: VmState,
    vm_id: str,
    mark: str,
    attempts: int,
    now: datetime,
) -> Notice:
    return Notice(
        kind=kind,
        key=":".join(part for part in (incident.id, kind.value, mark) if part),
        vm_id=vm_id,
        incident_id=incident.id,
        status=state.status,
        cause=incident.cause if kind is NoticeKind.RESOLVED else state.cause,
        subjects=incident.subjects,
        reason=state.reason,
        opened_at=incident.opened_at,
        at=now,
        attempts=attempts,
    )


def _mark(incident: Incident) -> str:
    """Tell one firing of an incident from the next: by what it says, not by when."""
    text = "|".join((incident.status, incident.cause, *incident.subjects))
    return hashlib.sha256(text.encode()).hexdigest()[:8]
