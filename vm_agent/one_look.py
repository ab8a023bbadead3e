"""One look at this machine from the command line (``vm-agent check``), with repair and alerts where wanted.

From cron it is a small agent of its own: what must be remembered between looks is in the state directory.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

from vm_agent import collectors
from vm_agent.collectors.base import Round
from vm_agent.config import AgentConfig
from vm_agent.duties import alerter, local_repair
from vm_agent.sampler import Sampler
from vm_health.model import CollectorFailure, HealthReport

COLLECTOR_TIMEOUT_SECONDS = 8.0
# The first step of the backoff is the confirmation that a unit is down: a look waits for that much, once.
LONGEST_WAIT_SECONDS = 15.0
ALERT_TRIES_SECONDS = 20.0


def look(config: AgentConfig) -> HealthReport:
    """Return what is seen; with ``config.restart`` after what was due is restarted, with ``alert`` told."""
    repair = local_repair(config) if config.restart else None
    alerts = alerter(config) if config.alert else None

    def failures() -> tuple[CollectorFailure, ...]:
        found = repair.failures() if repair else ()
        return found + alerts.failures() if alerts else found

    sampler = Sampler(
        Round(collectors.build(config), COLLECTOR_TIMEOUT_SECONDS),
        config.limits,
        vm_id=lambda: config.vm_id,
        endpoint=lambda: config.endpoint,
        own_failures=failures,
    )
    now = datetime.now(UTC)
    report = sampler.take(now)
    gave_up: tuple[str, ...] = ()
    attempts = 0
    if repair is not None:
        seen = repair.consider(report, now)
        first_wait = 0.0 if repair.look_at is None else (repair.look_at - now).total_seconds()
        if (
            first_wait
            and first_wait <= LONGEST_WAIT_SECONDS
            and not any(r.attempts for r in seen.report.repairs)
        ):
            time.sleep(first_wait + 0.01)
            now = datetime.now(UTC)
            seen = repair.consider(sampler.take(now), now)
        if repair.wait() or repair.failures():
            now = datetime.now(UTC)
            seen = repair.consider(sampler.take(now), now)
        report, gave_up, attempts = seen.report, seen.gave_up, seen.attempts
    if alerts is not None:
        alerts.consider(report, now, gave_up, attempts)
        deadline = time.monotonic() + ALERT_TRIES_SECONDS
        while (wait_seconds := alerts.send_due()) is not None and time.monotonic() + wait_seconds < deadline:
            time.sleep(wait_seconds)
    return report
