"""A whole world in one object: the cloud, the tables, and how instances of the watchdog are run in it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from tests.builders import NOW
from tests.fakes import Clock, FakeAlerts, FakeFleetStore, FakeSilenceStore, FakeStore
from tests.properties.chronicle import Chronicle, Ended, Sent
from tests.properties.cloud import Cloud, Message
from tests.properties.instance import Instance
from tests.properties.scheduler import Process, StepLoop
from tests.properties.sim_vm import SimVm, Unit
from vm_health.errors import WatchdogError
from vm_health.fleet import FleetState, Slot
from vm_health.model import Status
from vm_health.policy import Policy
from vm_health.policy_book import PolicyBook
from vm_health.state import Event, StartKind, StartOutcome, VmActionKind, VmState
from vm_watchdog.on_demand import restart_on_request
from vm_watchdog.ports import Target
from vm_watchdog.sight import TickOptions
from vm_watchdog.tick import run_recheck, run_shard, run_tick

MOST_TAKES = 5
T = TypeVar("T")
Work = Callable[[Instance, TickOptions], Coroutine[Any, Any, Any]]


class World:
    """The fleet, Azure, the tables and a clock. ``chronicle`` holds all that happened."""

    def __init__(self, policy: Policy, shard_size: int = 500, *, may_act: bool = True) -> None:
        self.clock = Clock(NOW)
        self.cloud = Cloud(self.clock)
        self.store = FakeStore()
        self.fleet = FakeFleetStore()
        self.silences = FakeSilenceStore()
        self.sender = FakeAlerts()
        self.loop = StepLoop()
        self.chronicle = Chronicle()
        self.book = PolicyBook(policy)
        self.shard_size = shard_size
        self.may_act = may_act
        self.rows: dict[str, VmState] = {}
        self.slots: dict[str, tuple[Slot, ...]] = {}
        self.fleet_row = FleetState()
        self.is_prompt = True  # messages come when they are due
        self.is_calm = True  # nothing but units going up and down has happened
        self.next_tick = NOW
        self._told: dict[str, list[Event]] = {}
        self.met: Counter[str] = Counter()  # races, crashes and failing calls that there were
        self.wished: set[str] = set()  # restarts of units that ran, and were known to, when a person asked
        self._plain: dict[int, Policy] = {}
        self._instances = 0

    # --- what the chronicle needs ------------------------------------------------------------------------

    def tell(self, text: str) -> None:
        """Write a line of the story."""
        self.chronicle.story.append((self.clock.now, text))

    def note_event(self, event: Event) -> None:
        """Remember what history says of a token."""
        token = event.detail.get("token")
        if token:
            self._told.setdefault(str(token), []).append(event)

    def note_sent(
        self,
        me: Instance,
        target: Target,
        unit: str,
        attempt: int,
        token: str,
        action: VmActionKind | None,
        outcome: StartOutcome,
    ) -> None:
        """Write down a restart that reached Azure."""
        shown = me.shown(target.vm_id)
        slots, told = self.slots.get(target.group, ()), tuple(self._told.get(token, ()))
        stored, vm = self.rows.get(target.vm_id), self.cloud.vms.get(target.vm_id)
        was_fine = stored is None or stored.status is not Status.CRITICAL
        if me.kind == "request" and was_fine and vm is not None and vm.units.get(unit) is Unit.UP:
            self.wished.add(token)
        self.chronicle.entries.append(
            Sent(self.clock.now, shown, unit, attempt, token, action, stored, slots, told, outcome)
        )
        what = action.value if action is not None else f"restart {unit}, attempt {attempt}"
        how = "" if outcome.kind is StartKind.STARTED else f": {outcome.kind}"
        self.tell(f"{me.name}: {what} on {target.name}{how}")

    def policy_for(self, fleet: FleetState, target: Target | None) -> Policy:
        """What applies to a VM; few VMs need no jitter."""
        policy = self.book.defaults if target is None else self.book.policy_for(target.subject)
        if fleet.vm_count >= policy.jitter_from_vms:
            return policy
        plain = self._plain.get(id(policy))
        if plain is None:
            plain = replace(policy, backoff=replace(policy.backoff, jitter_fraction=0.0))
            self._plain[id(policy)] = plain
        return plain

    def after(self, seconds: float) -> datetime:
        """The moment ``seconds`` from now."""
        return self.clock.now + timedelta(seconds=seconds)

    def put(self, message: Message) -> None:
        """Put a message into a queue."""
        self.cloud.messages.append(message)

    def at_once(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what a coroutine gives that waits for nobody."""
        try:
            work.send(None)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        raise AssertionError("it waits")

    def add(self, vm: SimVm) -> None:
        """Add a VM."""
        self.cloud.vms[vm.vm_id] = vm

    # --- running the watchdog ----------------------------------------------------------------------------

    def begin(self, kind: str, work: Work, **process: Any) -> Instance:
        """Start an instance."""
        self._instances += 1
        self.clock.now += timedelta(microseconds=1)  # no two instances start in the same instant
        me = Instance(self, Process(self.loop, **process), kind, f"{kind} #{self._instances}")
        options = TickOptions(self.book, me.clock, may_act=self.may_act, shard_size=self.shard_size)
        me.process.start(work(me, options))
        return me

    def end(self, me: Instance) -> BaseException | None:
        """Let an instance come to its end; return what it raised."""
        error = me.process.finish()
        if error is not None and not isinstance(error, WatchdogError):
            self.chronicle.bugs.append(error)
        if error is None and not me.process.is_disturbed and me.kind == "tick":
            self._note_end(me)
        return error

    def run(self, kind: str, work: Work, **process: Any) -> BaseException | None:
        """Run an instance from its start to its end."""
        return self.end(self.begin(kind, work, **process))

    def _note_end(self, me: Instance) -> None:
        answered = {} if me.telemetry is None else me.telemetry.snapshots
        running = [vm_id for vm_id, target in me.targets.items() if target.is_running and vm_id in answered]
        self.chronicle.entries.append(
            Ended(
                shards=me.shards,
                now=me.now,
                believed=me.first_fleet or FleetState(),
                fleet=self.fleet_row,
                received=tuple(answered[vm_id].received_at for vm_id in running),
                listed=me.listed,
                vm_ids=frozenset(me.targets),
                egress_problem=me.egress_problem,
                has_telemetry=me.telemetry is not None,
                has_failed=me.has_failed,
                rows=dict(self.rows),
            )
        )

    # --- the host's work ---------------------------------------------------------------------------------

    def deliver(self, message: Message, *, keeps: bool = False) -> None:
        """Run the work that a message asks for; what fails comes back, as often as the queue allows."""
        if not keeps:
            self.cloud.messages.remove(message)
        kind, work = work_of(message)
        if self.run(kind, work) is not None and message.takes + 1 < MOST_TAKES:
            self.put(replace(message, visible_at=self.after(5.0), takes=message.takes + 1))

    def pass_time(self, seconds: float, *, ticks: bool = True) -> None:
        """Let time pass as usual: ticks on the minute, messages when they are due."""
        end = self.after(seconds)
        while True:
            due = min((one.visible_at for one in self.cloud.messages), default=end) if self.is_prompt else end
            moment = min(end, due, self.next_tick if ticks else end)
            self.cloud.move_to(max(moment, self.clock.now))
            if self.is_prompt:
                self.deliver_due()
            if ticks and self.next_tick <= self.clock.now:
                self.next_tick = max(self.next_tick, self.clock.now) + timedelta(seconds=60)
                self.run("tick", tick)
                self.deliver_due(only_shards=True)
            if moment >= end:
                return

    def deliver_due(self, *, only_shards: bool = False) -> None:
        """Deliver the messages that are due, those included that they cause at once."""
        for _ in range(50):
            due = [one for one in self.cloud.messages if one.visible_at <= self.clock.now]
            due = [one for one in due if not only_shards or not one.vm_id]
            if not due:
                return
            self.deliver(min(due, key=lambda one: one.visible_at))


async def tick(me: Instance, options: TickOptions) -> None:
    """The timer's work."""
    await run_tick(me.ports, options)


def work_of(message: Message) -> tuple[str, Work]:
    """What a message asks for."""

    async def recheck(me: Instance, options: TickOptions) -> None:
        await run_recheck(me.ports, options, message.vm_id)

    async def shard(me: Instance, options: TickOptions) -> None:
        await run_shard(me.ports, options, *message.shard)

    return ("recheck", recheck) if message.vm_id else ("shard", shard)


def request_of(vm_id: str, unit: str) -> Work:
    """What a person asks for."""

    async def request(me: Instance, options: TickOptions) -> None:
        await restart_on_request(me.ports, options, vm_id, unit, "alice", "it is stuck")

    return request


class Complaints(logging.Handler):
    """Collects what the watchdog logged as a look that failed for no reason that it knows: a bug."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.bugs: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take what is no error of the world."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, WatchdogError):
            self.bugs.append(error)
