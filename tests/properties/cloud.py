"""The simulated Azure: what it lists, answers, carries out and delivers, and how it fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum

from tests.builders import UNREACHABLE
from tests.fake_ports import Clock
from tests.properties.sim_vm import Command, SimVm
from vm_health.errors import TransientError
from vm_health.model import PowerState, ProbeResult
from vm_health.state import (
    CommandRef,
    CommandResult,
    Notice,
    RestartUnit,
    StartKind,
    StartOutcome,
    VmAction,
)
from vm_watchdog.ports import FleetTelemetry, Target

FAR = timedelta(days=3650)
BOOT_SECONDS = 20.0
COMMAND_SECONDS = 1.5
SLOW_COMMAND_SECONDS = 60.0
THROTTLE_SECONDS = 45.0
_REFUSALS = {
    Command.BUSY: StartKind.BUSY,
    Command.THROTTLED: StartKind.THROTTLED,
    Command.NOT_RUNNING: StartKind.NOT_RUNNING,
    Command.AGENT_NOT_READY: StartKind.AGENT_NOT_READY,
    Command.FORBIDDEN: StartKind.FORBIDDEN,
    Command.FAILS: StartKind.FAILED,
    Command.ANSWER_LOST: StartKind.FAILED,
}
_RUNS = (Command.WORKS, Command.SLOW, Command.NO_HELP, Command.ANSWER_LOST)


class Listing(IntEnum):
    """What Resource Manager's list is worth."""

    WHOLE = 0
    FAILS = 1
    EMPTY = 2
    HALVED = 3


@dataclass(slots=True)
class Message:
    """A message on the recheck queue (``vm_id``) or on the shard queue."""

    visible_at: datetime
    vm_id: str = ""
    shard: tuple[int, int] = (0, 1)
    takes: int = 0


@dataclass(slots=True)
class Cloud:
    """Everything outside of the watchdog but its tables."""

    clock: Clock
    vms: dict[str, SimVm] = field(default_factory=dict)
    listing: Listing = Listing.WHOLE
    telemetry_fails: bool = False
    ingested_until: datetime | None = None  # None: ingestion works
    canary_sends: bool = False
    canary_at: datetime | None = None
    egress_problem: str = ""
    alerts_fail: bool = False
    rechecks_fail: bool = False
    messages: list[Message] = field(default_factory=list)
    alerts: list[Notice] = field(default_factory=list)
    results: dict[str, CommandResult] = field(default_factory=dict)
    running: dict[str, str] = field(default_factory=dict)  # the VM by the command's token
    _pending: list[tuple[datetime, int, Callable[[datetime], None]]] = field(default_factory=list)
    _scheduled: int = 0

    # --- time --------------------------------------------------------------------------------------------

    def later(self, seconds: float, effect: Callable[[datetime], None]) -> None:
        """Let something happen after a while."""
        self._scheduled += 1
        self._pending.append((self.clock.now + timedelta(seconds=seconds), self._scheduled, effect))
        self._pending.sort(key=lambda one: one[:2])

    def move_to(self, moment: datetime) -> None:
        """Let time pass: what was due happens, agents report."""
        while self._pending and self._pending[0][0] <= moment:
            due, _, effect = self._pending.pop(0)
            self.clock.now = max(self.clock.now, due)
            effect(self.clock.now)
        self.clock.now = max(self.clock.now, moment)
        for vm in self.vms.values():
            vm.emit(self.clock.now)

    # --- what is seen ------------------------------------------------------------------------------------

    def list_targets(self) -> list[Target]:
        """The opted-in VMs, or what an ailing Resource Manager makes of them."""
        if self.listing is Listing.FAILS:
            raise TransientError("listing: 503")
        found = [vm.target() for vm in self.vms.values() if vm.is_listed]
        if self.listing is Listing.EMPTY:
            return []
        return found[: len(found) // 2] if self.listing is Listing.HALVED else found

    def get_target(self, vm_id: str) -> Target | None:
        """One VM."""
        if self.listing is Listing.FAILS:
            raise TransientError("getting: 503")
        vm = self.vms.get(vm_id)
        return vm.target() if vm is not None and vm.is_listed else None

    def telemetry(self) -> FleetTelemetry:
        """The answer of the one query."""
        if self.telemetry_fails:
            raise TransientError("the fleet query: 504")
        now = self.clock.now
        until = now if self.ingested_until is None else self.ingested_until
        found = {vm.vm_id: vm.telemetry(now, until) for vm in self.vms.values()}
        return FleetTelemetry({key: one for key, one in found.items() if one is not None}, self.canary_at)

    def probe(self, endpoint: str) -> ProbeResult:
        """An endpoint, from outside."""
        for vm in self.vms.values():
            if vm.endpoint == endpoint:
                return vm.probed(self.clock.now)
        return UNREACHABLE

    def send_canary(self, now: datetime) -> None:
        """The watchdog's own event, which comes back at once where ingestion works."""
        if self.canary_sends and self.ingested_until is None:
            self.canary_at = now

    # --- what is done ------------------------------------------------------------------------------------

    def start_restart(self, vm_id: str, restart: RestartUnit) -> StartOutcome:
        """Run Command, as it goes on this VM."""
        vm = self.vms.get(vm_id)
        if vm is None or vm.power is not PowerState.RUNNING:
            return StartOutcome(StartKind.NOT_RUNNING, "the VM is not running")
        if vm.command in _RUNS:
            self._run(vm, restart)
        if vm.command in _REFUSALS:
            wait = THROTTLE_SECONDS if vm.command is Command.THROTTLED else None
            return StartOutcome(_REFUSALS[vm.command], "Azure says no", retry_after_seconds=wait)
        self.running[restart.token] = vm.vm_id
        return StartOutcome(StartKind.STARTED, "restart sent")

    def boot(self, vm: SimVm) -> None:
        """Start a VM over; the commands that ran on it are gone."""
        for token in [token for token, vm_id in self.running.items() if vm_id == vm.vm_id]:
            del self.running[token]
        vm.boot(self.clock.now)

    def _run(self, vm: SimVm, restart: RestartUnit) -> None:
        helps = vm.command is not Command.NO_HELP
        boots = vm.boots

        def ends(now: datetime) -> None:
            if vm.boots != boots:
                return
            vm.obey(restart.token, restart.unit, now, helps=helps)
            self.running.pop(restart.token, None)
            self.results[restart.token] = CommandResult(helps, "restarted" if helps else "it did not start")

        self.later(SLOW_COMMAND_SECONDS if vm.command is Command.SLOW else COMMAND_SECONDS, ends)

    def read_result(self, command: CommandRef) -> CommandResult | None:
        """A finished command's result, until it is discarded."""
        if command.token in self.running:
            return None
        return self.results.get(command.token, CommandResult(False, "the command is not there"))

    def discard(self, command: CommandRef) -> None:
        """Clear a result away."""
        self.results.pop(command.token, None)

    def cancel(self, command: CommandRef) -> CommandResult:
        """End a command that hung."""
        self.running.pop(command.token, None)
        return CommandResult(False, "it hung and was ended")

    def start_action(self, vm_id: str, action: VmAction) -> StartOutcome:
        """Restart or redeploy a whole VM."""
        vm = self.vms.get(vm_id)
        if vm is None or vm.power is not PowerState.RUNNING:
            return StartOutcome(StartKind.NOT_RUNNING, "the VM is not running")
        if vm.command in (Command.FORBIDDEN, Command.BUSY):
            return StartOutcome(_REFUSALS[vm.command], "Azure says no")
        vm.agent_runs = False
        self.later(BOOT_SECONDS, lambda _: self.boot(vm) if vm.power is PowerState.RUNNING else None)
        return StartOutcome(StartKind.STARTED, f"{action.kind} asked for")
