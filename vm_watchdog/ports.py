"""What the watchdog needs of the world, as Protocols. Adapters and tests' fakes implement them.

All errors that pass through here are those of ``vm_health.errors``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from vm_health.model import PowerState, ProbeResult, Snapshot
from vm_health.safety import FleetState, Slot
from vm_health.silence import Silence, Subject
from vm_health.state import (
    CommandRef,
    CommandResult,
    Event,
    Notice,
    RestartUnit,
    StartOutcome,
    VmAction,
    VmState,
)

TAG_MODE = "watchdog"
TAG_ENDPOINT = "watchdog-endpoint"
TAG_GROUP = "watchdog-group"
TAG_LADDER = "watchdog-ladder"
TAG_MAINTENANCE_UNTIL = "watchdog-maintenance-until"
CANARY_ID = "watchdog-canary"  # stands where a VM's id does in the watchdog's own telemetry events


@dataclass(frozen=True, slots=True)
class Target:
    """A VM that its owner opted in by tag. ``vm_id`` is its ARM id, in lower case as the names of ``tags``.

    ``instance_id`` is ARM's own id of this very machine (``vmId``); ``is_updating`` that ARM changes it now.
    """

    vm_id: str
    name: str
    resource_group: str
    subscription_id: str
    location: str
    power: PowerState
    tags: Mapping[str, str] = field(default_factory=dict)
    instance_id: str = ""
    is_updating: bool = False

    @property
    def is_running(self) -> bool:
        """Whether Azure says that it runs."""
        return self.power is PowerState.RUNNING

    @property
    def group(self) -> str:
        """The group that budgets count in: the tag ``watchdog-group``, else the resource group."""
        return (self.tags.get(TAG_GROUP) or self.resource_group).lower()

    @property
    def subject(self) -> Subject:
        """What silences and policy match against."""
        return Subject(self.name, self.group, self.tags)

    @property
    def may_act(self) -> bool:
        """Whether the owner allows action (``watchdog=on``), not only watching (``observe``)."""
        return self.tags.get(TAG_MODE, "").lower() == "on"


class Inventory(Protocol):
    """Which VMs there are, from Azure Resource Manager."""

    async def list_targets(self) -> Sequence[Target]: ...

    async def get_target(self, vm_id: str) -> Target | None:
        """Return one VM, None where it is gone or not opted in."""
        ...


@dataclass(frozen=True, slots=True)
class FleetTelemetry:
    """The answer of the one query; ``available`` False where it failed or was partial.

    ``canary_at`` is when the watchdog's newest own event was sent, None where none is in the window.
    """

    snapshots: Mapping[str, Snapshot] = field(default_factory=dict)
    canary_at: datetime | None = None
    available: bool = True


class Telemetry(Protocol):
    """What the VMs reported, by VM id."""

    async def newest_snapshots(self) -> FleetTelemetry:
        """Return the newest snapshot of every VM, and of the watchdog's own event.

        Raises:
            TransientError: the answer is missing or partial: nothing may be concluded from it.
        """
        ...


class Prober(Protocol):
    """Looks at a VM's endpoint from outside; never raises: what went wrong is the result."""

    async def probe(self, vm_id: str, endpoint: str) -> ProbeResult: ...


@dataclass(frozen=True, slots=True)
class Stored:
    """A VM's state with the ETag that a change must name."""

    state: VmState
    etag: str


@dataclass(frozen=True, slots=True)
class TickRecord:
    """What the last tick did, for whoever watches the watchdog."""

    started_at: datetime
    finished_at: datetime
    targets: int
    statuses: Mapping[str, int] = field(default_factory=dict)
    troubles: tuple[str, ...] = ()


class StateStore(Protocol):
    """Remembers VM states (with optimistic concurrency), their history and the last tick."""

    async def load(self, shard: int, shard_count: int) -> Mapping[str, Stored]: ...

    async def load_one(self, vm_id: str) -> Stored | None: ...

    async def save(self, vm_id: str, state: VmState, etag: str | None) -> str:
        """Write the state and return its new ETag; ``etag`` None means: it must not be there yet.

        Raises:
            ConflictError: somebody else changed it first.
        """
        ...

    async def delete(self, vm_id: str, etag: str) -> None:
        """Forget a VM; its history stays.

        Raises:
            ConflictError: somebody else changed it first.
        """
        ...

    async def count_bad(self, turned_since: datetime) -> BadCount:
        """Count the VMs that are CRITICAL: a filtered scan, for looks that know only one VM."""
        ...

    async def append_events(self, vm_id: str, events: Sequence[Event], offset: int = 0) -> None:
        """Add to a VM's history; ``offset`` counts the events of the same moment that were added before.

        ``vm_id`` may be FLEET_ID: the history of the fleet itself.
        """
        ...

    async def read_events(
        self, vm_id: str, limit: int, since: datetime | None = None, until: datetime | None = None
    ) -> Sequence[Event]:
        """Return a VM's history, newest first, from ``since`` to ``until`` (both included)."""
        ...

    async def find_events(
        self, kinds: Collection[str], since: datetime, limit: int
    ) -> Sequence[tuple[str, Event]]:
        """Return events of some kinds of all VMs (a scan) with the VM's id, newest first."""
        ...

    async def save_tick(self, record: TickRecord) -> None: ...

    async def load_tick(self) -> TickRecord | None: ...


@dataclass(frozen=True, slots=True)
class BadCount:
    """How many VMs are CRITICAL, and how many of them turned so lately."""

    bad: int
    turned: int


class FleetStore(Protocol):
    """Remembers the fleet as a whole: freezes, and who is in restart. Optimistic concurrency throughout."""

    async def load_fleet(self) -> tuple[FleetState, str | None]:
        """Return the fleet's state and its ETag; a fresh one and None before the first save."""
        ...

    async def save_fleet(self, state: FleetState, etag: str | None) -> str:
        """Write it and return the new ETag.

        Raises:
            ConflictError: somebody else changed it first.
        """
        ...

    async def load_slots(self, group: str) -> tuple[Sequence[Slot], str | None]:
        """Return who is in restart in a group, and the ETag; nobody and None before the first save."""
        ...

    async def save_slots(self, group: str, slots: Sequence[Slot], etag: str | None) -> str:
        """Write it and return the new ETag.

        Raises:
            ConflictError: somebody else changed it first.
        """
        ...


class SilenceStore(Protocol):
    """Remembers silences. Ended ones may stay for a while; callers judge by time."""

    async def list_silences(self) -> Sequence[Silence]: ...

    async def add_silence(self, silence: Silence) -> None:
        """Remember it.

        Raises:
            ConflictError: there is one with this id.
        """
        ...

    async def end_silence(self, silence_id: str, at: datetime) -> Silence | None:
        """Let it end at ``at``; return it as it then stands, None where there is none or it ended before."""
        ...


class WorkQueue(Protocol):
    """Work for later or for another instance."""

    async def send_recheck(self, vm_id: str, delay_seconds: float) -> None: ...

    async def send_shard(self, shard: int, shard_count: int) -> None: ...

    async def send_alert(self, notice: Notice) -> None: ...


@dataclass(frozen=True, slots=True)
class Work:
    """A message that was taken from a queue and must be finished or given back. ``dequeue_count`` counts
    how often it was taken, this time included; ``receipt`` is whatever the queue needs to finish it."""

    queue: str
    text: str
    dequeue_count: int
    receipt: object


class WorkSource(Protocol):
    """The receiving end of the queues, for hosts without Azure Functions."""

    async def take(self, queue: str, most: int, hidden_seconds: float) -> Sequence[Work]:
        """Take messages; those that are not finished within ``hidden_seconds`` come back by themselves."""
        ...

    async def finish(self, work: Work) -> None:
        """Delete a message whose work is done."""
        ...

    async def put_back(self, work: Work, delay_seconds: float) -> None:
        """Let a message be seen again after ``delay_seconds``."""
        ...

    async def poison(self, work: Work) -> None:
        """Move a message that keeps failing to the queue's poison queue."""
        ...


class CommandRunner(Protocol):
    """Restarts units through Run Command; starts and returns, never waits."""

    async def start_restart(self, target: Target, restart: RestartUnit) -> StartOutcome:
        """Ask for a restart; how that went is the result, never an exception."""
        ...

    async def read_result(self, target: Target, command: CommandRef) -> CommandResult | None:
        """Return a finished command's result, None while it runs. It stays there until it is discarded.

        A command that is not there (any more) is finished too: it did not succeed, and says so.
        """
        ...

    async def discard(self, target: Target, command: CommandRef) -> None:
        """Clear away a finished command whose result is saved. Failing at that is no error: what is left is
        cleared when it is in the way."""
        ...

    async def cancel(self, target: Target, command: CommandRef) -> CommandResult:
        """End a command that has hung, where its lane allows it; says what became of it."""
        ...


class VmActuator(Protocol):
    """Restarts or redeploys whole VMs; starts and returns, never waits."""

    async def start(self, target: Target, action: VmAction) -> StartOutcome:
        """Ask for it; how that went is the result, never an exception."""
        ...


class ActivityLog(Protocol):
    """Who did what to a VM, as Azure's activity log tells."""

    async def who_stopped(self, target: Target, now: datetime) -> str:
        """Return who stopped or deallocated the VM last, within a day; empty where nothing tells."""
        ...


class Canary(Protocol):
    """The watchdog's own senses: an event sent into telemetry, and a look at a known address."""

    @property
    def sends(self) -> bool:
        """Whether own events are sent, so that one must come back through telemetry."""
        ...

    async def send(self, now: datetime) -> None:
        """Send one own event. Failing is no error of the tick: the event then does not come back."""
        ...

    async def egress_problem(self) -> str:
        """Say what is wrong with the way out, empty where a known address answered or none is set."""
        ...


class DeadMan(Protocol):
    """Tells an outside monitor that a tick has completed."""

    async def ping(self, record: TickRecord) -> None:
        """Ping it; a failure is logged, never raised."""
        ...


class AlertSender(Protocol):
    """Delivers a notice to people.

    Raises:
        TransientError: the queue should try again.
        PermanentError: it never will work.
    """

    async def send(self, notice: Notice) -> None: ...
