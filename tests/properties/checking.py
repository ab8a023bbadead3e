"""What checking remembers between steps, and how a breach speaks."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import NoReturn

from tests.properties.chronicle import Sent, Shown
from vm_health.state import Notice, UnitState, VmAction, VmState


class Breach(AssertionError):  # noqa: N818 - a promise is broken, not the program
    """A promise that was not kept; ``promise`` names it."""

    def __init__(self, promise: str, what: str) -> None:
        self.promise = promise
        self.what = what
        super().__init__(f"{promise}: {what}")

    def __reduce__(self) -> tuple[object, ...]:
        """Come home from another process with all that was noted."""
        return type(self), (self.promise, self.what), {"__notes__": getattr(self, "__notes__", [])}


def breach(promise: str, what: str) -> NoReturn:
    """Say that a promise was not kept."""
    raise Breach(promise, what)


Of = tuple[str, str]  # a VM's id and a unit's name


@dataclass(slots=True)
class Held:
    """The promises' own memory of what happened before: never the product's.

    Args:
        may_act: whether this watchdog acts at all.
        jitter: by what share waits may be shorter than they stand in the policy.
        intents: tokens that were saved. ``tokens``: those that were sent.
        first_down: since when a unit has been seen down.
        throttled: until when Azure wants to be left alone.
        told: every notice that was ever saved to be sent, by key. ``queued``: those that were sent.
    """

    may_act: bool = True
    jitter: float = 0.0
    intents: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    first_down: dict[Of, datetime] = field(default_factory=dict)
    throttled: dict[Of, datetime] = field(default_factory=dict)
    silent_looks: dict[str, int] = field(default_factory=dict)
    looked: set[tuple[str, str]] = field(default_factory=set)  # VMs, and the instances that looked at them
    open_circuits: set[Of] = field(default_factory=set)
    vm_actions: dict[str, list[datetime]] = field(default_factory=dict)
    told: dict[str, Notice] = field(default_factory=dict)
    queued: set[str] = field(default_factory=set)
    fired: set[str] = field(default_factory=set)


def unit_of(state: VmState | None, name: str) -> UnitState:
    """A unit in a row, a fresh one where it is not there."""
    return UnitState() if state is None else state.units.get(name, UnitState())


def actions_of(state: VmState | None) -> tuple[VmAction, ...]:
    """The actions on the whole VM that a row remembers."""
    return () if state is None else state.vm_actions


def what(sent: Sent) -> str:
    """What was sent, in words."""
    deed = (
        sent.action.value if sent.action is not None else f"restart of {sent.unit}, attempt {sent.attempt},"
    )
    return f"{deed} on {short(sent.shown)} at {clock(sent.shown.now)} by {sent.shown.instance}"


def short(shown: Shown) -> str:
    """A VM's name."""
    return shown.vm_id.rsplit("/", 1)[-1]


def clock(moment: datetime) -> str:
    """A moment to the millisecond."""
    return f"{moment:%d %H:%M:%S.%f}"[:-3]
