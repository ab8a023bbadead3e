"""One look at one VM: observe what is missing, decide, save, act. The order is the safety.

The state is saved under its ETag before anything is sent, so that of two instances only one acts; notices
wait in the saved outbox until they are queued, so that a crash between two writes loses none.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from vm_health.errors import ConflictError, WatchdogError
from vm_health.machine import step
from vm_health.model import Cause, Evidence, PowerState, ProbeOutcome, ProbeResult, Snapshot, Status
from vm_health.policy import Policy
from vm_health.state import Decision, Event, RestartUnit, VmState
from vm_watchdog.ports import (
    TAG_ENDPOINT,
    AlertSender,
    CommandRunner,
    Inventory,
    Prober,
    StartKind,
    StateStore,
    Stored,
    Target,
    Telemetry,
    WorkQueue,
)

log = logging.getLogger("vm_watchdog.look")

_TELEMETRY_CAUSES = frozenset({Cause.TELEMETRY_DELAYED, Cause.TELEMETRY_UNAVAILABLE})


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything of the world that the watchdog touches, wired by bootstrap."""

    inventory: Inventory
    telemetry: Telemetry
    prober: Prober
    store: StateStore
    queue: WorkQueue
    runner: CommandRunner
    alerts: AlertSender


@dataclass(frozen=True, slots=True)
class FleetTelemetry:
    """The answer of the one query; ``available`` False where it failed or was partial."""

    snapshots: Mapping[str, Snapshot] = field(default_factory=dict)
    available: bool = True


async def look_at(
    ports: Ports,
    target: Target,
    stored: Stored | None,
    telemetry: FleetTelemetry | None,
    policy: Policy,
    now: datetime,
) -> Status:
    """Look at one VM and do what the look asks for; return its status after it.

    ``telemetry`` None means: not asked yet; it then is, where the endpoint alone does not settle it.

    Losing the race for the state to another instance is normal: that one acts, this one leaves.
    """
    state, etag = (VmState(), None) if stored is None else (stored.state, stored.etag)
    before = state
    state, results = await _take_results(ports, target, state, now)
    policy = replace(policy, may_act=policy.may_act and target.may_act)
    evidence = await _gather(ports, target, state, telemetry, policy)
    decision = step(state, evidence, policy, now)
    events = (*results, *decision.events)
    try:
        if decision.state != before or etag is None:
            etag = await ports.store.save(target.vm_id, decision.state, etag)
        _log_decision(target, decision, events)
        await _act(ports, target, decision, etag, now, events)
    except ConflictError:
        log.info("another instance has this VM", extra={"vm": target.name})
    return decision.state.status


def _log_decision(target: Target, decision: Decision, events: tuple[Event, ...]) -> None:
    if events:
        log.info(
            "decision",
            extra={
                "vm": target.name,
                "status": decision.state.status,
                "reason": decision.reason,
                "events": [f"{event.kind}: {event.reason}" for event in events],
            },
        )


async def _take_results(
    ports: Ports, target: Target, state: VmState, now: datetime
) -> tuple[VmState, tuple[Event, ...]]:
    """Read what finished Run Commands said, so that history tells why an attempt did not help."""
    units, events = dict(state.units), []
    for name, unit in state.units.items():
        if not unit.command or target.power is not PowerState.RUNNING:
            continue
        try:
            result = await ports.runner.take_result(target, unit.command)
        except WatchdogError as error:
            log.warning("run command result unreadable", extra={"vm": target.name, "problem": str(error)})
            continue
        if result is not None:
            units[name] = replace(unit, command="")
            kind = "restart_done" if result.succeeded else "restart_failed"
            detail = {"unit": name, "token": unit.command, "result": dict(result.result)}
            events.append(Event(kind, f"{name}: {result.detail}", now, detail))
    return replace(state, units=units), tuple(events)


async def read_telemetry(ports: Ports) -> FleetTelemetry:
    """Ask for the fleet's newest snapshots; where that fails, nothing may be concluded from their absence."""
    try:
        return FleetTelemetry(await ports.telemetry.newest_snapshots())
    except WatchdogError as error:
        log.warning("telemetry unavailable", extra={"problem": str(error)})
        return FleetTelemetry(available=False)


async def _gather(
    ports: Ports, target: Target, state: VmState, telemetry: FleetTelemetry | None, policy: Policy
) -> Evidence:
    snapshot = None if telemetry is None else telemetry.snapshots.get(target.vm_id)
    reported = state.endpoint if snapshot is None else snapshot.report.endpoint
    endpoint = target.tags.get(TAG_ENDPOINT) or reported
    probe = ProbeResult(ProbeOutcome.NOT_CONFIGURED, "no endpoint is known")
    if endpoint and target.power is PowerState.RUNNING:
        probe = await ports.prober.probe(target.vm_id, endpoint)
    if telemetry is None:
        # Log Analytics allows 200 queries in 30 s: a fleet in trouble must not spend them on VMs that answer.
        fresh = probe.report is not None and probe.report.age_seconds <= policy.snapshot_max_age_seconds
        settled = fresh and state.cause not in _TELEMETRY_CAUSES
        telemetry = FleetTelemetry(available=False) if settled else await read_telemetry(ports)
        snapshot = telemetry.snapshots.get(target.vm_id)
    return Evidence(target.vm_id, target.power, snapshot, telemetry.available, probe)


async def _act(
    ports: Ports,
    target: Target,
    decision: Decision,
    etag: str,
    now: datetime,
    events: tuple[Event, ...],
) -> None:
    # History first: should anything below fail, it still tells what was decided and why.
    await ports.store.append_events(target.vm_id, events)
    # Restarts next: the attempts are counted since the save, and no queue or lost race may swallow them.
    # Alerts can wait for the next look, for they stay in the outbox.
    outcomes = [await _restart(ports, target, restart, now) for restart in decision.restarts]
    await ports.store.append_events(target.vm_id, outcomes, offset=len(events))
    if decision.look_again is not None:
        delay = max(0.0, (decision.look_again.at - now).total_seconds())
        await ports.queue.send_recheck(target.vm_id, delay)
    if decision.state.outbox:
        for notice in decision.state.outbox:
            await ports.queue.send_alert(notice)
        await ports.store.save(target.vm_id, replace(decision.state, outbox=()), etag)


async def _restart(ports: Ports, target: Target, restart: RestartUnit, now: datetime) -> Event:
    outcome = await ports.runner.start_restart(target, restart)
    kind = "restart_sent" if outcome.kind is StartKind.STARTED else "restart_refused"
    detail = {"unit": restart.unit, "token": restart.token, "lane": outcome.lane, "outcome": outcome.kind}
    log.info(kind, extra={"vm": target.name, **detail, "reason": outcome.detail})
    return Event(kind, f"{restart.unit}: {outcome.detail}", now, detail)
