"""Fires timer functions on their schedule: never two runs at once, one catch-up run for what was missed.

Keeps no schedule status over a restart, as Azure does in its storage: a start is never past due here.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import azure.functions.timer as timer_binding

from .app import HostedFunction, TimerTrigger
from .invocation import Invoker

# Long sleeps are cut so that a clock that was set, or a laptop that slept, delays a run by this much at most.
_LONGEST_SLEEP_SECONDS = 30.0


class TimerListener:
    """One timer function's schedule."""

    def __init__(self, function: HostedFunction, trigger: TimerTrigger, invoker: Invoker) -> None:
        self._function = function
        self._trigger = trigger
        self._invoker = invoker
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Fire until ``stop``."""
        schedule = self._trigger.schedule
        last = _now()
        if self._trigger.run_on_startup:
            await self._fire(last, last, past_due=False)
        due = schedule.next_after(last)
        while await self._sleep_until(due):
            await self._fire(last, due, past_due=False)
            last, due = due, schedule.next_after(due)
            while due <= (now := _now()) and not self._stopping.is_set():
                # However many occurrences the run outlasted, Azure makes up for them with one run, at once.
                await self._fire(last, now, past_due=True)
                last, due = now, schedule.next_after(now)

    def stop(self) -> None:
        """Fire no more; a run under way goes on."""
        self._stopping.set()

    async def _fire(self, last: datetime, due: datetime, *, past_due: bool) -> None:
        status = {
            "Last": last.isoformat(),
            "Next": self._trigger.schedule.next_after(due).isoformat(),
            "LastUpdated": last.isoformat(),
        }
        request = timer_binding.TimerRequest(
            past_due=past_due, schedule_status=status, schedule={"AdjustForDST": True}
        )
        await self._invoker.invoke(self._function, request)

    async def _sleep_until(self, due: datetime) -> bool:
        """Answers False where the listener was stopped instead."""
        while (left := (due - _now()) / timedelta(seconds=1)) > 0:
            try:
                await asyncio.wait_for(self._stopping.wait(), min(left, _LONGEST_SLEEP_SECONDS))
            except TimeoutError:
                continue
            return False
        return not self._stopping.is_set()


def _now() -> datetime:
    return datetime.now(UTC)
