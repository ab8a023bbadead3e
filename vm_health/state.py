"""What the watchdog remembers of a VM between looks, and what it decides at one. Data only, no rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from vm_health.model import Cause, Status


class NoticeKind(StrEnum):
    """Why people hear of a VM."""

    FIRED = "fired"
    GAVE_UP = "gave_up"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing people must hear. ``key`` is the same however often it is sent."""

    kind: NoticeKind
    key: str
    vm_id: str
    incident_id: str
    status: Status
    cause: Cause
    subjects: tuple[str, ...]
    reason: str
    opened_at: datetime
    at: datetime
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class UnitState:
    """Where the remediation of one unit stands.

    ``not_before`` is the moment of the next attempt while the unit is down; ``up_since`` the first look
    that saw it up after an attempt; ``command`` names the Run Command that is under way.
    """

    attempts: int = 0
    not_before: datetime | None = None
    last_attempt_at: datetime | None = None
    up_since: datetime | None = None
    circuit_open: bool = False
    command: str = ""


@dataclass(frozen=True, slots=True)
class Incident:
    """A time during which a VM needed people."""

    id: str
    opened_at: datetime
    status: Status
    cause: Cause
    subjects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VmState:
    """The hard status, the soft one on its way, units under repair, the open incident, and what is still
    to be sent (``outbox``: saved before it is queued, cleared after, so that nothing is lost between).

    ``endpoint`` is the last one that the VM reported, for the day on which it reports nothing any more;
    ``was_reached`` tells that a probe has ever had an answer, so that a missing route is not a dead VM.
    ``off_at`` is when the VM last turned out not to run: telemetry from before says nothing of it now.
    """

    status: Status = Status.UNKNOWN
    cause: Cause = Cause.OK
    subjects: tuple[str, ...] = ()
    reason: str = "never looked at"
    since: datetime | None = None
    soft_status: Status | None = None
    soft_cause: Cause | None = None
    soft_looks: int = 0
    units: Mapping[str, UnitState] = field(default_factory=lambda: MappingProxyType({}))
    incident: Incident | None = None
    sequence: int = 0
    next_look_at: datetime | None = None
    endpoint: str = ""
    was_reached: bool = False
    off_at: datetime | None = None
    outbox: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class RestartUnit:
    """Restart ``unit``: attempt number ``attempt``, to be obeyed once per ``token``."""

    unit: str
    attempt: int
    token: str


@dataclass(frozen=True, slots=True)
class LookAgain:
    """Look at this VM again at ``at``, sooner than the next tick."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Event:
    """Something that changed or was done, with its reason: a line of the VM's history."""

    kind: str
    reason: str
    at: datetime
    detail: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of one look: what to remember, what to do, and why."""

    state: VmState
    reason: str
    restarts: tuple[RestartUnit, ...] = ()
    look_again: LookAgain | None = None
    events: tuple[Event, ...] = ()
