"""In-memory fakes of the ports that are no stores: what is seen, what is asked for, what is sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from tests.builders import NOW, UNREACHABLE
from tests.fake_stores import Journal
from vm_health.errors import ConflictError, TransientError, WatchdogError
from vm_health.model import ProbeOutcome, ProbeResult, Snapshot
from vm_health.notice_codec import encode_notice
from vm_health.state import (
    CommandRef,
    CommandResult,
    Notice,
    RestartUnit,
    StartKind,
    StartOutcome,
    VmAction,
)
from vm_watchdog.ports import FleetTelemetry, Target, TickRecord, Work

RECHECK_QUEUE = "watchdog-recheck"
SHARD_QUEUE = "watchdog-shards"
ALERT_QUEUE = "watchdog-alerts"
MAX_DELAY_SECONDS = 7 * 24 * 3_600


class Clock:
    """Time as the test says."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def unavailable() -> TransientError:
    """What a failed query raises."""
    return TransientError("the fleet query: 504")


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
    """Snapshots by VM id and the canary; ``error`` is raised instead of an answer; ``queries`` counts."""

    def __init__(self) -> None:
        self.snapshots: dict[str, Snapshot] = {}
        self.canary_at: datetime | None = None
        self.error: WatchdogError | None = None
        self.queries = 0

    async def newest_snapshots(self) -> FleetTelemetry:
        self.queries += 1
        if self.error is not None:
            raise self.error
        return FleetTelemetry(dict(self.snapshots), self.canary_at)


class FakeProber:
    """Results by endpoint; one that nobody serves is unreachable, an exception is raised.

    A report's sample was taken just as long ago as it says, on a clock that agrees with ours.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self.results: dict[str, ProbeResult | Exception] = {}
        self.probed: list[str] = []

    async def probe(self, vm_id: str, endpoint: str) -> ProbeResult:
        self.probed.append(endpoint)
        result = self.results.get(endpoint, UNREACHABLE)
        if isinstance(result, Exception):
            raise result
        report = result.report
        if report is None:
            return result
        if report.vm_id not in ("", vm_id):
            return ProbeResult(ProbeOutcome.UNREACHABLE, "the endpoint answers for another VM")
        taken_at = self._clock() - timedelta(seconds=report.age_seconds)
        return replace(result, report=replace(report, sample=replace(report.sample, taken_at=taken_at)))


@dataclass(eq=False)
class _Message:
    queue: str
    text: str
    visible_at: datetime
    dequeue_count: int = 0


class FakeQueue:
    """Both ends of the queues; what was sent also stands in ``rechecks``, ``shards`` and ``alerts``.

    ``errors`` are raised, one a kind of message. Delays and hiding go by ``clock``.
    """

    def __init__(self, journal: Journal | None = None, clock: Callable[[], datetime] | None = None) -> None:
        self._journal = journal or Journal()
        self._clock = clock or Clock()
        self._messages: list[_Message] = []
        self.rechecks: list[tuple[str, float]] = []
        self.shards: list[tuple[int, int]] = []
        self.alerts: list[Notice] = []
        self.errors: dict[str, WatchdogError] = {}
        self.meanwhile: Callable[[], None] = lambda: None  # what others do while an alert is being sent

    async def send_recheck(self, vm_id: str, delay_seconds: float) -> None:
        self._send("recheck", f"recheck in {delay_seconds:g} s")
        self._put(RECHECK_QUEUE, json.dumps({"vm_id": vm_id}), delay_seconds)
        self.rechecks.append((vm_id, delay_seconds))

    async def send_shard(self, shard: int, shard_count: int) -> None:
        self._send("shard", f"shard {shard} of {shard_count}")
        self._put(SHARD_QUEUE, json.dumps({"shard": shard, "shard_count": shard_count}))
        self.shards.append((shard, shard_count))

    async def send_alert(self, notice: Notice) -> None:
        self._send("alert", f"alert {notice.kind}")
        self._put(ALERT_QUEUE, encode_notice(notice))
        self.alerts.append(notice)
        self.meanwhile()

    async def take(self, queue: str, most: int, hidden_seconds: float) -> Sequence[Work]:
        now = self._clock()
        found = [one for one in self._messages if one.queue == queue and one.visible_at <= now][:most]
        for message in found:
            message.dequeue_count += 1
            message.visible_at = now + timedelta(seconds=hidden_seconds)
        return [Work(queue, one.text, one.dequeue_count, (one, one.dequeue_count)) for one in found]

    async def finish(self, work: Work) -> None:
        self._messages.remove(self._held(work))

    async def put_back(self, work: Work, delay_seconds: float) -> None:
        message = self._held(work)
        message.visible_at = self._clock() + timedelta(seconds=max(0.0, delay_seconds))

    async def poison(self, work: Work) -> None:
        self._messages.remove(self._held(work))
        self._put(f"{work.queue}-poison", work.text)

    def put_text(self, queue: str, text: str) -> None:
        """Put in a message as any other program could."""
        self._put(queue, text)

    def _held(self, work: Work) -> _Message:
        """Return the message that ``work`` is, unless somebody else has taken or ended it since."""
        assert isinstance(work.receipt, tuple)
        message, taken = work.receipt
        if message not in self._messages or message.dequeue_count != taken:
            raise ConflictError(f"a message of {work.queue} is not held any more")
        assert isinstance(message, _Message)
        return message

    def _put(self, queue: str, text: str, delay_seconds: float = 0.0) -> None:
        visible_at = self._clock() + timedelta(seconds=min(max(0.0, delay_seconds), MAX_DELAY_SECONDS))
        self._messages.append(_Message(queue, text, visible_at))

    def _send(self, kind: str, entry: str) -> None:
        if kind in self.errors:
            raise self.errors[kind]
        self._journal.add(entry)


class FakeRunner:
    """Restarts that were asked for; ``outcome`` is the answer, ``results`` what commands said by token.

    A command without a result runs on; ``cancelled`` holds the tokens of those that were ended, ``discarded``
    of those whose results were cleared away.
    """

    def __init__(self, journal: Journal | None = None) -> None:
        self._journal = journal or Journal()
        self.outcome = StartOutcome(StartKind.STARTED, "restart sent")
        self.restarts: list[tuple[str, RestartUnit]] = []
        self.results: dict[str, CommandResult | WatchdogError] = {}
        self.cancelled: list[str] = []
        self.discarded: list[str] = []

    async def start_restart(self, target: Target, restart: RestartUnit) -> StartOutcome:
        self._journal.add(f"restart {restart.unit}")
        self.restarts.append((target.vm_id, restart))
        return self.outcome

    async def read_result(self, target: Target, command: CommandRef) -> CommandResult | None:
        result = self.results.get(command.token)
        if isinstance(result, WatchdogError):
            del self.results[command.token]
            raise result
        return result

    async def discard(self, target: Target, command: CommandRef) -> None:
        self.discarded.append(command.token)
        self.results.pop(command.token, None)

    async def cancel(self, target: Target, command: CommandRef) -> CommandResult:
        self._journal.add(f"cancel {command.token}")
        self.cancelled.append(command.token)
        return CommandResult(False, "it hung and was ended")


class FakeActuator:
    """Actions on whole VMs that were asked for; ``outcome`` is the answer."""

    def __init__(self, journal: Journal | None = None) -> None:
        self._journal = journal or Journal()
        self.outcome = StartOutcome(StartKind.STARTED, "asked for")
        self.actions: list[tuple[str, VmAction]] = []

    async def start(self, target: Target, action: VmAction) -> StartOutcome:
        self._journal.add(f"vm action {action.kind}")
        self.actions.append((target.vm_id, action))
        return self.outcome


class FakeActivityLog:
    """Who stopped which VM, by id; ``asked`` counts."""

    def __init__(self) -> None:
        self.stoppers: dict[str, str] = {}
        self.asked = 0

    async def who_stopped(self, target: Target, now: datetime) -> str:
        self.asked += 1
        return self.stoppers.get(target.vm_id, "")


class FakeCanary:
    """Own events, which come back through ``telemetry`` at once while ``arrives``; off unless ``sends``."""

    def __init__(self, telemetry: FakeTelemetry | None = None) -> None:
        self._telemetry = telemetry or FakeTelemetry()
        self.sends = False
        self.arrives = True
        self.sent: list[datetime] = []
        self.problem = ""

    async def send(self, now: datetime) -> None:
        if not self.sends:
            return
        self.sent.append(now)
        if self.arrives:
            self._telemetry.canary_at = now

    async def egress_problem(self) -> str:
        return self.problem


class FakeDeadMan:
    """Ticks that were reported to an outside monitor."""

    def __init__(self) -> None:
        self.pings: list[TickRecord] = []

    async def ping(self, record: TickRecord) -> None:
        self.pings.append(record)


class FakeAlerts:
    """Notices that were delivered; ``error`` is raised instead."""

    def __init__(self) -> None:
        self.sent: list[Notice] = []
        self.error: WatchdogError | None = None

    async def send(self, notice: Notice) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append(notice)
