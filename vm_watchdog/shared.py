"""One answer for many askers: what is asked for again within seconds is asked of Azure once.

Rechecks of many VMs come at once when a fleet is in trouble; Log Analytics allows 200 queries in 30 s, and
Resource Manager's lists have their own limits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Generic, TypeVar

from vm_watchdog.ports import FleetTelemetry, Inventory, Target, Telemetry

T = TypeVar("T")


class Shared(Generic[T]):
    """Keeps the last answer of ``fetch``; while one is being fetched, everybody waits for that one."""

    def __init__(self, fetch: Callable[[], Awaitable[T]]) -> None:
        self._fetch = fetch
        self._answer: tuple[datetime, T] | None = None
        self._lock = asyncio.Lock()

    async def get(self, now: datetime, max_age_seconds: float) -> T:
        """Return an answer that was asked for at most ``max_age_seconds`` before ``now``."""
        async with self._lock:
            if self._answer is not None:
                age = (now - self._answer[0]).total_seconds()
                if 0 <= age <= max_age_seconds:
                    return self._answer[1]
            answer = await self._fetch()
            self._answer = (now, answer)
            return answer


class SharedTelemetry:
    """The telemetry port over another one whose answer is shared for ``max_age_seconds``."""

    def __init__(self, inner: Telemetry, clock: Callable[[], datetime], max_age_seconds: float) -> None:
        self._shared = Shared(inner.newest_snapshots)
        self._clock = clock
        self._max_age_seconds = max_age_seconds

    async def newest_snapshots(self) -> FleetTelemetry:
        """Return the fleet's newest snapshots, a few seconds old at most."""
        return await self._shared.get(self._clock(), self._max_age_seconds)


class SharedInventory:
    """The inventory port over another one whose list is shared for ``max_age_seconds``."""

    def __init__(self, inner: Inventory, clock: Callable[[], datetime], max_age_seconds: float) -> None:
        self._inner = inner
        self._shared = Shared(inner.list_targets)
        self._clock = clock
        self._max_age_seconds = max_age_seconds

    async def list_targets(self) -> Sequence[Target]:
        """Return the opted-in VMs, as listed a few seconds ago at most."""
        return await self._shared.get(self._clock(), self._max_age_seconds)

    async def get_target(self, vm_id: str) -> Target | None:
        """Return one VM as it is now."""
        return await self._inner.get_target(vm_id)
