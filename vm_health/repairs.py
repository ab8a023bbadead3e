"""What is done about a VM's units at one look, and about the VM itself where they can't be helped. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from vm_health.ladder import next_rung, with_action
from vm_health.model import Cause, Status
from vm_health.names import vm_key
from vm_health.policy import Policy
from vm_health.repair import Repair, on_down, on_local_repair, on_starting, on_up
from vm_health.state import CommandRef, Event, Hold, Lane, RestartUnit, UnitState, VmAction, VmState
from vm_health.verdict import Verdict

AGENT_UNIT = "vm-agent.service"
NOT_RUNNING = frozenset({Status.STOPPED, Status.MAINTENANCE})


@dataclass(frozen=True, slots=True)
class Look:
    """What every step of one look needs: the VM, the verdict on it, its policy, the moment, and why action
    may not be taken (None: it may)."""

    vm_id: str
    verdict: Verdict
    policy: Policy
    now: datetime
    hold: Hold | None = None


@dataclass(slots=True)
class Repairs:
    """What was decided about all units of a VM; grows unit by unit."""

    units: dict[str, UnitState] = field(default_factory=dict)
    restarts: list[RestartUnit] = field(default_factory=list)
    vm_action: VmAction | None = None
    events: list[Event] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    gave_up: list[str] = field(default_factory=list)
    looks: list[datetime] = field(default_factory=list)
    wants_action: bool = False

    @property
    def attempts(self) -> int:
        """The most attempts that were made on one unit."""
        return max((unit.attempts for unit in self.units.values()), default=0)


def repair(state: VmState, look: Look) -> Repairs:
    """Walk over the units that are down, and those that were, and collect what is due."""
    done = Repairs()
    for name, step in _steps(state, look):
        if step is None:
            if state.units[name].attempts:
                detail = {"unit": name}
                done.events.append(Event("backoff_reset", f"{name} is stable again", look.now, detail))
            continue
        done.units[name] = _take(done, name, step, state, look)
        if step.look_at is not None:
            done.looks.append(step.look_at)
        done.reasons.append(f"{name}: {step.reason}")
    lost = [name for name in _down(state, look) if done.units[name].circuit_open]
    if lost:
        _climb(done, lost, state, look)
    return done


def _take(done: Repairs, name: str, step: Repair, state: VmState, look: Look) -> UnitState:
    """Note what ``step`` asks for; return the unit's next state."""
    unit = step.state
    if step.attempt_now:
        token = f"{look.now:%Y%m%dT%H%M%S}-{vm_key(look.vm_id)[:8]}-{state.sequence + len(done.restarts)}"
        unit = replace(unit, command=CommandRef(token, Lane.NONE))
        done.restarts.append(RestartUnit(name, unit.attempts, token))
        done.wants_action = True
        done.events.append(Event("restart", step.reason, look.now, evidence_of(look, name, unit, token)))
    elif step.held is not None:
        kind = "would_restart" if step.held.kind == "observe" else "held"
        detail = evidence_of(look, name, unit) | {"held_by": step.held.kind}
        done.events.append(Event(kind, f"{name}: {step.reason}", look.now, detail))
        done.wants_action = True
    elif unit.held and unit.not_before is not None and unit.not_before <= look.now:
        done.wants_action = True
    elif unit.not_before is not None and state.units.get(name, UnitState()).not_before is None:
        done.events.append(Event("backoff", f"{name}: {step.reason}", look.now, {"unit": name}))
    if step.opened_circuit:
        done.events.append(Event("circuit_open", f"{name}: {step.reason}", look.now, {"unit": name}))
    return unit


def evidence_of(look: Look, name: str, unit: UnitState, token: str = "") -> dict[str, object]:
    """Return what a decision on a unit rests on, as its history keeps it: both witnesses and the limits."""
    seen = look.verdict.observation
    found: dict[str, object] = {
        "unit": name,
        "attempt": unit.attempts,
        "evidence": f"Azure says that the VM is running; {look.verdict.reason}",
        "cause": look.verdict.cause,
        "max_attempts": look.policy.max_attempts,
    }
    if token:
        found["token"] = token
    if seen is not None:
        found["seen_by"] = seen.source
        found["observed_at"] = seen.observed_at.isoformat()
        samples = [one for one in seen.report.sample.units if one.name == name]
        if samples:
            one = samples[0]
            found["unit_state"] = f"{one.active_state}/{one.sub_state}, result {one.result}"
    return found


def _down(state: VmState, look: Look) -> tuple[str, ...]:
    """Name the units that a restart may help: a fresh report says so, or the VM has long been silent."""
    if look.verdict.status in NOT_RUNNING:
        return ()
    if look.verdict.observation is not None:
        return look.verdict.down
    is_silent = state.cause is Cause.VM_SILENT and look.verdict.cause is Cause.VM_SILENT
    return (AGENT_UNIT,) if is_silent else ()


def _steps(state: VmState, look: Look) -> list[tuple[str, Repair | None]]:
    """Pair every unit that matters now with what to do about it; None means: forget it."""
    if look.verdict.status in NOT_RUNNING:
        # Whatever was planned is off: after the VM's return the wait starts over.
        return [
            (name, Repair(replace(unit, not_before=None, up_since=None, held=""), "the VM is left alone"))
            for name, unit in state.units.items()
        ]
    seen, down = look.verdict.observation, _down(state, look)
    observed_at = None if seen is None else seen.observed_at
    local = {} if seen is None else {one.unit: one for one in seen.report.repairs}
    found: list[tuple[str, Repair | None]] = []
    for name in down:
        unit = state.units.get(name, UnitState())
        held = on_local_repair(unit, local.get(name), look.now)
        spread_key = f"{look.vm_id}/{name}"
        found.append((name, held or on_down(unit, observed_at, look.policy, look.now, spread_key, look.hold)))
    others = {name: unit for name, unit in state.units.items() if name not in down}
    return found + [(name, _step_others(name, unit, look)) for name, unit in others.items()]


def _step_others(name: str, unit: UnitState, look: Look) -> Repair | None:
    """Decide on a unit that was down and is not among those that are down now."""
    seen = look.verdict.observation
    if seen is None:
        return Repair(unit, "not seen at this look")
    if name == AGENT_UNIT:  # it reports, so it is up; it may not watch itself
        return on_up(unit, seen.observed_at, look.policy)
    samples = [one for one in seen.report.sample.units if one.name == name]
    is_gone = not samples and not seen.report.sample.failures
    # Out of the VM's configuration: kept for as long as a stable unit would be, then forgotten.
    if is_gone or (samples and samples[0].is_up):
        return on_up(unit, seen.observed_at, look.policy)
    if any(one.code is Cause.SERVICE_STARTING and one.subject == name for one in look.verdict.findings):
        return on_starting(unit, look.policy, look.now)
    return Repair(unit, "not seen at this look")


def _climb(done: Repairs, lost: list[str], state: VmState, look: Look) -> None:
    """Nothing more can be done for the units ``lost``: take the next rung of the ladder, or call people."""
    rung = next_rung(state, look.vm_id, look.policy, look.now)
    if rung.look_at is not None:
        done.looks.append(rung.look_at)
    if rung.needs_people:
        done.gave_up += lost
    done.reasons.append(rung.reason)
    if rung.action is None:
        return
    done.wants_action = True
    name = lost[0]
    unit = done.units[name]
    detail = evidence_of(look, name, unit) | {"action": rung.action.kind, "token": rung.action.token}
    if look.hold is None:
        done.vm_action = rung.action
        done.events.append(Event("vm_action", f"{rung.reason}: {name} can't be helped", look.now, detail))
    elif not unit.held.startswith(f"{look.hold.kind}: "):
        done.units[name] = replace(unit, held=f"{look.hold.kind}: {look.hold.reason}"[:300])
        kind = "would_vm_action" if look.hold.kind == "observe" else "held"
        text = f"{rung.action.kind} is due, but {look.hold.reason}"
        done.events.append(Event(kind, text, look.now, detail | {"held_by": look.hold.kind}))


def after_action(state: VmState, done: Repairs, now: datetime) -> VmState:
    """Return ``state`` with what was decided. After an action on the whole VM older reports say nothing."""
    units: Mapping[str, UnitState] = done.units
    if units == state.units:
        units = state.units
    if done.vm_action is not None:
        state = replace(state, vm_actions=with_action(state, done.vm_action), off_at=now)
    return replace(state, units=units, sequence=state.sequence + len(done.restarts))
