"""In-memory fakes of the watchdog's ports, and a world that wires them.

They keep the ports' promises (the contract suites in ``component`` hold them against the real adapters),
write down every effect in one journal, and can crash right before a chosen one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from tests.builders import NOW, UNREACHABLE, a_report, a_snapshot, a_target, a_vm_id, answers, at
from vm_health.errors import ConflictError, NotFoundError, TransientError, WatchdogError
from vm_health.model import HealthReport, PowerState, ProbeOutcome, ProbeResult, Snapshot, Status
from vm_health.names import vm_key
from vm_health.policy import Policy
from vm_health.state import Event, Notice, RestartUnit, VmState
from vm_health.state_codec import decode_state, encode_state
from vm_watchdog.app import Watchdog
from vm_watchdog.look import Ports
from vm_watchdog.ports import CommandResult, StartKind, StartOutcome, Stored, Target, TickRecord
from vm_watchdog.tick import PARTITIONS, TickOptions, run_recheck, run_tick


class Crash(Exception):  # noqa: N818 - it is not an error that anybody handles
    """The process ends here."""


class Journal:
    """Every effect in order; ``crash_at`` is the start of the entry that is not reached any more."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self.crash_at = ""

    def add(self, entry: str) -> None:
        """Write down an effect that is about to happen."""
        if self.crash_at and entry.startswith(self.crash_at):
            raise Crash(entry)
        self.entries.append(entry)

    def take(self) -> list[str]:
        """Return what was written since the last time."""
        taken, self.entries = self.entries, []
        return taken


class Clock:
    """Time as the test says."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


class FakeInventory:
    """VMs by id; ``error`` is raised instead of an answer."""

    def __init__(self) -> None:
        self.targets: dict[str, Target] = {}
        self.error: Exception | None = None

    async def list_targets(self) -> Sequence[Target]:
        if self.error is not None:
            raise self.error
        return list(self.targets.values())

    async def get_target(self, vm_id: str) -> Target | None:
        if self.error is not None:
            raise self.error
        return self.targets.get(vm_id)


class FakeTelemetry:
    """Snapshots by VM id; ``error`` is raised instead of an answer; ``queries`` counts."""

    def __init__(self) -> None:
        self.snapshots: dict[str, Snapshot] = {}
        self.error: WatchdogError | None = None
        self.queries = 0

    async def newest_snapshots(self) -> Mapping[str, Snapshot]:
        self.queries += 1
        if self.error is not None:
            raise self.error
        return dict(self.snapshots)


class FakeProber:
    """Results by endpoint; one that nobody serves is unreachable, an exception is raised."""

    def __init__(self) -> None:
        self.results: dict[str, ProbeResult | Exception] = {}
        self.probed: list[str] = []

    async def probe(self, vm_id: str, endpoint: str) -> ProbeResult:
        self.probed.append(endpoint)
        result = self.results.get(endpoint, UNREACHABLE)
        if isinstance(result, Exception):
            raise result
        if result.report is not None and result.report.vm_id not in ("", vm_id):
            return ProbeResult(ProbeOutcome.UNREACHABLE, "the endpoint answers for another VM")
        return result


class FakeStore:
    """States as text with ETags, as the table holds them."""

    def __init__(self, journal: Journal | None = None) -> None:
        self._journal = journal or Journal()
        self._rows: dict[str, tuple[str, int]] = {}
        self._events: dict[str, list[Event]] = {}
        self._tick: TickRecord | None = None
        self._writes = 0
        self.error: WatchdogError | None = None

    async def load(self, shard: int, shard_count: int) -> Mapping[str, Stored]:
        self._check()
        width = PARTITIONS // shard_count
        partitions = range(shard * width, (shard + 1) * width)
        return {vm_id: self._stored(vm_id) for vm_id in self._rows if int(vm_key(vm_id)[0], 16) in partitions}

    async def load_one(self, vm_id: str) -> Stored | None:
        self._check()
        return self._stored(vm_id) if vm_id in self._rows else None

    async def save(self, vm_id: str, state: VmState, etag: str | None) -> str:
        text = encode_state(state)
        self._journal.add(
            f"save with {len(state.outbox)} notices" if state.outbox else "save, nothing to send"
        )
        row = self._rows.get(vm_id)
        if etag is not None and row is None:
            raise NotFoundError("no such row")
        if (etag is None) != (row is None) or (row is not None and etag != str(row[1])):
            raise ConflictError("somebody else was first")
        self._writes += 1
        self._rows[vm_id] = (text, self._writes)
        return str(self._writes)

    def touch(self, vm_id: str) -> None:
        """Write the row again, as another instance would."""
        self._writes += 1
        self._rows[vm_id] = (self._rows[vm_id][0], self._writes)

    async def append_events(self, vm_id: str, events: Sequence[Event], offset: int = 0) -> None:
        if not events:
            return
        self._journal.add("events " + ", ".join(event.kind for event in events))
        for event in events:
            detail = json.loads(json.dumps(dict(event.detail), default=str))
            self._events.setdefault(vm_id, []).append(replace(event, detail=detail))

    async def read_events(self, vm_id: str, limit: int) -> Sequence[Event]:
        events = self._events.get(vm_id, [])
        ordered = sorted(enumerate(events), key=lambda pair: (pair[1].at, pair[0]), reverse=True)
        return [event for _, event in ordered][:limit]

    async def save_tick(self, record: TickRecord) -> None:
        self._journal.add("tick record")
        self._tick = record

    async def load_tick(self) -> TickRecord | None:
        self._check()
        return self._tick

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    def _stored(self, vm_id: str) -> Stored:
        text, etag = self._rows[vm_id]
        return Stored(decode_state(text), str(etag))


class FakeQueue:
    """What was queued; ``errors`` are raised, one a kind of message."""

    def __init__(self, journal: Journal | None = None) -> None:
        self._journal = journal or Journal()
        self.rechecks: list[tuple[str, float]] = []
        self.shards: list[tuple[int, int]] = []
        self.alerts: list[Notice] = []
        self.errors: dict[str, WatchdogError] = {}
        self.meanwhile: Callable[[], None] = lambda: None  # what others do while an alert is being sent

    async def send_recheck(self, vm_id: str, delay_seconds: float) -> None:
        self._send("recheck", f"recheck in {delay_seconds:g} s")
        self.rechecks.append((vm_id, delay_seconds))

    async def send_shard(self, shard: int, shard_count: int) -> None:
        self._send("shard", f"shard {shard} of {shard_count}")
        self.shards.append((shard, shard_count))

    async def send_alert(self, notice: Notice) -> None:
        self._send("alert", f"alert {notice.kind}")
        self.alerts.append(notice)
        self.meanwhile()

    def _send(self, kind: str, entry: str) -> None:
        if kind in self.errors:
            raise self.errors[kind]
        self._journal.add(entry)


class FakeRunner:
    """Restarts that were asked for; ``outcome`` is the answer, ``results`` what commands said by token."""

    def __init__(self, journal: Journal | None = None) -> None:
        self._journal = journal or Journal()
        self.outcome = StartOutcome(StartKind.STARTED, "restart sent")
        self.restarts: list[tuple[str, RestartUnit]] = []
        self.results: dict[str, CommandResult | WatchdogError] = {}

    async def start_restart(self, target: Target, restart: RestartUnit) -> StartOutcome:
        self._journal.add(f"restart {restart.unit}")
        self.restarts.append((target.vm_id, restart))
        return self.outcome

    async def take_result(self, target: Target, token: str) -> CommandResult | None:
        result = self.results.pop(token, None)
        if isinstance(result, WatchdogError):
            raise result
        return result


class FakeAlerts:
    """Notices that were delivered; ``error`` is raised instead."""

    def __init__(self) -> None:
        self.sent: list[Notice] = []
        self.error: WatchdogError | None = None

    async def send(self, notice: Notice) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append(notice)


@dataclass
class World:
    """A fleet, a clock and a watchdog over fakes."""

    policy: Policy = field(default_factory=Policy)
    shard_size: int = 500
    clock: Clock = field(default_factory=Clock)
    journal: Journal = field(default_factory=Journal)

    def __post_init__(self) -> None:
        self.inventory = FakeInventory()
        self.telemetry = FakeTelemetry()
        self.prober = FakeProber()
        self.store = FakeStore(self.journal)
        self.queue = FakeQueue(self.journal)
        self.runner = FakeRunner(self.journal)
        self.alerts = FakeAlerts()
        self.ports = Ports(
            self.inventory, self.telemetry, self.prober, self.store, self.queue, self.runner, self.alerts
        )

    @property
    def options(self) -> TickOptions:
        return TickOptions(self.policy, self.clock, self.shard_size)

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


def unavailable() -> TransientError:
    """What a failed query raises."""
    return TransientError("the fleet query: 504")


async def a_watched_vm(policy: Policy | None = None, status: Status = Status.HEALTHY) -> World:
    """A world with one VM, web-1, that a first tick at second -60 found fine."""
    world = World(policy or Policy())
    world.add_vm()
    world.all_is_fine()
    await world.tick(-60)
    assert (await world.state()).status is status
    world.journal.take()
    return world
