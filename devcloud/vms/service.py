"""One service as systemd would run it: its states, its process group, its restarts and its start limit.

Part of the stand-in for systemd. Doesn't read files and doesn't know of ``systemctl``.
Behaviour follows systemd 252 (src/core/service.c), and a test holds the two against each other.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from devcloud.vms.units import ServiceSettings

_CLEAN_SIGNALS = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE}
_CLD_EXITED, _CLD_KILLED, _CLD_DUMPED = 1, 2, 3


class State(StrEnum):
    """Where a service is; the value is systemd's SubState."""

    DEAD = "dead"
    RUNNING = "running"
    STOPPING = "stop-sigterm"
    KILLING = "stop-sigkill"
    FAILED = "failed"
    AUTO_RESTART = "auto-restart"

    @property
    def active_state(self) -> str:
        """systemd's ActiveState for it."""
        return {
            State.DEAD: "inactive",
            State.RUNNING: "active",
            State.STOPPING: "deactivating",
            State.KILLING: "deactivating",
            State.FAILED: "failed",
            State.AUTO_RESTART: "activating",
        }[self]


@dataclass(frozen=True, slots=True)
class Moment:
    """A change's time on both clocks, in microseconds; zero means never."""

    realtime: int = 0
    monotonic: int = 0

    @classmethod
    def now(cls) -> Moment:
        return cls(time.time_ns() // 1000, time.monotonic_ns() // 1000)


class StartLimit:
    """systemd's rate limit: at most ``burst`` starts in a window that opens with the first of them."""

    def __init__(self) -> None:
        self._window_started_at = 0.0
        self._starts = 0

    def allows(self, interval_seconds: float, burst: int) -> bool:
        """Count one start; false where it is one too many."""
        if interval_seconds <= 0 or burst <= 0:
            return True
        now = time.monotonic()
        if self._starts == 0 or now - self._window_started_at > interval_seconds:
            self._window_started_at, self._starts = now, 0
        self._starts += 1
        return self._starts <= burst

    def reset(self) -> None:
        self._starts = 0


class Service:
    """The life of one unit. ``spawn`` starts its process, leader of an own group, and returns the pid."""

    def __init__(self, name: str, spawn: Callable[[str, ServiceSettings], int]) -> None:
        self.name = name
        self.settings: ServiceSettings | None = None
        self.bad_setting = ""
        self.state = State.DEAD
        self.result = "success"
        self.restarts = 0
        self.main_pid = 0
        self.exit_code = 0
        self.exit_status = 0
        self.active_entered = Moment()
        self.active_left = Moment()
        self.inactive_entered = Moment()
        self.inactive_left = Moment()
        self.changed = Moment()
        self._spawn = spawn
        self._limit = StartLimit()
        self._flush_restarts = False
        self._stop_asked = False
        self._timer: asyncio.TimerHandle | None = None
        self._settled = asyncio.Event()
        self._settled.set()

    @property
    def load_state(self) -> str:
        """systemd's LoadState."""
        if self.bad_setting:
            return "bad-setting"
        return "loaded" if self.settings is not None else "not-found"

    async def start(self) -> bool:
        """Start unless it runs; false where the start limit forbids it."""
        if self.state is State.AUTO_RESTART:  # systemd leaves the job queued until the restart comes
            await self._settled.wait()
            return self._runs()
        if self.state in (State.STOPPING, State.KILLING):
            await self._settled.wait()
        return self._runs() or self._start()

    async def stop(self) -> None:
        """Stop and wait until nothing of it is left."""
        self._stop_asked = True
        if self.state is State.AUTO_RESTART:
            self._cancel_timer()
            self._enter(State.DEAD)
            self._flush_restarts = True
        elif self.state is State.RUNNING:
            self._enter(State.STOPPING)
            self._signal_group(signal.SIGTERM)
            assert self.settings is not None
            self._later(self.settings.stop_timeout_seconds, self._kill)
        await self._settled.wait()

    async def restart(self) -> bool:
        """Stop, then start; false where the start limit forbids it."""
        await self.stop()
        return self._start()

    def reset_failed(self) -> None:
        """Forget a failure, the restarts and the starts counted so far."""
        if self.state is State.FAILED:
            self.result = "success"
            self._enter(State.DEAD)
        self.restarts = 0
        self._limit.reset()

    def on_reload(self) -> None:
        """The unit files are read again: systemd 252 then begins to count starts anew."""
        self._limit.reset()

    def on_exit(self, wait_status: int) -> None:
        """The main process has ended with this status of ``waitpid``."""
        if os.WIFSIGNALED(wait_status):
            self.exit_status = os.WTERMSIG(wait_status)
            dumped = os.WCOREDUMP(wait_status)
            self.exit_code = _CLD_DUMPED if dumped else _CLD_KILLED
            outcome = "core-dump" if dumped else "signal"
            clean = self.exit_status in _CLEAN_SIGNALS
        else:
            self.exit_status, self.exit_code = os.WEXITSTATUS(wait_status), _CLD_EXITED
            outcome, clean = "exit-code", self.exit_status == 0
        killed_for_time = self.state is State.KILLING
        self._cancel_timer()
        self._signal_group(signal.SIGKILL)  # what the main process left in its group goes with it
        self.main_pid = 0
        if not clean and self.result == "success":
            self.result = "timeout" if killed_for_time else outcome
        self._enter_dead(allow_restart=not self._stop_asked)

    def _runs(self) -> bool:
        return self.state is State.RUNNING

    def _start(self) -> bool:
        settings = self.settings
        assert settings is not None
        self._stop_asked = False
        if not self._limit.allows(settings.start_limit_interval_seconds, settings.start_limit_burst):
            if self.result == "success":
                self.result = "start-limit-hit"
            self._enter_dead(allow_restart=False)
            return False
        if self._flush_restarts:
            self.restarts, self._flush_restarts = 0, False
        self.result, self.exit_code, self.exit_status = "success", 0, 0
        self.main_pid = self._spawn(self.name, settings)
        self._enter(State.RUNNING)
        return True

    def _enter_dead(self, *, allow_restart: bool) -> None:
        assert self.settings is not None
        wanted = {
            "no": False,
            "always": True,
            "on-failure": self.result != "success",
            "on-success": self.result == "success",
        }[self.settings.restart]
        if allow_restart and wanted:
            self._enter(State.AUTO_RESTART)
            self._later(self.settings.restart_seconds, self._auto_restart)
        else:
            self._flush_restarts = True
            self._enter(State.DEAD if self.result == "success" else State.FAILED)

    def _auto_restart(self) -> None:
        self._timer = None
        self.restarts += 1
        self._flush_restarts = False
        self._start()

    def _kill(self) -> None:
        self._timer = None
        self._enter(State.KILLING)
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: signal.Signals) -> None:
        if self.main_pid:
            try:
                os.killpg(self.main_pid, number)
            except (ProcessLookupError, PermissionError):
                return

    def _enter(self, state: State) -> None:
        now, before = Moment.now(), self.state.active_state
        self.state, self.changed = state, now
        after = state.active_state
        idle = ("inactive", "failed")
        if after == "active" and before != "active":
            self.active_entered = now
        if before == "active" and after != "active":
            self.active_left = now
        if after in idle and before not in idle:
            self.inactive_entered = now
        if before in idle and after not in idle:
            self.inactive_left = now
        if state in (State.RUNNING, State.DEAD, State.FAILED):
            self._settled.set()
        else:
            self._settled.clear()

    def _later(self, delay_seconds: float, action: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = asyncio.get_running_loop().call_later(delay_seconds, action)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
