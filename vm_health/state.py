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
    """Why people hear of a VM, or of the watchdog itself (frozen, thawed)."""

    FIRED = "fired"
    REMINDER = "reminder"
    GAVE_UP = "gave_up"
    FLAPPING = "flapping"
    RESOLVED = "resolved"
    FROZEN = "frozen"
    THAWED = "thawed"


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing people must hear. ``key`` is the same however often it is sent.

    ``vm_id`` is :data:`FLEET_ID` where it speaks of the fleet and not of one VM. ``steps`` tells, unit by
    unit, what was done and what comes next.
    """

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
    steps: tuple[str, ...] = ()


FLEET_ID = "fleet"


class Lane(StrEnum):
    """Which Run Command carried a restart: the managed one (v2) or the action (v1)."""

    MANAGED = "managed"
    ACTION = "action"
    NONE = "none"


class StartKind(StrEnum):
    """How asking Azure for something went. Only STARTED means that something runs."""

    STARTED = "started"
    BUSY = "busy"
    NOT_RUNNING = "not_running"
    AGENT_NOT_READY = "agent_not_ready"
    THROTTLED = "throttled"
    FORBIDDEN = "forbidden"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class StartOutcome:
    """The answer to a restart request, with its reason in words.

    ``operation`` is the path at which an action command's result can be asked for.
    """

    kind: StartKind
    detail: str
    lane: Lane = Lane.MANAGED
    retry_after_seconds: float | None = None
    operation: str = ""


@dataclass(frozen=True, slots=True)
class CommandRef:
    """A Run Command whose result is still to be read. Lane NONE: it is about to be started, or whoever did so
    could not note by which lane."""

    token: str
    lane: Lane = Lane.MANAGED
    operation: str = ""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a finished Run Command said; ``result`` is the agent's own word, not to be trusted further."""

    succeeded: bool
    detail: str
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UnitState:
    """Where the remediation of one unit stands.

    ``not_before`` is the moment of the next attempt while the unit is down; ``up_since`` the first look
    that saw it up after an attempt; ``command`` is the Run Command that is under way; ``held`` says why an
    attempt that was due was not made (its history is written once for each reason).
    """

    attempts: int = 0
    not_before: datetime | None = None
    last_attempt_at: datetime | None = None
    up_since: datetime | None = None
    circuit_open: bool = False
    command: CommandRef | None = None
    held: str = ""


@dataclass(frozen=True, slots=True)
class Incident:
    """A time during which a VM needed people.

    ``told_at`` is when they last heard of it, None: not yet; ``seen`` marks what they were told of, so that
    only news is told again; ``given_up`` names the units whose end of the road they heard of.
    """

    id: str
    opened_at: datetime
    status: Status
    cause: Cause
    subjects: tuple[str, ...]
    told_at: datetime | None = None
    seen: tuple[str, ...] = ()
    given_up: tuple[str, ...] = ()


class VmActionKind(StrEnum):
    """The rungs above restarting a unit."""

    RESTART = "vm-restart"
    REDEPLOY = "redeploy"


@dataclass(frozen=True, slots=True)
class VmAction:
    """A whole VM restarted or redeployed: decided at ``at``, known by ``token``."""

    kind: VmActionKind
    at: datetime
    token: str


@dataclass(frozen=True, slots=True)
class VmState:
    """The hard status, the soft one on its way, units under repair, the open incident, and what is still
    to be sent (``outbox``: saved before it is queued, cleared after, so that nothing is lost between).

    ``endpoint`` is the last one that the VM reported, for the day on which it reports nothing any more;
    ``was_reached`` tells that a probe has ever had an answer, so that a missing route is not a dead VM.
    ``off_at`` is when the VM last turned out not to run: telemetry from before says nothing of it now.
    ``back_at`` is when it was seen to run again: its telemetry may still be on its way.
    ``changes`` holds the last looks, newest last, "1" where the status turned from fine to bad or back.
    ``vm_actions`` are the last restarts of the whole VM. ``clock_offset_seconds`` is by how much the VM's
    clock is behind. ``excused_since`` is since when the VM itself, or an update of it, asks to leave it
    alone. ``gone_since`` is since when no inventory shows it.
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
    back_at: datetime | None = None
    outbox: tuple[Notice, ...] = ()
    changes: str = ""
    is_flapping: bool = False
    vm_actions: tuple[VmAction, ...] = ()
    instance_id: str = ""
    clock_offset_seconds: float = 0.0
    excused_since: datetime | None = None
    gone_since: datetime | None = None


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
class Hold:
    """Why no action may be taken now, though one is due. ``kind`` is one word of where that comes from:
    observe, frozen, silenced, flapping, budget."""

    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of one look: what to remember, what to do, and why.

    ``wants_action`` tells that something is due, whether it is done or held; a caller that has not yet asked
    whether action is allowed asks then and decides again.
    """

    state: VmState
    reason: str
    restarts: tuple[RestartUnit, ...] = ()
    vm_action: VmAction | None = None
    look_again: LookAgain | None = None
    events: tuple[Event, ...] = ()
    wants_action: bool = False
