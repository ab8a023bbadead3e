"""The story of one VM: look after look over the pure state machine, times in seconds from NOW."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from tests.builders import EXACT, NO_PROBE, UNREACHABLE, a_report, a_snapshot, answers, at, evidence
from vm_health.machine import step
from vm_health.model import Evidence, PowerState
from vm_health.policy import Policy
from vm_health.state import Decision, Event, Hold, Notice, RestartUnit, VmState


@dataclass(slots=True)
class Story:
    """Feeds looks to ``step``, each with what the one before left, and keeps all that was decided."""

    policy: Policy = EXACT
    state: VmState = field(default_factory=VmState)
    decisions: list[Decision] = field(default_factory=list)

    def look(
        self, seconds: float, found: Evidence, hold: Hold | None = None, *, is_silenced: bool = False
    ) -> Decision:
        """Decide on ``found``; the outbox counts as sent afterwards."""
        decision = step(self.state, found, self.policy, at(seconds), hold, is_silenced=is_silenced)
        self.decisions.append(decision)
        self.state = _sent(decision.state)
        return decision

    def down(self, seconds: float, *units: str, age: float = 0.0) -> Decision:
        """The endpoint says that ``units`` are down."""
        report = a_report(down=units or ("web.service",), age=age, taken_at=at(seconds - age))
        return self.look(seconds, evidence(probe=answers(report)))

    def up(self, seconds: float, *units: str, age: float = 0.0) -> Decision:
        """Endpoint and telemetry say that all is fine."""
        report = a_report(up=units or ("web.service",), age=age, taken_at=at(seconds - age))
        snapshot = a_snapshot(report, age=age + 1, received_age=age + 0.5, now=at(seconds))
        return self.look(seconds, evidence(probe=answers(report), snapshot=snapshot))

    def silent(self, seconds: float) -> Decision:
        """No telemetry, and the endpoint does not answer."""
        return self.look(seconds, evidence(probe=UNREACHABLE))

    def blind(self, seconds: float) -> Decision:
        """The query failed and there is no endpoint."""
        return self.look(seconds, evidence(probe=NO_PROBE, telemetry=False))

    def power(self, seconds: float, power: PowerState) -> Decision:
        """ARM says that the VM does not run."""
        return self.look(seconds, evidence(power))

    def follow(self, seconds: float, until: float, *units: str, tick_seconds: float = 60.0) -> None:
        """Keep ``units`` down, looking every tick and whenever a look was asked for."""
        asked: set[float] = set()
        while seconds <= until:
            decision = self.down(seconds, *units)
            if decision.look_again is not None:
                asked.add((decision.look_again.at - at(0)).total_seconds())
            next_tick = (seconds // tick_seconds + 1) * tick_seconds
            seconds = min([next_tick, *(moment for moment in asked if moment > seconds)])

    @property
    def notices(self) -> list[Notice]:
        """All that people were told, in order."""
        return [notice for decision in self.decisions for notice in decision.state.outbox]

    @property
    def told(self) -> list[str]:
        """The kinds of all notices."""
        return [notice.kind.value for notice in self.notices]

    @property
    def restarts(self) -> list[RestartUnit]:
        """All restarts that were sent."""
        return [restart for decision in self.decisions for restart in decision.restarts]

    @property
    def events(self) -> list[Event]:
        """The whole history."""
        return [event for decision in self.decisions for event in decision.events]

    def attempt_times(self, kind: str = "restart", unit: str = "web.service") -> list[float]:
        """When each attempt on ``unit`` was made."""
        return [
            seconds(event.at) for event in self.events if event.kind == kind and event.detail["unit"] == unit
        ]


def seconds(moment: datetime) -> float:
    """Seconds from NOW."""
    return (moment - at(0)).total_seconds()


def kinds(events: Iterable[Event]) -> list[str]:
    """The kinds of ``events``."""
    return [event.kind for event in events]


def _sent(state: VmState) -> VmState:
    return replace(state, outbox=())
