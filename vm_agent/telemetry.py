"""Sends reports and metrics to Application Insights, from a thread of its own: a slow network never delays
a sample.

Everything passes through the spool: written before it is sent, removed when it was taken. So what could not
be sent, or was on its way when the agent died, is there again at the next start and keeps its original time.
The verdict on an answer is in ``ingestion.py``; here it is carried out.

``turn`` is all the work of one moment and says how long nothing is to be done; the thread only waits.
"""

from __future__ import annotations

import gzip
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from vm_agent.aggregate import Aggregates
from vm_agent.backlog import Backlog
from vm_agent.envelopes import keyed, metric_items, report_item
from vm_agent.ingestion import Outcome, judge
from vm_agent.segments import Item
from vm_agent.spool import Spool
from vm_agent.transport import exchange
from vm_agent.urls import TelemetryTarget, redirect_target
from vm_health.backoff import BackoffPolicy, delay
from vm_health.errors import TransientError, WireError
from vm_health.model import HealthReport

_LOG = logging.getLogger(__name__)
_MAX_REDIRECTS = 3
_TIMEOUT_SECONDS = 10.0
_AFTER_FAULT_SECONDS = 60.0
_LAST_TIMEOUT_SECONDS = 2.0  # at the end: systemd waits, and the spool has it all anyway
_RETRIES = BackoffPolicy((5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0), jitter_fraction=0.2)
# Outside of this ingestion replaces an item's time by that of its arrival: old news would look new.
OLDEST_SECONDS = 48 * 3600.0
MOST_AHEAD_SECONDS = 24 * 3600.0


class Tokens(Protocol):
    """Where bearer tokens come from."""

    def token(self) -> str: ...

    def forget(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the items since the start. ``dropped`` is the sum of the five behind it: refused by
    ingestion, too old (or ahead) to keep their time, no room, damaged on the disk, too long to be sent."""

    sent: int = 0
    retried: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    dropped: int = 0
    refused: int = 0
    expired: int = 0
    no_room: int = 0
    damaged: int = 0
    too_long: int = 0


class Telemetry:
    """Queues what is to be sent and sends it. ``submit`` and ``submit_metrics`` never block, never raise."""

    def __init__(
        self,
        target: TelemetryTarget,
        tokens: Tokens | None,
        spool: Spool,
        *,
        retries: BackoffPolicy = _RETRIES,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._target = target
        self._url = target.track_url
        self._tokens = tokens
        self._spool = spool
        self._backlog = Backlog()
        self._retries = retries
        self._now = now
        self._monotonic = monotonic
        self._tally: Counter[str] = Counter()
        self._attempt = 0
        self._retry_at = 0.0
        self._timeout_seconds = _TIMEOUT_SECONDS
        self._told_problem = ""
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def start(self) -> None:
        """Begin to send, first what an earlier run could not."""
        self._thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """End the thread: what is queued is on the disk then, and sent if the service has been well."""
        self._backlog.close()
        self._thread.join(timeout_seconds)

    def submit(self, report: HealthReport) -> None:
        """Queue ``report``; it carries how many items were dropped so far."""
        try:
            self._backlog.put([report_item(report, {"telemetry_dropped": float(self.counts.dropped)})])
        except WireError as error:
            self._tally["too_long"] += 1
            _LOG.error("report cannot be sent", extra={"reason": str(error)})

    def submit_metrics(self, found: Aggregates) -> None:
        """Queue one interval's metrics."""
        self._backlog.put(metric_items(found))

    @property
    def problem(self) -> str:
        """What is wrong with the spool, "" for nothing: then less can wait, and not beyond a restart."""
        return self._spool.problem

    @property
    def counts(self) -> Counts:
        """The state of sending, for ``/metrics``."""
        own, spool = self._tally, self._spool.dropped
        no_room = spool["no_room"] + self._backlog.dropped
        dropped = own["refused"] + own["expired"] + own["too_long"] + no_room + spool["damaged"]
        return Counts(
            sent=own["sent"],
            retried=own["retried"],
            waiting=self._spool.waiting + len(self._backlog),
            waiting_bytes=self._spool.size,
            dropped=dropped,
            refused=own["refused"],
            expired=own["expired"],
            no_room=no_room,
            damaged=spool["damaged"],
            too_long=own["too_long"],
        )

    def turn(self) -> float | None:
        """Do what is due: spool what is new, send the oldest batch unless the service wants to be left alone.

        Returns the seconds until there is more to do by itself, None for: not before something is new.
        """
        self._spool.append(self._backlog.take(), durable=self._attempt > 0)
        self._tell_spool_problem()
        left = self._retry_at - self._monotonic()
        if self._attempt and left > 0:
            return left
        batch = self._spool.front()
        if not batch:
            return None
        fresh = self._drop_expired(batch)
        outcome = self._try_to_send(fresh) if fresh else Outcome()
        self._spool.settle([fresh[index] for index in outcome.resend])
        self._count(outcome)
        return self._plan_next(outcome)

    def _run(self) -> None:
        self._spool.open()
        while not self._backlog.is_closed:
            try:
                wait_seconds = self.turn()
            except Exception:  # noqa: BLE001 - logged whole; a fault of ours must not end telemetry for good
                _LOG.exception("telemetry broke; trying again later")
                wait_seconds = _AFTER_FAULT_SECONDS
            self._backlog.wait(wait_seconds)
        self._timeout_seconds = _LAST_TIMEOUT_SECONDS
        self.turn()
        if self.counts.waiting:
            _LOG.info("telemetry waits for the next start", extra={"items": self.counts.waiting})

    def _drop_expired(self, batch: Sequence[Item]) -> list[Item]:
        now = self._now().timestamp()
        fresh = [item for item in batch if now - OLDEST_SECONDS < item.at < now + MOST_AHEAD_SECONDS]
        if len(fresh) < len(batch):
            self._tally["expired"] += len(batch) - len(fresh)
            _LOG.warning("telemetry too old to be sent", extra={"items": len(batch) - len(fresh)})
        return fresh

    def _try_to_send(self, batch: Sequence[Item]) -> Outcome:
        try:
            return self._send(batch)
        except TransientError as error:
            wait_seconds = error.retry_after_seconds or 0.0
            return Outcome(resend=tuple(range(len(batch))), wait_seconds=wait_seconds, reason=str(error))

    def _count(self, outcome: Outcome) -> None:
        self._tally["sent"] += outcome.accepted
        self._tally["refused"] += outcome.dropped
        self._tally["retried"] += len(outcome.resend)
        if outcome.dropped:
            _LOG.warning("telemetry refused", extra={"items": outcome.dropped, "reason": outcome.reason})

    def _plan_next(self, outcome: Outcome) -> float:
        """Return how long to wait, and log what is new: once for each trouble, not once a minute."""
        if not outcome.resend:
            if self._attempt:
                _LOG.info("telemetry is sent again", extra={"failed_attempts": self._attempt})
            self._attempt = 0
            return 0.0
        self._attempt += 1
        if self._attempt == 1:
            _LOG.warning("telemetry waits", extra={"host": self._target.host, "reason": outcome.reason})
            self._spool.sync()
        planned = delay(self._attempt, self._retries, random.uniform(-1, 1))  # noqa: S311 - spreads a fleet
        wait_seconds = max(planned, outcome.wait_seconds)
        self._retry_at = self._monotonic() + wait_seconds
        return wait_seconds

    def _tell_spool_problem(self) -> None:
        problem = self._spool.problem
        if problem and not self._told_problem:
            _LOG.warning("telemetry cannot be spooled", extra={"reason": problem})
        elif self._told_problem and not problem:
            _LOG.info("telemetry is spooled again")
        self._told_problem = problem

    def _send(self, batch: Sequence[Item]) -> Outcome:
        texts = ",".join(keyed(item.text, self._target.instrumentation_key) for item in batch)
        body = gzip.compress(f"[{texts}]".encode(), compresslevel=6)
        outcome = Outcome(resend=tuple(range(len(batch))), reason="too many redirects")
        for _ in range(1 + _MAX_REDIRECTS):
            outcome = self._post(self._url, body, len(batch))
            if not outcome.redirect:
                break
            target = redirect_target(outcome.redirect, self._url)
            if not target:
                return replace(outcome, reason=f"redirect to {outcome.redirect[:100]!r} is not followed")
            self._url = target
        if outcome.reason and outcome.resend:
            self._url = self._target.track_url  # whatever a redirect led to, begin anew
        return outcome

    def _post(self, url: str, body: bytes, items: int) -> Outcome:
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        if self._tokens is not None:
            headers["Authorization"] = f"Bearer {self._tokens.token()}"
        answer = exchange("POST", url, headers=headers, body=body, timeout_seconds=self._timeout_seconds)
        if answer.status in (401, 403) and self._tokens is not None:
            self._tokens.forget()
        return judge(
            answer.status,
            answer.body,
            items,
            self._now(),
            retry_after=answer.headers.get("retry-after", ""),
            location=answer.headers.get("location", ""),
        )
