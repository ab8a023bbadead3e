"""A world: a fleet, a clock and a watchdog over in-memory fakes of its ports.

The fakes keep the ports' promises (the suites in ``tests/contracts`` hold them against the real adapters),
write down every effect in one journal, and can crash right before a chosen one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tests.builders import UNREACHABLE, a_report, a_snapshot, a_target, a_vm_id, answers, at
from tests.fake_ports import (
    Clock,
    FakeActivityLog,
    FakeActuator,
    FakeAlerts,
    FakeCanary,
    FakeDeadMan,
    FakeInventory,
    FakeProber,
    FakeQueue,
    FakeRunner,
    FakeTelemetry,
    unavailable,
)
from tests.fake_stores import Crash, FakeFleetStore, FakeSilenceStore, FakeStore, Journal
from vm_health.fleet import SafetyPolicy
from vm_health.model import HealthReport, PowerState, Status
from vm_health.policy import Policy
from vm_health.policy_book import PolicyBook
from vm_health.state import VmState
from vm_watchdog.app import Watchdog
from vm_watchdog.look import Ports
from vm_watchdog.ports import TickRecord
from vm_watchdog.sight import TickOptions
from vm_watchdog.tick import run_recheck, run_tick

__all__ = [
    "Clock",
    "Crash",
    "FakeActivityLog",
    "FakeActuator",
    "FakeAlerts",
    "FakeCanary",
    "FakeDeadMan",
    "FakeFleetStore",
    "FakeInventory",
    "FakeProber",
    "FakeQueue",
    "FakeRunner",
    "FakeSilenceStore",
    "FakeStore",
    "FakeTelemetry",
    "Journal",
    "World",
    "a_watched_vm",
    "endpoint_of",
    "unavailable",
]


@dataclass
class World:
    """A fleet, a clock and a watchdog over fakes."""

    policy: Policy = field(default_factory=Policy)
    shard_size: int = 500
    safety: SafetyPolicy = field(default_factory=SafetyPolicy)
    clock: Clock = field(default_factory=Clock)
    journal: Journal = field(default_factory=Journal)

    def __post_init__(self) -> None:
        self.inventory = FakeInventory()
        self.telemetry = FakeTelemetry()
        self.prober = FakeProber(self.clock)
        self.store = FakeStore(self.journal)
        self.fleet = FakeFleetStore(self.journal)
        self.silences = FakeSilenceStore()
        self.queue = FakeQueue(self.journal, self.clock)
        self.runner = FakeRunner(self.journal)
        self.actuator = FakeActuator(self.journal)
        self.activity = FakeActivityLog()
        self.canary = FakeCanary(self.telemetry)
        self.dead_man = FakeDeadMan()
        self.alerts = FakeAlerts()
        self.ports = Ports(
            inventory=self.inventory,
            telemetry=self.telemetry,
            prober=self.prober,
            store=self.store,
            fleet=self.fleet,
            silences=self.silences,
            queue=self.queue,
            runner=self.runner,
            actuator=self.actuator,
            activity=self.activity,
            canary=self.canary,
            dead_man=self.dead_man,
            alerts=self.alerts,
        )

    @property
    def options(self) -> TickOptions:
        return TickOptions(
            PolicyBook(self.policy, safety=self.safety), self.clock, shard_size=self.shard_size
        )

    @property
    def watchdog(self) -> Watchdog:
        async def close() -> None:
            """Nothing is open."""

        return Watchdog(self.ports, self.options, 180, close)

    def add_vm(
        self,
        name: str = "web-1",
        *,
        mode: str = "on",
        power: PowerState = PowerState.RUNNING,
        probed: bool = True,
    ) -> str:
        """Add a VM, with an endpoint of its own in its tag where it is ``probed``; return its id."""
        tags = {"watchdog_endpoint": endpoint_of(name)} if probed else {}
        target = a_target(name, mode=mode, power=power, **tags)
        self.inventory.targets[target.vm_id] = target
        return target.vm_id

    def serve(self, name: str, report: HealthReport | None) -> None:
        """Let a VM's endpoint answer with ``report``; None: not at all."""
        result = UNREACHABLE if report is None else answers(replace(report, vm_id=a_vm_id(name)))
        self.prober.results[endpoint_of(name)] = result

    def report(self, name: str, report: HealthReport, age: float = 1.0) -> None:
        """Let telemetry hold ``report`` of ``age`` seconds."""
        report = replace(report, vm_id=a_vm_id(name))
        self.telemetry.snapshots[report.vm_id] = a_snapshot(
            report, age=age, received_age=age, now=self.clock.now
        )

    def all_is_fine(self, name: str = "web-1") -> None:
        """Both witnesses say so."""
        self.serve(name, a_report())
        self.report(name, a_report())

    def is_down(self, name: str = "web-1", *units: str) -> None:
        """Both witnesses say that units are down."""
        report = a_report(down=units or ("web.service",))
        self.serve(name, report)
        self.report(name, report)

    async def tick(self, seconds: float) -> TickRecord:
        """Run a tick at a moment."""
        self.clock.now = at(seconds)
        return await run_tick(self.ports, self.options)

    async def recheck(self, seconds: float, name: str = "web-1") -> None:
        """Look at one VM at a moment."""
        self.clock.now = at(seconds)
        await run_recheck(self.ports, self.options, a_vm_id(name))

    async def state(self, name: str = "web-1") -> VmState:
        """What is remembered of a VM."""
        stored = await self.store.load_one(a_vm_id(name))
        assert stored is not None
        return stored.state

    async def history(self, name: str = "web-1") -> list[str]:
        """The kinds of a VM's events, oldest first."""
        return [event.kind for event in reversed(await self.store.read_events(a_vm_id(name), 1_000))]


def endpoint_of(name: str) -> str:
    """The endpoint in a fake VM's tag."""
    return f"http://{name}.fleet.example:8080"


async def a_watched_vm(policy: Policy | None = None, status: Status = Status.HEALTHY) -> World:
    """A world with one VM, web-1, that a first tick at second -60 found fine."""
    world = World(policy or Policy())
    world.add_vm()
    world.all_is_fine()
    await world.tick(-60)
    assert (await world.state()).status is status
    world.journal.take()
    return world
