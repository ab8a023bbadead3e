"""Sends reports to Application Insights from a thread of its own: a slow network never delays a sample.

What cannot be sent waits in the backlog and keeps its original time. The verdict on an answer is in
``ingestion.py``; here it is carried out.
"""

from __future__ import annotations

import gzip
import json
import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from vm_agent.backlog import Backlog
from vm_agent.envelopes import envelopes
from vm_agent.ingestion import Outcome, judge
from vm_agent.transport import exchange
from vm_agent.urls import TelemetryTarget, redirect_target
from vm_health.backoff import BackoffPolicy, delay
from vm_health.errors import TransientError, WireError
from vm_health.model import HealthReport

_LOG = logging.getLogger(__name__)
_MAX_BATCH = 500
_MAX_REDIRECTS = 3
_TIMEOUT_SECONDS = 10.0
_RETRIES = BackoffPolicy((5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0), jitter_fraction=0.2)


class Tokens(Protocol):
    """Where bearer tokens come from."""

    def token(self) -> str: ...

    def forget(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the items since the start."""

    sent: int = 0
    dropped: int = 0
    retried: int = 0
    waiting: int = 0


class Telemetry:
    """Queues reports and sends them. ``submit`` never blocks and never raises."""

    def __init__(
        self,
        target: TelemetryTarget,
        tokens: Tokens | None,
        backlog: Backlog | None = None,
        retries: BackoffPolicy = _RETRIES,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._target = target
        self._url = target.track_url
        self._tokens = tokens
        self._backlog = backlog or Backlog()
        self._retries = retries
        self._now = now
        self._counts = Counts()
        self._attempt = 0
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """End the thread; what waits in memory is lost."""
        self._backlog.close()
        self._thread.join(timeout_seconds)

    def submit(self, report: HealthReport) -> None:
        """Queue ``report``."""
        try:
            found = envelopes(report, self._target.instrumentation_key)
        except WireError as error:
            _LOG.error("report cannot be sent", extra={"reason": str(error)})
            return
        self._backlog.put(json.dumps(envelope, separators=(",", ":")) for envelope in found)

    @property
    def counts(self) -> Counts:
        """The state of sending, for ``/metrics``."""
        dropped = self._counts.dropped + self._backlog.dropped
        return replace(self._counts, dropped=dropped, waiting=len(self._backlog))

    def _run(self) -> None:
        while batch := self._backlog.take(_MAX_BATCH):
            try:
                outcome = self._send(batch)
            except TransientError as error:
                outcome = Outcome(
                    resend=tuple(range(len(batch))),
                    wait_seconds=error.retry_after_seconds or 0.0,
                    reason=str(error),
                )
            self._settle(batch, outcome)

    def _settle(self, batch: list[str], outcome: Outcome) -> None:
        """Count, log what is new, put back what is to be sent again and wait for that."""
        counts = self._counts
        self._counts = replace(
            counts,
            sent=counts.sent + outcome.accepted,
            dropped=counts.dropped + outcome.dropped,
            retried=counts.retried + len(outcome.resend),
        )
        if outcome.dropped:
            _LOG.warning("telemetry refused", extra={"items": outcome.dropped, "reason": outcome.reason})
        if not outcome.resend:
            if self._attempt:
                _LOG.info("telemetry is sent again", extra={"failed_attempts": self._attempt})
            self._attempt = 0
            return
        self._attempt += 1
        if self._attempt == 1:  # once for each trouble, not once a minute
            _LOG.warning("telemetry waits", extra={"host": self._target.host, "reason": outcome.reason})
        self._backlog.restore([batch[index] for index in outcome.resend])
        planned = delay(self._attempt, self._retries, random.uniform(-1, 1))  # noqa: S311 - spreads a fleet
        self._backlog.pause(max(planned, outcome.wait_seconds))

    def _send(self, batch: list[str]) -> Outcome:
        body = gzip.compress(("[" + ",".join(batch) + "]").encode(), compresslevel=6)
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
        answer = exchange("POST", url, headers=headers, body=body, timeout_seconds=_TIMEOUT_SECONDS)
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
