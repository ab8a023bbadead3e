"""What people ask of the watchdog, by HTTP or at the command line: how things stand, and a few requests.

It decides nothing about VMs: restarts go through the same safety as the watchdog's own. Who asked, and why,
is written into the history of the VM or of the fleet.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from vm_health.errors import ConflictError, NotFoundError
from vm_health.fleet import FleetDecision
from vm_health.safety import thaw
from vm_health.silence import Silence
from vm_health.state import FLEET_ID, VmState
from vm_watchdog import silencing, views
from vm_watchdog.api_models import (
    ExplainView,
    FleetRows,
    FleetView,
    HistoryView,
    RestartView,
    SilenceView,
    VmView,
    WouldHaveView,
)
from vm_watchdog.api_requests import MAX_HISTORY, FieldFault, RestartRequest, SilenceRequest, ThawRequest
from vm_watchdog.checks import checked_by, refuse
from vm_watchdog.look import Ports
from vm_watchdog.lookup import Found, find_history, find_vm
from vm_watchdog.on_demand import preview, restart_on_request
from vm_watchdog.ports import TickRecord
from vm_watchdog.problems import HeldError, UnknownError
from vm_watchdog.sight import TickOptions

MAX_THAW = timedelta(days=1)
WOULD_HAVE_KINDS = ("would_restart", "would_vm_action", "held")
_TRIES = 4


def _new_id() -> str:
    return secrets.token_hex(8)


@dataclass(frozen=True, slots=True)
class Operator:
    """Answers people. Errors are those of ``vm_health.errors``; ``new_id`` names new silences."""

    ports: Ports
    options: TickOptions
    new_id: Callable[[], str] = field(default=_new_id, repr=False)

    async def status(self) -> FleetView:
        """Return how the fleet stands, and whether the watchdog may act."""
        return (await self.overview())[0]

    async def overview(self) -> tuple[FleetView, FleetRows]:
        """Return the fleet as a whole, and every VM."""
        now = self.options.clock()
        stored, record, (fleet, _), silences = await asyncio.gather(
            self.ports.store.load(0, 1),
            self.ports.store.load_tick(),
            self.ports.fleet.load_fleet(),
            self._silences(now),
        )
        states = {vm_id: one.state for vm_id, one in stored.items()}
        may_act = self.options.may_act
        view = views.fleet_view(states, record, fleet, silences, now, may_act=may_act)
        return view, FleetRows(last_tick=_finished(record), vms=views.worst_first(states))

    async def vm(self, name: str, group: str = "") -> VmView:
        """Return everything that is remembered of a VM, and what applies to it.

        Raises:
            NotFoundError: no VM is known by that name.
            ConflictError: more than one is.
        """
        now = self.options.clock()
        found = await find_vm(self.ports, name, group)
        state = VmState() if found.stored is None else found.stored.state
        fitting = silencing.fitting(await self._silences(now), found.subject, now)
        policy = self.options.book.explain(found.subject)
        return views.vm_view(found, state, fitting, policy, now)

    async def history(
        self,
        name: str,
        group: str = "",
        limit: int = 100,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> HistoryView:
        """Return what happened to a VM and why, newest first. ``fleet`` names the fleet's own history; a VM
        that is gone has its history under its full ARM id.

        Raises:
            NotFoundError, ConflictError: as :meth:`vm`.
        """
        faults = [] if 1 <= limit <= MAX_HISTORY else [_fault("limit", f"must be 1 to {MAX_HISTORY}", limit)]
        if since is not None and until is not None and since > until:
            faults.append(_fault("since", "must not be after until", since.isoformat()))
        refuse(faults)
        vm_id, shown = FLEET_ID, FLEET_ID
        if name.lower() != FLEET_ID:
            found = await find_history(self.ports, name, group)
            vm_id, shown = found.vm_id, found.name
        events = await self.ports.store.read_events(vm_id, limit + 1, since, until)
        return HistoryView(
            vm_id=vm_id,
            name=shown,
            since=since,
            until=until,
            events=[views.event_view(event) for event in events[:limit]],
            has_more=len(events) > limit,
        )

    async def silences(self) -> list[SilenceView]:
        """Return every silence that has not ended, and the maintenance windows in force."""
        now = self.options.clock()
        found = await self._silences(now)
        return views.silence_views((silence for silence in found if now < silence.ends_at), now)

    async def add_silence(self, request: SilenceRequest) -> SilenceView:
        """Keep alerts, action or both from some VMs for a time.

        Raises:
            ConfigError: with every fault of the request.
        """
        now = self.options.clock()
        silence = await silencing.begin(self.ports, request, self.new_id(), now)
        return views.silence_view(silence, now)

    async def end_silence(self, silence_id: str, by: str) -> SilenceView:
        """End a silence now.

        Raises:
            ConfigError: nobody says who asks.
            NotFoundError: there is none with this id, or it has ended.
        """
        now = self.options.clock()
        return views.silence_view(await silencing.end(self.ports, silence_id, by, now), now)

    async def restart(self, name: str, unit: str, by: str, why: str, group: str = "") -> RestartView:
        """Restart a unit now, under the same safety as the watchdog's own restarts.

        Raises:
            ConfigError: with every fault of the request.
            NotFoundError: no VM is known by that name, or Azure doesn't show it.
            ConflictError: more than one is, or the restart is held; the message says by what.
        """
        asked = checked_by(RestartRequest, by, {"unit": unit, "why": why, "group": group})
        found = await find_vm(self.ports, name, group)
        with _known(found):
            answer = await restart_on_request(
                self.ports, self.options, found.vm_id, asked.unit, asked.by, asked.why
            )
        if not answer.accepted:
            raise HeldError(f"{asked.unit} on {found.name} was not restarted: {answer.reason}")
        return RestartView(
            vm_id=found.vm_id, name=found.name, unit=asked.unit, reason=answer.reason, token=answer.token
        )

    async def thaw(self, until: datetime, by: str, why: str) -> FleetView:
        """Overrule every freeze until a moment, at most a day ahead.

        Raises:
            ConfigError: with every fault of the request.
            ConflictError: others kept changing the fleet's state.
        """
        now = self.options.clock()
        asked = checked_by(ThawRequest, by, {"until": until, "why": why})
        if not now < until <= now + MAX_THAW:
            refuse([_fault("until", "must be ahead, and by a day at most", until.isoformat())])
        decided = await self._save_thaw(until, asked.by, now)
        events = [
            replace(
                event,
                reason=f"{event.reason}: {asked.why}",
                detail={**event.detail, "by": asked.by, "why": asked.why},
            )
            for event in decided.events
        ]
        await self.ports.store.append_events(FLEET_ID, events)
        return await self.status()

    async def would_have(self, since: datetime) -> list[WouldHaveView]:
        """Return what would have been done since a moment, were it not observed or held; newest first."""
        found = await self.ports.store.find_events(WOULD_HAVE_KINDS, since, MAX_HISTORY)
        return [views.would_have_view(vm_id, event) for vm_id, event in found]

    async def explain(self, name: str, group: str = "") -> ExplainView:
        """Look at a VM afresh and do nothing: what is seen, concluded, would be done, and what holds it.

        Raises:
            NotFoundError, ConflictError: as :meth:`vm`.
        """
        found = await find_vm(self.ports, name, group)
        with _known(found):
            seen = await preview(self.ports, self.options, found.vm_id)
        fitting = silencing.fitting(seen.sight.silences, found.subject, seen.sight.now)
        return views.explain_view(found, seen, fitting, self.options.book.explain(found.subject))

    async def _save_thaw(self, until: datetime, by: str, now: datetime) -> FleetDecision:
        for _ in range(_TRIES):
            state, etag = await self.ports.fleet.load_fleet()
            decided = thaw(state, until, by, now)
            try:
                await self.ports.fleet.save_fleet(decided.state, etag)
            except ConflictError:
                continue
            return decided
        raise ConflictError("others kept changing the fleet's state")

    async def _silences(self, now: datetime) -> Sequence[Silence]:
        return (*await self.ports.silences.list_silences(), *self.options.book.silences_at(now))


@contextmanager
def _known(found: Found) -> Iterator[None]:
    """A VM that is only remembered, or went away just now, is one that nobody knows."""
    try:
        yield
    except NotFoundError:
        raise UnknownError(f"VM {found.name} is not in the inventory (any more)") from None


def _fault(name: str, problem: str, was: object) -> FieldFault:
    return FieldFault(name, problem, str(was))


def _finished(record: TickRecord | None) -> datetime | None:
    return None if record is None else record.finished_at
