"""What the watchdog remembers of the fleet as a whole, and what it sees of it. Data only, no rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from vm_health.model import Cause
from vm_health.state import Event, Notice

FLEET_SCOPE = "fleet"


@dataclass(frozen=True, slots=True)
class SafetyPolicy:
    """Limits for the fleet as a whole.

    Args:
        mass_failure_percent: more VMs than this share turning bad within the window freezes action.
        mass_failure_min_vms: fewer bad VMs than this are never a mass failure, whatever their share.
        mass_failure_window_seconds: how far back a VM counts as "turned bad just now".
        stale_min_vms: "stale for all" is judged from this many running VMs on.
        inventory_settles_seconds: an empty or halved inventory that lasts this long is the new truth.
    """

    mass_failure_percent: float = 30.0
    mass_failure_min_vms: int = 3
    mass_failure_window_seconds: float = 120.0
    stale_min_vms: int = 2
    inventory_settles_seconds: float = 1800.0


@dataclass(frozen=True, slots=True)
class Freeze:
    """Why all action is stopped; ``scope`` is ``fleet`` or the shard that judged.

    ``since`` and ``incident_id`` are the cause's: a second scope with the same cause joins the incident.
    """

    cause: Cause
    reason: str
    since: datetime
    incident_id: str
    scope: str = FLEET_SCOPE


@dataclass(frozen=True, slots=True)
class FleetState:
    """What is remembered of the fleet. ``vm_count`` is the inventory that is believed, ``groups`` the number
    of VMs a group; ``thawed_until`` is until when a person has overruled all freezes (``thawed_by``);
    ``telemetry_failing_since`` is since when no query was answered, ``inventory_failing_since`` since when
    no list of VMs was."""

    vm_count: int = 0
    shrunk_since: datetime | None = None
    groups: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    freezes: tuple[Freeze, ...] = ()
    canary_was_seen: bool = False
    telemetry_failing_since: datetime | None = None
    inventory_failing_since: datetime | None = None
    thawed_until: datetime | None = None
    thawed_by: str = ""
    sequence: int = 0
    outbox: tuple[Notice, ...] = ()

    def frozen(self, now: datetime) -> str:
        """Say why nobody may act at ``now``; empty where all is free."""
        if self.thawed_until is not None and now < self.thawed_until:
            return ""
        return "; ".join(freeze.reason for freeze in self.freezes)


@dataclass(frozen=True, slots=True)
class Senses:
    """What one evaluation saw of the fleet before it judged single VMs. None: not judged by this evaluation.

    Args:
        scope: ``fleet``, or ``shard 3 of 8``.
        vm_count: VMs in the inventory.
        groups: VMs a group.
        running: running VMs that ever reported telemetry; ``fresh`` of them have a snapshot that isn't stale.
        telemetry_available: False where the query failed or was partial.
        telemetry_failing_seconds: for how long no query was answered; one that fails once is no blindness.
        canary_age_seconds: age of the newest own event that came back through telemetry; None: none came.
        canary_is_sent: whether own events are sent at all.
        egress_problem: what the watchdog's own probe of a known address said, empty where it went well.
    """

    scope: str = FLEET_SCOPE
    vm_count: int | None = None
    groups: Mapping[str, int] | None = None
    running: int | None = None
    fresh: int = 0
    telemetry_available: bool = True
    telemetry_failing_seconds: float = 0.0
    canary_age_seconds: float | None = None
    canary_is_sent: bool = False
    egress_problem: str = ""


@dataclass(frozen=True, slots=True)
class FleetDecision:
    """The fleet's next state and what to write into its history."""

    state: FleetState
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Slot:
    """A VM in restart, until it is given back or ``until`` has passed. ``vm`` is the VM's key."""

    vm: str
    until: datetime
