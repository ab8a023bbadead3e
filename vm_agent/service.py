"""The running agent: puts the parts together, samples on schedule, ends on a signal.

The main thread only waits for signals, so that SIGTERM works at once whatever the sampler is doing.
"""

from __future__ import annotations

import faulthandler
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from vm_agent import collectors
from vm_agent.board import Board, empty_report
from vm_agent.collectors.base import Round
from vm_agent.config import AgentConfig
from vm_agent.duties import Duties
from vm_agent.endpoint import Endpoint, advertised
from vm_agent.imds import Imds, VmIdentity
from vm_agent.notify import Notifier
from vm_agent.nudge import Nudger
from vm_agent.sampler import Sampler, what_changed
from vm_agent.unit_watch import UnitWatch
from vm_agent.wake import Wake
from vm_health.model import HealthReport

_LOG = logging.getLogger(__name__)
COLLECTOR_TIMEOUT_SECONDS = 8.0
_STOP_SECONDS = 4.0  # for the last metrics to be sent; systemd waits ten before it kills


class Reporter:
    """Decides when a report is worth sending: on every change at once, else once an interval."""

    def __init__(
        self, interval_seconds: float, send: Callable[[HealthReport], None], nudge: Callable[[str], None]
    ) -> None:
        self._interval_seconds = interval_seconds
        self._send = send
        self._nudge = nudge
        self._last: HealthReport | None = None
        self._due_at = 0.0

    def consider(self, report: HealthReport, at_seconds: float) -> str:
        """Send ``report`` if it is due or new; returns the change it was sent for, "" for none.

        ``at_seconds`` is the monotonic time of the sample.
        """
        change = what_changed(self._last, report)
        is_first = self._last is None
        if self._last is None or self._last.status is not report.status:
            reasons = "; ".join(finding.message for finding in report.findings[:5])
            _LOG.info("status", extra={"status": report.status.value, "reason": reasons or "all is well"})
        self._last = report
        if change or at_seconds >= self._due_at:
            self._due_at = at_seconds + self._interval_seconds
            self._send(report)
        if change and not is_first:  # a fleet that is updated must not nudge all at once
            self._nudge(report.vm_id)
        return change


class Agent:
    """All parts, wired for ``config``. The constructor binds the port and starts nothing."""

    def __init__(self, config: AgentConfig, notifier: Notifier) -> None:
        self._config = config
        self._notifier = notifier
        imds = Imds(config.imds_url)
        self._identity = VmIdentity(config.vm_id, imds)
        self._nudger = Nudger(config.nudge_url, config.nudge_key) if config.nudge_url else None
        self._samples = 0
        # The endpoint needs the board, the board would like the port: it starts with what is known.
        nothing = empty_report(socket.gethostname(), config.vm_id, config.endpoint, datetime.now(UTC))
        self._board = Board(nothing, config.stale_after_seconds)
        self._endpoint = Endpoint(config, self._board, self._own_numbers)
        self._wake = Wake()
        self._duties = Duties(config, imds, self._wake.ring)
        self._watch = UnitWatch(config.units, config.unit_source, config.system_bus, self._wake.ring)
        looks = collectors.build(config, self._watch, self._identity.vm_id, keeps_history=True)
        self._sampler = Sampler(
            Round(looks, COLLECTOR_TIMEOUT_SECONDS),
            config.limits,
            vm_id=self._identity.vm_id,
            endpoint=self.advertised,
            own_failures=self._duties.failures,
        )
        self._reporter = Reporter(config.report_interval_seconds, self._duties.submit, self._nudge)

    def advertised(self) -> str:
        """Return the URL under which the endpoint is told to the watchdog."""
        endpoint = self._endpoint
        return advertised(self._config.endpoint, endpoint.scheme, self._config.listen_address, endpoint.port)

    def start(self, on_broken: Callable[[], None]) -> None:
        """Start every thread but the sampler's; ``on_broken`` is called where the endpoint can't go on."""
        config = self._config
        self._endpoint.start(on_broken)
        self._identity.start()
        self._watch.start()
        self._duties.start()
        if self._nudger is not None:
            self._nudger.start()
        _LOG.info(
            "vm-agent runs",
            extra={
                "units": ",".join(config.units) or "none",
                "mounts": ",".join(config.disk_mounts) or "all on disks",
                "heartbeat_files": ",".join(path for _, path in config.heartbeat_files) or "none",
                "health": f"{self.advertised() or 'port ' + str(self._endpoint.port)}/health",
                "telemetry": config.telemetry.host if config.telemetry else "off",
            },
        )

    def sample_for_ever(self) -> None:
        """Sample on schedule, and between when something rings; a round that took too long skips beats.

        A rung sample leaves the schedule as it is.
        """
        interval = self._config.sample_interval_seconds
        due = time.monotonic()
        while True:
            began = time.monotonic()
            now = datetime.now(UTC)
            report = self._duties.take(self._sampler.take(now), now, began)
            self._samples += 1
            self._board.post(report, began)
            self._reporter.consider(report, began)
            # The loop itself pings systemd's watchdog, and only here: who hangs in a sample is killed.
            self._notifier.sampled(report)
            if began >= due:
                due += interval * max(1, -(-(time.monotonic() - due) // interval))
            self._wake.sleep_until(self._duties.next_look(due, began))

    def close(self) -> None:
        """Free the port and save what waits; what other threads are at is given up."""
        self._notifier.stopping()
        self._endpoint.close()
        self._duties.stop(_STOP_SECONDS)

    def _nudge(self, vm_id: str) -> None:
        if self._nudger is not None:
            self._nudger.nudge(vm_id)

    def _own_numbers(self) -> Mapping[str, float]:
        return {"samples": self._samples, **self._watch.numbers(), **self._duties.numbers()}


def run(config: AgentConfig, notifier: Notifier) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code: 0, or 1 where sampler or endpoint broke.

    Raises:
        ConfigError: the port cannot be had.
    """
    # systemd's watchdog ends a stuck agent with SIGABRT: the journal then says where every thread hung.
    faulthandler.enable()
    # Signals wake the main thread through a socket: an Event set from a handler can deadlock in wait().
    sleeper, waker = socket.socketpair()
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _keep_on)
    agent = Agent(config, notifier)
    broken = threading.Event()

    def break_off() -> None:
        broken.set()
        waker.send(b"\0")

    agent.start(break_off)

    def sample() -> None:
        try:
            agent.sample_for_ever()
        except Exception:  # noqa: BLE001 - logged whole, and the process ends
            _LOG.exception("sampler broke; ending, so that systemd starts it afresh")
            break_off()

    threading.Thread(target=sample, name="sampler", daemon=True).start()
    sleeper.recv(1)
    agent.close()
    if not broken.is_set():
        _LOG.info("vm-agent ends")
    return 1 if broken.is_set() else 0


def _keep_on(number: int, frame: object) -> None:
    """Let the signal reach the wake-up socket; by default it would end the process on the spot."""
