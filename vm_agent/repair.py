"""Local repair (``--restart``): restarts what is down on this machine, by the watchdog's own rules.

Backoff, attempts and circuit are ``vm_health.repair``'s; here is what a machine adds to them: which units may
be touched at all, where the state is kept, and one lock that ``remediate`` takes too, so that two restarts
never happen at the same moment. The state is on the disk before a unit is touched. A unit that somebody
stopped, masked or removed is left alone, and so is one that systemd itself is about to start.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from vm_agent.allow_list import read_allow_list
from vm_agent.backoff_file import BackoffFile, after_clock_jump
from vm_agent.files import DirectoryLock
from vm_agent.render import lock_text
from vm_health.backoff import BackoffPolicy
from vm_health.errors import PermanentError, TransientError
from vm_health.model import Cause, CollectorFailure, DeployLock, HealthReport, RepairSample, UnitSample
from vm_health.policy import Policy
from vm_health.repair import Repair, on_down, on_up
from vm_health.state import UnitState

_LOG = logging.getLogger(__name__)
OWN_UNIT = "vm-agent.service"
FAILURE_NAME = "restart"
_MAX_MESSAGE_CHARS = 900
_UNDER_WAY = frozenset({"activating", "deactivating", "reloading", "refreshing"})


class Restarter(Protocol):
    """What is asked of systemd."""

    def reset_failed(self, unit: str) -> None: ...

    def restart(self, unit: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Considered:
    """A report with what local repair has to say, and the units that it has just given up."""

    report: HealthReport
    gave_up: tuple[str, ...] = ()
    attempts: int = 0


class LocalRepair:
    """Decides at each sample; restarts from a thread of its own, for that may take a minute and a half.

    One thread, the sampler's, calls it.
    """

    def __init__(
        self,
        units: Iterable[str],
        allow_list: str,
        state_dir: str,
        restarter: Callable[[], Restarter],
        *,
        policy: Policy | None = None,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        self._units = frozenset(units)
        self._allow_list = allow_list
        self._state_dir = state_dir
        self._file = BackoffFile(state_dir)
        self._lock = DirectoryLock(state_dir)
        self._restarter = restarter
        # One machine asks one systemd: there is nobody to be out of step with.
        self._policy = policy or Policy(backoff=BackoffPolicy(jitter_fraction=0.0))
        self._done = done
        self._states: dict[str, UnitState] = {}
        self._outcomes: dict[str, str] = {}
        self._problem = ""
        self._thread: threading.Thread | None = None
        self.look_at: datetime | None = None

    def failures(self) -> tuple[CollectorFailure, ...]:
        """Return what keeps local repair from working, as the report has it."""
        return (CollectorFailure(FAILURE_NAME, self._problem),) if self._problem else ()

    def consider(self, report: HealthReport, now: datetime) -> Considered:
        """Decide on every unit in ``report``, begin the restarts that are due, and say so in the report.

        ``look_at`` then holds the moment at which the next sample should be taken, None for no hurry.
        """
        self.look_at = None
        samples = {unit.name: unit for unit in report.sample.units if unit.name in self._units}
        if (lock := report.sample.deploy_lock) is not None:
            # What is due stays due; it is done after the lock, if the unit is down then.
            return Considered(self._told(report, dict.fromkeys(samples, _held(lock))))
        if all(unit.is_up for unit in samples.values()) and not self._file.exists():
            self._states, self._problem = {}, ""
            return Considered(report)
        try:
            os.makedirs(self._state_dir, mode=0o750, exist_ok=True)
            if not self._lock.take():
                return Considered(self._told(report, dict.fromkeys(samples, "a restart is under way")))
        except OSError as error:
            return self._refused(report, samples, f"{self._state_dir} cannot be used ({error.strerror})")
        try:
            found = self._decide(report, samples, now)
        except PermanentError as error:
            self._lock.release()
            return self._refused(report, samples, str(error))
        except BaseException:
            self._lock.release()
            raise
        return found

    def wait(self) -> bool:
        """Wait until the restarts that were begun are over; tells whether there were any."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        return thread is not None

    def _decide(self, report: HealthReport, samples: dict[str, UnitSample], now: datetime) -> Considered:
        """Judge, save, act, in this order; holds the lock, and hands it to the thread that acts."""
        remembered = self._file.load()
        states = {
            name: after_clock_jump(state, self._policy, now)
            for name, state in remembered.items()
            if name in self._units
        }
        notes: dict[str, str] = {}
        repairs: dict[str, Repair] = {}
        for name, unit in samples.items():
            repair = self._judge(unit, states, now, notes)
            if repair is None:
                states.pop(name, None)
                self._outcomes.pop(name, None)
                continue
            repairs[name] = repair
            states[name] = repair.state
        if states != remembered:
            self._file.save(states)
        self._states, self._problem = states, ""
        self.look_at = min((one.look_at for one in repairs.values() if one.look_at), default=None)
        self._act([name for name, repair in repairs.items() if repair.attempt_now])
        gave_up = tuple(name for name, repair in repairs.items() if repair.opened_circuit)
        for name in gave_up:
            _LOG.error("repair gave up", extra={"unit": name, "reason": repairs[name].reason})
        attempts = max((state.attempts for state in states.values()), default=0)
        return Considered(self._told(report, notes), gave_up, attempts)

    def _judge(
        self, unit: UnitSample, states: dict[str, UnitState], now: datetime, notes: dict[str, str]
    ) -> Repair | None:
        """Decide on one unit; None where there is nothing to remember of it."""
        state = states.get(unit.name)
        if unit.is_up:
            return None if state is None else on_up(state, now, self._policy)
        if unit.active_state in _UNDER_WAY and unit.load_state == "loaded":
            notes[unit.name] = "systemd is at it"
            return None if state is None else Repair(state, notes[unit.name])
        reason = self._why_not(unit)
        if reason:
            notes[unit.name] = f"not restarted: {reason}"
            return None
        repair = on_down(state or UnitState(), now, self._policy, now, unit.name)
        outcome = self._outcomes.get(unit.name, "")
        needs = ", people are needed" if repair.state.circuit_open else ""
        notes[unit.name] = f"local repair: {repair.reason}{needs}" + (f" ({outcome})" if outcome else "")
        if repair.attempt_now:
            _LOG.warning("repair", extra={"unit": unit.name, "reason": repair.reason})
        return repair

    def _why_not(self, unit: UnitSample) -> str:
        """Say why a unit that is down is nobody's to restart, "" where it may be."""
        if unit.load_state != "loaded":
            return f"systemd says that it is {unit.load_state}"
        if unit.name == OWN_UNIT:
            return "the agent does not restart itself"
        if unit.active_state == "inactive" and unit.result == "success":
            return "it was stopped on purpose, or ended by itself without an error"
        if unit.name not in read_allow_list(self._allow_list):
            return f"it is not in {self._allow_list}"
        return ""

    def _refused(self, report: HealthReport, samples: dict[str, UnitSample], problem: str) -> Considered:
        """Restart nothing; the watchdog sees open circuits, so that it does not hold back."""
        if problem != self._problem:
            _LOG.error("repair is not possible", extra={"reason": problem})
        self._problem = f"nothing is restarted by the agent: {problem}"
        starting = {one.subject for one in report.findings if one.code is Cause.SERVICE_STARTING}
        down = [name for name, unit in samples.items() if not unit.is_up and name not in starting]
        self._states = {name: UnitState(circuit_open=True) for name in down}
        return Considered(self._told(report, dict.fromkeys(down, "not restarted by the agent")))

    def _told(self, report: HealthReport, notes: dict[str, str]) -> HealthReport:
        """Return ``report`` with the repairs, and with the reason behind each unit that is down."""
        findings = tuple(
            replace(finding, message=f"{finding.message}; {notes[finding.subject]}"[:_MAX_MESSAGE_CHARS])
            if finding.code is Cause.SERVICE_DOWN and finding.subject in notes
            else finding
            for finding in report.findings
        )
        repairs = tuple(
            RepairSample(name, state.attempts, state.not_before, state.circuit_open)
            for name, state in sorted(self._states.items())
        )
        return replace(report, findings=findings, repairs=repairs)

    def _act(self, units: list[str]) -> None:
        if not units:
            self._lock.release()
            return
        self._thread = threading.Thread(target=self._restart_all, args=(units,), name="repair", daemon=True)
        self._thread.start()

    def _restart_all(self, units: list[str]) -> None:
        try:
            restarter = self._restarter()
            for unit in units:
                self._outcomes[unit] = problem = self._restart(restarter, unit)
                _LOG.info("restarted", extra={"unit": unit, "problem": problem or "none"})
        finally:
            self._lock.release()
            self._done()

    def _restart(self, restarter: Restarter, unit: str) -> str:
        try:
            restarter.reset_failed(unit)
            problem = restarter.restart(unit)
        except TransientError as error:
            problem = str(error)
        return f"the last restart failed: {problem}" if problem else ""


def _held(lock: DeployLock) -> str:
    return f"not restarted: a deployment holds this VM {lock_text(lock)}"
