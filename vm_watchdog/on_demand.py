"""What a person asks of one VM: a restart now, under the same safety and audit; or a look without action."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from vm_health.errors import NotFoundError
from vm_health.names import is_unit_name
from vm_health.requests import Request, on_request
from vm_health.state import Decision, Hold, UnitState
from vm_watchdog import slots
from vm_watchdog.evaluation import judge_by_store, load_sight, read_telemetry, withdraw
from vm_watchdog.look import Observed, Ports, decide, finish, observe
from vm_watchdog.ports import Stored, Target
from vm_watchdog.sight import Sight, TickOptions

_TRIES = 3


@dataclass(frozen=True, slots=True)
class RequestAnswer:
    """Whether a restart was sent, why (not), and its fencing token."""

    accepted: bool
    reason: str
    token: str = ""


@dataclass(frozen=True, slots=True)
class Preview:
    """A look that was not kept: what was seen, what would be decided, and what would hold it."""

    observed: Observed
    decision: Decision
    hold: Hold | None
    sight: Sight


async def preview(ports: Ports, options: TickOptions, vm_id: str) -> Preview:
    """Look at a VM without saving or doing anything.

    Raises:
        NotFoundError: no such VM, or it is not opted in.
    """
    target, stored, sight = await _load(ports, options, vm_id)
    observed = await _observe(ports, sight, target, stored)
    hold = sight.hold_for(target, observed.quiet)
    return Preview(observed, decide(observed, sight.now, hold), hold, sight)


async def restart_on_request(
    ports: Ports, options: TickOptions, vm_id: str, unit: str, by: str, why: str
) -> RequestAnswer:
    """Restart a unit because a person wants it. Freezes, silences, budgets and observe mode hold for people
    too; flapping and an open circuit don't, for a person is what they wait for.

    Raises:
        NotFoundError: no such VM, or it is not opted in.
    """
    if not is_unit_name(unit):
        return RequestAnswer(False, f"{unit[:80]!r} is not the name of a systemd unit")
    for _ in range(_TRIES):
        answer = await _try_restart(ports, options, vm_id, Request(unit, by, why))
        if answer is not None:
            return answer
    return RequestAnswer(False, f"other looks kept being at this VM ({_TRIES} tries): ask again")


async def _try_restart(
    ports: Ports, options: TickOptions, vm_id: str, request: Request
) -> RequestAnswer | None:
    """Try once; None where another look was first, so that nothing was sent."""
    unit = request.unit
    target, stored, sight = await _load(ports, options, vm_id)
    observed = await _observe(ports, sight, target, stored)
    refusal = _refusal(sight, observed, unit)
    if not refusal:
        await judge_by_store(ports, sight)
        refusal = _refusal(sight, observed, unit)
    if not refusal:
        size, percent = sight.fleet.groups.get(target.group, 1), observed.policy.budget_percent
        holders, share = await slots.take(ports.fleet, target.group, [vm_id], size, percent, sight.now)
        refusal = "" if vm_id in holders else share
    if refusal:
        return RequestAnswer(False, refusal)
    decision = on_request(observed.state, vm_id, request, observed.policy, sight.now)
    is_mine = await finish(ports, observed, decision, sight.now)
    token = decision.restarts[0].token
    saved = await ports.store.load_one(vm_id)
    kept = UnitState() if saved is None else saved.state.units.get(unit, UnitState())
    if not is_mine and kept.last_attempt_at != sight.now:
        await withdraw(ports, target, sight.now)
        return None
    if kept.command is None or kept.command.token != token:
        return RequestAnswer(False, "it was refused, or has ended already: see its history", token)
    return RequestAnswer(True, decision.reason, token)


def _refusal(sight: Sight, observed: Observed, unit: str) -> str:
    hold = sight.hold_for(observed.target, observed.quiet)
    if hold is not None:
        return hold.reason
    if not observed.target.is_running:
        return f"the VM is {observed.target.power}"
    known = observed.state.units.get(unit)
    if known is not None and known.command is not None:
        return f"a restart of {unit} is under way (token {known.command.token})"
    reports = [observed.evidence.probe.report]
    reports += [] if observed.evidence.snapshot is None else [observed.evidence.snapshot.report]
    names = {one.name for report in reports if report is not None for one in report.sample.units}
    if unit not in names and known is None:
        return f"the VM does not report a unit {unit}; it reports {', '.join(sorted(names)) or 'none'}"[:500]
    return ""


async def _load(ports: Ports, options: TickOptions, vm_id: str) -> tuple[Target, Stored | None, Sight]:
    sight, target, stored = await asyncio.gather(
        load_sight(ports, options, options.clock()),
        ports.inventory.get_target(vm_id),
        ports.store.load_one(vm_id),
    )
    if target is None:
        raise NotFoundError(f"VM {vm_id} is not in the inventory: unknown, or not opted in by its tag")
    return target, stored, sight


async def _observe(ports: Ports, sight: Sight, target: Target, stored: Stored | None) -> Observed:
    telemetry = await read_telemetry(ports)
    return await observe(ports, sight, target, stored, telemetry, takes_results=False, is_routine=False)
