"""The ports of one instance: every call is a point to be held, to fail or to die at.

What the instance is shown and what it does is written into the chronicle.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from tests.properties.chronicle import Queued
from tests.properties.cloud import Message
from tests.properties.sim_stores import Port, SimFleet, SimSilences, SimStore
from vm_health.errors import TransientError
from vm_health.model import ProbeResult
from vm_health.state import (
    CommandRef,
    CommandResult,
    Notice,
    RestartUnit,
    StartOutcome,
    VmAction,
)
from vm_watchdog.look import Ports
from vm_watchdog.ports import FleetTelemetry, Target, TickRecord

if TYPE_CHECKING:
    from tests.properties.instance import Instance


class SimInventory(Port):
    async def list_targets(self) -> Sequence[Target]:
        await self.point()
        found = self.cloud.list_targets()
        self.me.targets = {target.vm_id: target for target in found}
        self.me.listed = len(found)
        return found

    async def get_target(self, vm_id: str) -> Target | None:
        await self.point()
        target = self.cloud.get_target(vm_id)
        if target is not None:
            self.me.targets[vm_id] = target
        return target


class SimTelemetry(Port):
    async def newest_snapshots(self) -> FleetTelemetry:
        await self.point()
        self.me.telemetry = None
        found = self.cloud.telemetry()
        self.me.telemetry = found
        return found


class SimProber(Port):
    async def probe(self, vm_id: str, endpoint: str) -> ProbeResult:
        await self.point(may_fail=False)
        found = self.cloud.probe(endpoint)
        self.me.probes[vm_id] = found
        return found


class SimQueue(Port):
    async def send_recheck(self, vm_id: str, delay_seconds: float) -> None:
        await self.point()
        if self.cloud.rechecks_fail:
            raise TransientError("the recheck queue: 503")
        self.world.put(Message(self.world.after(delay_seconds), vm_id=vm_id))
        self.me.process.after()

    async def send_shard(self, shard: int, shard_count: int) -> None:
        await self.point()
        self.world.put(Message(self.world.clock.now, shard=(shard, shard_count)))
        self.me.shards += 1
        self.me.process.after()

    async def send_alert(self, notice: Notice) -> None:
        await self.point()
        if self.cloud.alerts_fail:
            raise TransientError("the alert queue: 503")
        self.world.chronicle.entries.append(Queued(self.world.clock.now, notice))
        self.world.tell(f"alert {notice.kind} {notice.cause} for {notice.vm_id.rsplit('/', 1)[-1]}")
        self.me.process.after()


class SimRunner(Port):
    async def start_restart(self, target: Target, restart: RestartUnit) -> StartOutcome:
        await self.point(may_fail=False)
        outcome = self.cloud.start_restart(target.vm_id, restart)
        self.world.note_sent(self.me, target, restart.unit, restart.attempt, restart.token, None, outcome)
        return outcome

    async def read_result(self, target: Target, command: CommandRef) -> CommandResult | None:
        await self.point()
        return self.cloud.read_result(command)

    async def discard(self, target: Target, command: CommandRef) -> None:
        await self.point()
        self.cloud.discard(command)

    async def cancel(self, target: Target, command: CommandRef) -> CommandResult:
        await self.point()
        return self.cloud.cancel(command)


class SimActuator(Port):
    async def start(self, target: Target, action: VmAction) -> StartOutcome:
        await self.point(may_fail=False)
        outcome = self.cloud.start_action(target.vm_id, action)
        self.world.note_sent(self.me, target, "", 0, action.token, action.kind, outcome)
        return outcome


class SimActivity(Port):
    async def who_stopped(self, target: Target, now: datetime) -> str:
        await self.point(may_fail=False)
        return "bob"


class SimCanary(Port):
    @property
    def sends(self) -> bool:
        return self.cloud.canary_sends

    async def send(self, now: datetime) -> None:
        await self.point(may_fail=False)
        self.cloud.send_canary(now)

    async def egress_problem(self) -> str:
        await self.point(may_fail=False)
        self.me.egress_problem = self.cloud.egress_problem
        return self.cloud.egress_problem


class SimDeadMan(Port):
    async def ping(self, record: TickRecord) -> None:
        await self.point(may_fail=False)


def ports_of(me: Instance) -> Ports:
    """Everything of the world that an instance touches."""
    return Ports(
        inventory=SimInventory(me),
        telemetry=SimTelemetry(me),
        prober=SimProber(me),
        store=SimStore(me),
        fleet=SimFleet(me),
        silences=SimSilences(me),
        queue=SimQueue(me),
        runner=SimRunner(me),
        actuator=SimActuator(me),
        activity=SimActivity(me),
        canary=SimCanary(me),
        dead_man=SimDeadMan(me),
        alerts=me.world.sender,
    )
