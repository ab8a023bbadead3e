"""One look at one VM: observe what is missing, decide, save, act. The order is the safety.

The state is saved under its ETag before anything is sent, so that of two instances only one acts; notices
wait in the saved outbox until they are queued, so that a crash between two writes loses none.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from vm_health.errors import ConflictError, WatchdogError
from vm_health.machine import step
from vm_health.model import Evidence, PowerState, ProbeOutcome, ProbeResult, Status
from vm_health.policy import Policy
from vm_health.requests import is_being_sent, is_hung, on_outcome, on_result, vm_action_event
from vm_health.silence import Quiet
from vm_health.state import (
    CommandRef,
    Decision,
    Event,
    Hold,
    Notice,
    RestartUnit,
    StartOutcome,
    VmState,
)
from vm_watchdog.ports import (
    TAG_ENDPOINT,
    ActivityLog,
    AlertSender,
    Canary,
    CommandRunner,
    DeadMan,
    FleetStore,
    FleetTelemetry,
    Inventory,
    Prober,
    SilenceStore,
    StateStore,
    Stored,
    Target,
    Telemetry,
    VmActuator,
    WorkQueue,
)
from vm_watchdog.sight import Sight

log = logging.getLogger("vm_watchdog.look")

_OFF = (PowerState.STOPPED, PowerState.DEALLOCATED)
_TRIES = 4
Answers = Sequence[tuple[RestartUnit, StartOutcome]]


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything of the world that the watchdog touches, wired by bootstrap."""

    inventory: Inventory
    telemetry: Telemetry
    prober: Prober
    store: StateStore
    fleet: FleetStore
    silences: SilenceStore
    queue: WorkQueue
    runner: CommandRunner
    actuator: VmActuator
    activity: ActivityLog
    canary: Canary
    dead_man: DeadMan
    alerts: AlertSender


@dataclass(frozen=True, slots=True)
class Observed:
    """What one look found, and all that a decision on it needs. ``results`` came from ended commands, which
    are ``ended``."""

    target: Target
    state: VmState
    stored: Stored | None
    evidence: Evidence
    policy: Policy
    quiet: Quiet
    results: tuple[Event, ...] = ()
    ended: tuple[CommandRef, ...] = ()


async def observe(
    ports: Ports,
    sight: Sight,
    target: Target,
    stored: Stored | None,
    telemetry: FleetTelemetry,
    probe: ProbeResult | None = None,
    *,
    takes_results: bool = True,
    is_routine: bool = True,
) -> Observed:
    """Gather what is known of one VM now. ``probe`` None means: not probed yet.

    ``takes_results`` False leaves the results of ended commands where they are, for a look that is not kept.
    """
    state = VmState() if stored is None else stored.state
    results: tuple[Event, ...] = ()
    ended: tuple[CommandRef, ...] = ()
    if takes_results and any(unit.command is not None for unit in state.units.values()):
        state, results, ended = await _read_results(ports, target, state, sight.policy_for(target), sight.now)
    snapshot = telemetry.snapshots.get(target.vm_id)
    if probe is None:
        reported = "" if snapshot is None else snapshot.report.endpoint
        probe = await probe_vm(ports, target, reported or state.endpoint)
    quiet = sight.quiet_for(target)
    evidence = Evidence(
        vm_id=target.vm_id,
        power=target.power,
        snapshot=snapshot,
        telemetry_available=telemetry.available and sight.telemetry_is_believed,
        probe=probe,
        maintenance="" if quiet.maintenance is None else str(quiet.maintenance),
        is_updating=target.is_updating,
        stopped_by=await _who_stopped(ports, target, state, sight.now),
        instance_id=target.instance_id,
        is_routine=is_routine,
    )
    if sight.options.recorder is not None:
        sight.options.recorder(evidence, sight.now)
    return Observed(target, state, stored, evidence, sight.policy_for(target), quiet, results, ended)


async def probe_vm(ports: Ports, target: Target, reported_endpoint: str) -> ProbeResult:
    """Look at a VM's endpoint: the one in its tag, else the one that the VM reported."""
    endpoint = target.tags.get(TAG_ENDPOINT) or reported_endpoint
    if endpoint and target.power is PowerState.RUNNING:
        return await ports.prober.probe(target.vm_id, endpoint)
    return ProbeResult(ProbeOutcome.NOT_CONFIGURED, "no endpoint is known")


async def _who_stopped(ports: Ports, target: Target, state: VmState, now: datetime) -> str:
    """Ask the activity log at the look that first sees a VM off, and only then."""
    if target.power not in _OFF or state.status is Status.STOPPED:
        return ""
    return await ports.activity.who_stopped(target, now)


def decide(observed: Observed, now: datetime, hold: Hold | None) -> Decision:
    """Decide on what was observed; ``hold`` keeps what is due from being done."""
    return step(
        observed.state,
        observed.evidence,
        observed.policy,
        now,
        hold,
        is_silenced=observed.quiet.alerts is not None,
    )


async def finish(ports: Ports, observed: Observed, decision: Decision, now: datetime) -> bool:
    """Save a decision and do what it asks for; return whether this look was the one to do so.

    Losing the race for the state to another instance is normal: that one acts, this one leaves.
    """
    target, stored = observed.target, observed.stored
    events = (*observed.results, *decision.events)
    try:
        etag = None if stored is None else stored.etag
        if stored is None or decision.state != stored.state:
            etag = await ports.store.save(target.vm_id, decision.state, etag)
        if events:
            _log_decision(target, decision, events)
        if events or decision.look_again or decision.state.outbox:
            await _act(ports, target, decision, str(etag), now, events)
        # Not before what they said is saved: whoever loses the race has nothing to read it from.
        for command in observed.ended:
            await ports.runner.discard(target, command)
    except ConflictError:
        log.info("another instance has this VM", extra={"vm": target.name})
        return False
    return True


def _log_decision(target: Target, decision: Decision, events: tuple[Event, ...]) -> None:
    log.info(
        "decision",
        extra={
            "vm": target.name,
            "status": decision.state.status,
            "reason": decision.reason,
            "events": [f"{event.kind}: {event.reason}" for event in events],
        },
    )


async def _read_results(
    ports: Ports, target: Target, state: VmState, policy: Policy, now: datetime
) -> tuple[VmState, tuple[Event, ...], tuple[CommandRef, ...]]:
    """Read what ended Run Commands said, so that history tells why an attempt did not help; end hung ones."""
    events, ended = list[Event](), list[CommandRef]()
    for name, unit in state.units.items():
        if unit.command is None or target.power is not PowerState.RUNNING or is_being_sent(unit, now):
            continue
        try:
            result = await ports.runner.read_result(target, unit.command)
            hung = result is None and is_hung(unit, policy, now)
            if hung:
                result = await ports.runner.cancel(target, unit.command)
        except WatchdogError as error:
            log.warning("run command result unreadable", extra={"vm": target.name, "problem": str(error)})
            continue
        if result is not None:
            state, event = on_result(state, name, result, now, is_hung=hung)
            events.append(event)
            if not hung:
                ended.append(unit.command)
    return state, tuple(events), tuple(ended)


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
    state, answers, outcomes = await _send(ports, target, decision, now)
    await ports.store.append_events(target.vm_id, outcomes, offset=len(events))
    try:
        await _queue(ports, target, decision, now)
        state = replace(state, outbox=()) if state.outbox else state
    finally:
        # What Azure answered (when to come again, where the result will be) holds whatever a queue does.
        if state != decision.state:
            told = decision.state.outbox if not state.outbox else ()
            await _keep_answers(ports, target, state, etag, answers, told, now)


async def _keep_answers(
    ports: Ports,
    target: Target,
    state: VmState,
    etag: str,
    answers: Answers,
    told: tuple[Notice, ...],
    now: datetime,
) -> None:
    """Save what Azure answered, also where another look has changed the state since the intent was saved.

    Raises:
        ConflictError: others kept changing it.
    """
    for _ in range(_TRIES - 1):
        try:
            await ports.store.save(target.vm_id, state, etag)
        except ConflictError:
            stored = await ports.store.load_one(target.vm_id)
            if stored is None:
                return
            state, etag = stored.state, stored.etag
            for restart, outcome in answers:
                state, _event = on_outcome(state, restart, outcome, now)
            state = replace(state, outbox=tuple(notice for notice in state.outbox if notice not in told))
            if state == stored.state:
                return
        else:
            return
    await ports.store.save(target.vm_id, state, etag)


async def _queue(ports: Ports, target: Target, decision: Decision, now: datetime) -> None:
    if decision.look_again is not None:
        delay = max(0.0, (decision.look_again.at - now).total_seconds())
        await ports.queue.send_recheck(target.vm_id, delay)
    for notice in decision.state.outbox:
        await ports.queue.send_alert(notice)


async def _send(
    ports: Ports, target: Target, decision: Decision, now: datetime
) -> tuple[VmState, Answers, list[Event]]:
    """Ask Azure for what was decided; return the state with the answers, these, and their history."""
    state, answers, outcomes = decision.state, list[tuple[RestartUnit, StartOutcome]](), list[Event]()
    for restart in decision.restarts:
        outcome = await ports.runner.start_restart(target, restart)
        answers.append((restart, outcome))
        state, event = on_outcome(state, restart, outcome, now)
        log.info(event.kind, extra={"vm": target.name, **event.detail, "reason": outcome.detail})
        outcomes.append(event)
    if decision.vm_action is not None:
        outcome = await ports.actuator.start(target, decision.vm_action)
        event = vm_action_event(decision.vm_action, outcome, now)
        log.info(event.kind, extra={"vm": target.name, **event.detail, "reason": outcome.detail})
        outcomes.append(event)
    return state, answers, outcomes
