"""What the running agent does with a sample beside serving it: repair, alerts, telemetry. Only wires them.

Each is there where the settings ask for it, and its code is loaded only then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

from vm_agent.config import AgentConfig
from vm_agent.imds import MONITOR_RESOURCE, Imds, TokenCache
from vm_health.model import CollectorFailure, HealthReport

if TYPE_CHECKING:
    from vm_agent.aggregate import Aggregator
    from vm_agent.alerting import Alerter
    from vm_agent.repair import LocalRepair, Restarter
    from vm_agent.telemetry import Telemetry

SPOOL_FAILURE = "spool"
_LEAST_WAIT_SECONDS = 0.5


class Duties:
    """Takes each report in turn; ``ring`` asks for a sample before its time."""

    def __init__(self, config: AgentConfig, imds: Imds, ring: Callable[[], None]) -> None:
        self._telemetry, self._aggregator = _telemetry(config, imds)
        self._repair = local_repair(config, ring) if config.restart else None
        self._alerter = alerter(config) if config.alert else None
        self._look_in_seconds: float | None = None

    def start(self) -> None:
        """Start the threads."""
        if self._telemetry is not None:
            self._telemetry.start()
        if self._alerter is not None:
            self._alerter.start()

    def stop(self, timeout_seconds: float) -> None:
        """Bring to the disk what must not be lost, and send it if that is quick."""
        if self._alerter is not None:
            self._alerter.close()
        if self._telemetry is not None and self._aggregator is not None:
            self._aggregator.flush()
            self._telemetry.stop(timeout_seconds)

    def take(self, report: HealthReport, now: datetime, at_seconds: float) -> HealthReport:
        """Do what ``report`` calls for; returns it with what local repair has to say.

        ``now`` is the sample's time, ``at_seconds`` the same moment on the monotonic clock.
        """
        self._look_in_seconds = None
        if self._aggregator is not None:
            self._aggregator.add(report, at_seconds)
        if self._repair is not None:
            considered = self._repair.consider(report, now)
            report = considered.report
            if self._repair.look_at is not None:
                wait_seconds = (self._repair.look_at - now).total_seconds()
                self._look_in_seconds = max(_LEAST_WAIT_SECONDS, wait_seconds)
            if self._alerter is not None:
                self._alerter.consider(report, now, considered.gave_up, considered.attempts)
        elif self._alerter is not None:
            self._alerter.consider(report, now)
        return report

    def next_look(self, due: float, at_seconds: float) -> float:
        """Return when to sample next on the monotonic clock: as planned, or sooner for a repair."""
        return due if self._look_in_seconds is None else min(due, at_seconds + self._look_in_seconds)

    def submit(self, report: HealthReport) -> None:
        """Send ``report``."""
        if self._telemetry is not None:
            self._telemetry.submit(report)

    def failures(self) -> tuple[CollectorFailure, ...]:
        """Return what of the agent itself does not work."""
        found: tuple[CollectorFailure, ...] = ()
        if self._telemetry is not None and self._telemetry.problem:
            found = (CollectorFailure(SPOOL_FAILURE, self._telemetry.problem[:300]),)
        if self._repair is not None:
            found += self._repair.failures()
        return found + self._alerter.failures() if self._alerter is not None else found

    def numbers(self) -> Mapping[str, float]:
        """Return the counters, for ``/metrics``."""
        found: dict[str, float] = {}
        if self._telemetry is not None:
            found |= {f"telemetry_{name}": value for name, value in asdict(self._telemetry.counts).items()}
        if self._alerter is not None:
            found["alerts_sent"], found["alerts_waiting"] = self._alerter.counts
        return found


def local_repair(config: AgentConfig, ring: Callable[[], None] = lambda: None) -> LocalRepair:
    """Return local repair as ``config`` has it."""
    from vm_agent.repair import LocalRepair  # noqa: PLC0415 - for --restart alone

    return LocalRepair(config.units, config.allow_list, config.state_dir, _systemctl, done=ring)


def alerter(config: AgentConfig) -> Alerter:
    """Return what sends alerts to the channels in ``config``."""
    from vm_agent.alerting import Alerter, channels  # noqa: PLC0415 - for --alert alone

    return Alerter(config.state_dir, channels(config), config.limits)


def _systemctl() -> Restarter:
    from vm_agent.remediation import Systemctl  # noqa: PLC0415 - a megabyte, for the day it is needed

    return Systemctl()


def _telemetry(config: AgentConfig, imds: Imds) -> tuple[Telemetry | None, Aggregator | None]:
    if config.telemetry is None:
        return None, None
    from vm_agent.aggregate import Aggregator  # noqa: PLC0415 - for those who report alone
    from vm_agent.spool import Spool  # noqa: PLC0415
    from vm_agent.telemetry import Telemetry  # noqa: PLC0415

    tokens = TokenCache(imds, MONITOR_RESOURCE) if config.telemetry_auth == "entra" else None
    spool = Spool(os.path.join(config.state_dir, "spool"), config.spool_max_bytes)
    telemetry = Telemetry(config.telemetry, tokens, spool)
    return telemetry, Aggregator(config.metrics_interval_seconds, telemetry.submit_metrics)
