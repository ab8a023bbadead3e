"""What the watchdog needs of the world, as Protocols. Adapters and tests' fakes implement them.

All errors that pass through here are those of ``vm_health.errors``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from vm_health.model import PowerState, ProbeResult, Snapshot
from vm_health.state import Event, Notice, RestartUnit, VmState

TAG_MODE = "watchdog"
TAG_ENDPOINT = "watchdog-endpoint"


@dataclass(frozen=True, slots=True)
class Target:
    """A VM that its owner opted in by tag. ``vm_id`` is the lower-case ARM id."""

    vm_id: str
    name: str
    resource_group: str
    subscription_id: str
    location: str
    power: PowerState
    tags: Mapping[str, str] = field(default_factory=dict)

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


class Telemetry(Protocol):
    """What the VMs reported, by VM id."""

    async def newest_snapshots(self) -> Mapping[str, Snapshot]:
        """Return the newest snapshot of every VM.

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

    async def append_events(self, vm_id: str, events: Sequence[Event], offset: int = 0) -> None:
        """Add to a VM's history; ``offset`` counts the events of the same moment that were added before."""
        ...

    async def read_events(self, vm_id: str, limit: int) -> Sequence[Event]:
        """Return a VM's history, newest first."""
        ...

    async def save_tick(self, record: TickRecord) -> None: ...

    async def load_tick(self) -> TickRecord | None: ...


class WorkQueue(Protocol):
    """Work for later or for another instance."""

    async def send_recheck(self, vm_id: str, delay_seconds: float) -> None: ...

    async def send_shard(self, shard: int, shard_count: int) -> None: ...

    async def send_alert(self, notice: Notice) -> None: ...


class StartKind(StrEnum):
    """How asking for a restart went. Only STARTED means that something runs on the VM."""

    STARTED = "started"
    BUSY = "busy"
    NOT_RUNNING = "not_running"
    THROTTLED = "throttled"
    FORBIDDEN = "forbidden"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class StartOutcome:
    """The answer to a restart request, with its reason in words."""

    kind: StartKind
    detail: str
    lane: str = "managed"


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a finished Run Command said; ``result`` is the agent's own word, not to be trusted further."""

    succeeded: bool
    detail: str
    result: Mapping[str, Any] = field(default_factory=dict)


class CommandRunner(Protocol):
    """Restarts units through Run Command; starts and returns, never waits."""

    async def start_restart(self, target: Target, restart: RestartUnit) -> StartOutcome: ...

    async def take_result(self, target: Target, token: str) -> CommandResult | None:
        """Return a finished command's result once and clear it away; None while it runs or is unknown."""
        ...


class AlertSender(Protocol):
    """Delivers a notice to people.

    Raises:
        TransientError: the queue should try again.
        PermanentError: it never will work.
    """

    async def send(self, notice: Notice) -> None: ...
