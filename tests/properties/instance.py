"""One instance of the watchdog at work: what it has been shown so far, and the clock that it decides by."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from tests.properties.chronicle import Shown
from tests.properties.sim_ports import ports_of
from vm_health.fleet import FleetState
from vm_health.model import Cause, ProbeResult
from vm_health.silence import Silence
from vm_health.state import VmState
from vm_watchdog.ports import FleetTelemetry, Target

if TYPE_CHECKING:
    from tests.properties.scheduler import Process
    from tests.properties.world import World


class Instance:
    """What one instance knows of the world, and its ports."""

    def __init__(self, world: World, process: Process, kind: str, name: str) -> None:
        self.world = world
        self.process = process
        self.kind = kind
        self.name = name
        self.started_at: datetime | None = None
        self.targets: dict[str, Target] = {}
        self.listed = -1
        self.probes: dict[str, ProbeResult] = {}
        self.telemetry: FleetTelemetry | None = None
        self.rows: dict[str, VmState] = {}
        self.first_fleet: FleetState | None = None
        self.fleet = FleetState()
        self.silences: Sequence[Silence] = ()
        self.egress_problem = ""
        self.has_failed = False
        self.shards = 0
        self.ports = ports_of(self)

    def clock(self) -> datetime:
        """The time; the first answer is the one that it decides by. A request may begin anew."""
        if self.started_at is None or self.kind == "request":
            self.started_at = self.world.clock.now
        return self.world.clock.now

    @property
    def now(self) -> datetime:
        """The moment that it decides by."""
        return self.started_at or self.world.clock.now

    def shown(self, vm_id: str) -> Shown:
        """All that it has been shown of a VM up to here."""
        target, row = self.targets.get(vm_id), self.rows.get(vm_id)
        return Shown(
            self.name,
            self.kind,
            self.process.is_disturbed,
            self.now,
            vm_id,
            target,
            self.probes.get(vm_id),
            None if self.telemetry is None else self.telemetry.snapshots.get(vm_id),
            self.telemetry is not None and not self._disbelieves_telemetry,
            self.fleet,
            self.silences,
            row,
            0.0 if row is None else row.clock_offset_seconds,
            self.world.policy_for(self.fleet, target),
        )

    @property
    def _disbelieves_telemetry(self) -> bool:
        return any(freeze.cause is Cause.TELEMETRY_STALE_FOR_ALL for freeze in self.fleet.freezes)
