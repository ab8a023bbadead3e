"""Alerts from the VM itself (``--alert``): for those who run the agent without the watchdog, or beside it.

When something is worth an alert is decided by ``vm_health.machine``, as in the cloud: the same confirmations,
incidents and keys, with the VM as its own witness. Every notice is on the disk before it is sent and leaves
it when it was taken: sent at least once, whatever is restarted in between; receivers deduplicate by ``key``.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from vm_agent.alert_decision import after_giving_up, follow
from vm_agent.alert_file import AlertFile, AlertMemory, Unsent
from vm_agent.config import AgentConfig
from vm_agent.files import FileLock
from vm_agent.transport import exchange
from vm_alerts.channels.webhook import Webhook
from vm_alerts.http import HttpChannel, check_answer
from vm_alerts.message import build_message
from vm_health.backoff import BackoffPolicy, delay
from vm_health.errors import PermanentError, TransientError, WireError
from vm_health.model import CollectorFailure, HealthReport
from vm_health.policy import Policy
from vm_health.rules import Thresholds
from vm_health.state import Notice

_LOG = logging.getLogger(__name__)
FAILURE_NAME = "alerts"
_TIMEOUT_SECONDS = 10.0
_RETRIES = BackoffPolicy((5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0))
MAX_UNSENT = 50
GIVE_UP_AFTER = timedelta(hours=24)


def channels(config: AgentConfig) -> tuple[HttpChannel, ...]:
    """Return every channel that the settings name: one line each."""
    found: list[HttpChannel] = []
    if config.alert_webhook_url:
        found.append(Webhook(config.alert_webhook_url.reveal()))
    return tuple(found)


class Alerter:
    """Follows this VM's incidents and sends what people must hear, one channel not waiting for another."""

    def __init__(
        self,
        state_dir: str,
        found: Sequence[HttpChannel],
        limits: Thresholds,
        *,
        retries: BackoffPolicy = _RETRIES,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._channels = {channel.name: channel for channel in found}
        self._policy = Policy(thresholds=limits, may_act=False)
        self._retries = retries
        self._now = now
        self._monotonic = monotonic
        self._file = AlertFile(state_dir)
        self._lock = FileLock(os.path.join(state_dir, "alerts.lock"))
        self._memory = AlertMemory()
        self._waits: dict[str, tuple[int, float]] = {}  # per channel: failed attempts, when to try again
        self._problem = ""
        self._sent = 0
        self._changed = threading.Condition()
        self._is_loaded = self._is_second = self._has_news = self._is_closed = False

    def start(self) -> None:
        """Send from a thread."""
        threading.Thread(target=self._run, name="alerts", daemon=True).start()

    def consider(
        self, report: HealthReport, now: datetime, gave_up: tuple[str, ...] = (), attempts: int = 0
    ) -> None:
        """Take a sample into account; what must be said is on the disk when this returns. Never raises.

        ``gave_up`` are units that local repair has just given up, after so many ``attempts``.
        """
        with self._changed:
            if not self._load():
                return
            before = self._memory
            state, notices = follow(before.state, report, self._policy, now)
            if gave_up:
                state, more = after_giving_up(state, report, gave_up, attempts, now)
                notices += more
            after = self._memory = self._with(replace(before, state=state), notices)
            if _essence(after) != _essence(before):
                self._save()
            if after.unsent is not before.unsent:
                self._wake()

    def send_due(self) -> float | None:
        """Send what is due; returns the seconds until more is, None for nothing left to send."""
        for name, channel in self._channels.items():
            while item := self._first_due(name):
                if not self._deliver(channel, item):
                    break
        with self._changed:
            waiting = {item.channel for item in self._unsent()}
            times = [at for name, (_, at) in self._waits.items() if name in waiting]
        return max(0.0, min(times, default=0.0) - self._monotonic()) if waiting else None

    def failures(self) -> tuple[CollectorFailure, ...]:
        """Return what keeps alerts from going out, as the report has it."""
        return (CollectorFailure(FAILURE_NAME, self._problem),) if self._problem else ()

    @property
    def counts(self) -> tuple[int, int]:
        """How many were sent since the start, and how many wait."""
        return self._sent, len(self._unsent())

    def close(self) -> None:
        """End the thread; what waits is on the disk."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        while not self._is_closed:
            wait_seconds = self.send_due()
            with self._changed:
                self._changed.wait_for(lambda: self._has_news or self._is_closed, wait_seconds)
                self._has_news = False

    def _wake(self) -> None:
        self._has_news = True
        self._changed.notify_all()

    def _load(self) -> bool:
        """Own the file, once: of two that follow the same VM, one sends."""
        if self._is_loaded:
            return True
        try:
            os.makedirs(os.path.dirname(self._file.path), mode=0o750, exist_ok=True)
            if not self._lock.take():
                if not self._is_second:
                    _LOG.warning("another process sends this VM's alerts; this one does not")
                self._is_second = True
                return False
            self._memory = self._file.load()
        except WireError as error:
            _LOG.error("alerts are forgotten: the file is damaged", extra={"reason": str(error)[:200]})
        except OSError as error:
            self._tell(
                f"{self._file.path} cannot be used ({error.strerror}); alerts do not survive a restart"
            )
        self._is_loaded = True
        self._wake()  # for what an earlier run could not send
        return True

    def _save(self) -> None:
        try:
            self._file.save(self._memory)
        except (OSError, WireError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)[:200]
            self._tell(f"{self._file.path} cannot be written ({reason}); alerts do not survive a restart")
            return
        self._tell("")

    def _tell(self, problem: str) -> None:
        if problem and problem != self._problem:
            _LOG.warning("alerts", extra={"reason": problem})
        self._problem = problem

    def _with(self, memory: AlertMemory, notices: Sequence[Notice]) -> AlertMemory:
        """Return ``memory`` with ``notices`` to be sent through every channel."""
        if not notices:
            return memory
        new = [Unsent(name, notice) for notice in notices for name in self._channels]
        unsent = [*memory.unsent, *new]
        if len(unsent) > MAX_UNSENT:
            _LOG.error("alerts are given up: too many wait", extra={"count": len(unsent) - MAX_UNSENT})
        return replace(memory, unsent=unsent[-MAX_UNSENT:])

    def _unsent(self) -> Sequence[Unsent]:
        return self._memory.unsent

    def _first_due(self, name: str) -> Unsent | None:
        with self._changed:
            if self._waits.get(name, (0, 0.0))[1] > self._monotonic():
                return None
            return next((item for item in self._unsent() if item.channel == name), None)

    def _deliver(self, channel: HttpChannel, item: Unsent) -> bool:
        """Try once; True where the channel may go on with its next notice."""
        try:
            _post(channel, item.notice)
        except (TransientError, PermanentError) as error:
            return self._failed(item, error)
        _LOG.info("alert sent", extra={"channel": item.channel, "key": item.notice.key})
        self._sent += 1
        self._forget(item)
        self._waits.pop(item.channel, None)
        return True

    def _failed(self, item: Unsent, error: TransientError | PermanentError) -> bool:
        """Keep the notice for a day. One that is refused for good steps back, so that others get through."""
        attempt = self._waits.get(item.channel, (0, 0.0))[0] + 1
        if attempt == 1:
            _LOG.warning("alert waits", extra={"channel": item.channel, "reason": str(error)})
        asked = error.retry_after_seconds if isinstance(error, TransientError) else None
        wait_seconds = max(delay(attempt, self._retries), asked or 0.0)
        self._waits[item.channel] = (attempt, self._monotonic() + wait_seconds)
        if self._now() - item.notice.at > GIVE_UP_AFTER:
            _LOG.error("alert is given up", extra={"key": item.notice.key, "reason": str(error)})
            self._forget(item)
        elif isinstance(error, PermanentError):
            self._forget(item, and_put_back=True)
        return False

    def _forget(self, item: Unsent, *, and_put_back: bool = False) -> None:
        with self._changed:
            rest = [other for other in self._memory.unsent if other != item]
            self._memory = replace(self._memory, unsent=[*rest, item] if and_put_back else rest)
            self._save()


def _essence(memory: AlertMemory) -> AlertMemory:
    """Return ``memory`` without the words that change with every number: not worth a write to the disk."""
    return replace(memory, state=replace(memory.state, reason=""))


def _post(channel: HttpChannel, notice: Notice) -> None:
    """Send ``notice`` once.

    Raises:
        TransientError: another try may help.
        PermanentError: the channel refuses it.
    """
    request = channel.request(build_message(notice, "", ""))
    try:
        answer = exchange(
            request.method,
            request.url,
            headers=request.headers,
            body=request.body,
            timeout_seconds=_TIMEOUT_SECONDS,
        )
    except TransientError as error:
        cause = error.__cause__  # the text names the host; the rest of the URL is the secret and is not in it
        raise TransientError(f"channel {channel.name}: {type(cause).__name__}") from None
    check_answer(channel.name, answer.status, answer.headers.get("retry-after"))
