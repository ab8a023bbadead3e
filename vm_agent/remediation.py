"""Restarts one unit for the watchdog, as root and through Run Command: if it may, and once for a decision.

Order: names, allow-list, token, then systemd. The token is used up before the restart: a call that dies
half-way leaves a unit that may not have been restarted, never one that is restarted twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from vm_agent import systemctl
from vm_agent.allow_list import is_allowed
from vm_agent.config import RemediationConfig
from vm_agent.fence import Fence
from vm_agent.files import DirectoryLock
from vm_health.errors import PermanentError, TransientError
from vm_health.model import UnitSample
from vm_health.names import is_token, is_unit_name

MARKER = "VM_AGENT_RESULT "
RESET_TIMEOUT_SECONDS = 10.0
RESTART_TIMEOUT_SECONDS = 90.0  # with the rest it stays within the 120 s that Run Command is given
LOCK_WAIT_SECONDS = 10.0
_LOCK_LOOK_SECONDS = 0.1


class Result(StrEnum):
    """How it ended."""

    RESTARTED = "restarted"
    REFUSED = "refused"
    DUPLICATE = "duplicate"
    FAILED = "failed"

    @property
    def exit_code(self) -> int:
        """0 restarted, 4 refused, 5 duplicate, 6 failed: none of them is a check's code but success."""
        return {"restarted": 0, "refused": 4, "duplicate": 5}.get(self.value, 6)


@dataclass(frozen=True, slots=True)
class Remediation:
    """What was done and why; the watchdog reads it from the one line."""

    result: Result
    unit: str
    token: str
    reason: str = ""
    active_state: str = ""
    sub_state: str = ""
    main_pid: int = 0

    def line(self) -> str:
        """Return the result line: Run Command hands back a tail of the output, so it is marked and short."""
        return MARKER + json.dumps(asdict(self), separators=(",", ":"))


class Systemd(Protocol):
    """What is asked of systemd."""

    def reset_failed(self, unit: str) -> None: ...

    def restart(self, unit: str) -> str:
        """Restart ``unit``; returns what went wrong, "" for nothing."""
        ...

    def look(self, unit: str) -> UnitSample: ...


class Systemctl:
    """systemd through its own command."""

    def reset_failed(self, unit: str) -> None:
        """Clear the start limit, else a restart after a crash loop is refused; not failed is fine too."""
        systemctl.call(["reset-failed", "--", unit], RESET_TIMEOUT_SECONDS)

    def restart(self, unit: str) -> str:
        """Restart ``unit`` and wait for systemd's job."""
        return systemctl.call(["restart", "--", unit], RESTART_TIMEOUT_SECONDS).problem

    def look(self, unit: str) -> UnitSample:
        """Return the unit's state now."""
        return systemctl.show([unit], RESET_TIMEOUT_SECONDS)[0]


def request_fault(unit: str, token: str) -> str:
    """Say what is wrong with a request, "" for nothing."""
    if not is_unit_name(unit):
        return "unit must be a systemd unit name with its suffix, such as nginx.service"
    if not is_token(token):
        return "token must be 1 to 64 of letters, digits and -"
    return ""


def remediate(
    unit: str,
    token: str,
    now: datetime,
    *,
    allowed: Callable[[str], bool],
    claim: Callable[[str, str, datetime], bool],
    systemd: Systemd,
) -> Remediation:
    """Restart ``unit`` if it may be and ``token`` is fresh; every ending is a value."""
    about = Remediation(Result.REFUSED, unit[:256], token[:64])
    fault = request_fault(unit, token)
    if fault:
        return replace(about, reason=fault)
    try:
        if not allowed(unit):
            return replace(about, reason="the unit is not in the allow-list")
        if not claim(token, unit, now):
            return replace(about, result=Result.DUPLICATE, reason="the token was used before")
    except PermanentError as error:
        return replace(about, reason=str(error))
    try:
        systemd.reset_failed(unit)
        problem = systemd.restart(unit)
        after = systemd.look(unit)
    except TransientError as error:
        return replace(about, result=Result.FAILED, reason=str(error))
    if not problem and (after.active_state == "failed" or after.sub_state == "auto-restart"):
        # systemctl is content once the process was started, even where that died on the spot.
        problem = f"the unit failed again at once ({after.result})"
    return replace(
        about,
        result=Result.FAILED if problem else Result.RESTARTED,
        reason=problem,
        active_state=after.active_state,
        sub_state=after.sub_state,
        main_pid=after.main_pid,
    )


def remediate_here(
    unit: str,
    token: str,
    now: datetime,
    config: RemediationConfig,
    lock_wait_seconds: float = LOCK_WAIT_SECONDS,
) -> Remediation:
    """Do it on this machine, and never at the same moment as the agent's own repair."""
    locks = [DirectoryLock(path) for path in dict.fromkeys((config.state_dir, config.root_state_dir))]
    if not _take_all(locks, lock_wait_seconds):
        reason = "the agent itself is restarting a unit on this VM; the token was not used up"
        return Remediation(Result.FAILED, unit[:256], token[:64], reason)
    try:
        return remediate(
            unit,
            token,
            now,
            allowed=lambda name: is_allowed(name, config.allow_list),
            claim=Fence(config.root_state_dir).claim,
            systemd=Systemctl(),
        )
    finally:
        for lock in locks:
            lock.release()


def _take_all(locks: Iterable[DirectoryLock], timeout_seconds: float) -> bool:
    """Take every lock; a directory that is not there is nobody's, for no agent keeps its state in it."""
    deadline = time.monotonic() + timeout_seconds
    for lock in locks:
        try:
            while not lock.take():
                if time.monotonic() > deadline:
                    return False
                time.sleep(_LOCK_LOOK_SECONDS)
        except OSError:
            continue
    return True
