"""Recorded looks through a policy: what would have been decided when. Pure; nothing is done, only told.

Every VM is judged by itself: what is decided over the fleet as a whole (freezes, budgets, silences) is not
recorded and not replayed. The world stays as it was recorded, so that a restart which only this policy would
have made helps nobody in it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from vm_health.evidence_codec import Recorded
from vm_health.machine import step
from vm_health.model import Status
from vm_health.policy import Policy
from vm_health.silence import Subject
from vm_health.state import Decision, VmState

# A look that this policy asks for and that was recorded a little late is that recorded one.
LATE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that would have happened. ``assumed`` marks what rests on no look of that moment, but on the
    belief that the VM was as last recorded."""

    at: datetime
    kind: str
    reason: str
    assumed: bool = False
    detail: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), compare=False)

    @property
    def meaning(self) -> tuple[datetime, str, str]:
        """What two entries must share to be the same happening."""
        return self.at, self.kind, self.reason


@dataclass(frozen=True, slots=True)
class Timeline:
    """One VM's replay, oldest entry first. ``critical_seconds`` is how long it would have been CRITICAL."""

    vm_id: str
    name: str
    looks: int
    entries: tuple[Entry, ...]
    critical_seconds: float
    status: Status

    def count(self, *kinds: str) -> int:
        """Return how many entries are of one of ``kinds``."""
        return sum(1 for entry in self.entries if entry.kind in kinds)


@dataclass(frozen=True, slots=True)
class Difference:
    """An entry of two replays of one VM: ``-`` only in the first, ``+`` only in the second, or in both."""

    sign: str
    entry: Entry


def replay(looks: Iterable[Recorded], policy_for: Callable[[Subject], Policy]) -> list[Timeline]:
    """Decide again on every recorded look; return one timeline a VM, by name."""
    by_vm: dict[str, list[Recorded]] = defaultdict(list)
    for look in looks:
        by_vm[look.evidence.vm_id].append(look)
    found = [
        _replay_vm(sorted(ones, key=lambda one: one.at), policy_for, len(by_vm)) for ones in by_vm.values()
    ]
    return sorted(found, key=lambda timeline: (timeline.name, timeline.vm_id))


def compare(first: Timeline, second: Timeline) -> list[Difference]:
    """Return what two replays of one VM have in common and what not, in the order of time."""
    theirs = [entry.meaning for entry in second.entries]
    found = []
    for entry in first.entries:
        if entry.meaning in theirs:
            theirs.remove(entry.meaning)
            found.append(Difference(" ", entry))
        else:
            found.append(Difference("-", entry))
    for entry in second.entries:
        if entry.meaning in theirs:
            theirs.remove(entry.meaning)
            found.append(Difference("+", entry))
    return sorted(found, key=lambda difference: difference.entry.at)


def _replay_vm(
    looks: Sequence[Recorded], policy_for: Callable[[Subject], Policy], fleet_size: int
) -> Timeline:
    run = _Run()
    for index, look in enumerate(looks):
        policy = _settled(policy_for(look.subject), fleet_size)
        run.look(look, policy, look.at)
        following = looks[index + 1].at if index + 1 < len(looks) else look.at
        while (due := run.state.next_look_at) is not None and run.at < due:
            if (following - due).total_seconds() <= LATE_SECONDS:
                break
            evidence = replace(look.evidence, is_routine=False)
            run.look(replace(look, evidence=evidence), policy, due, assumed=True)
    last = looks[-1]
    return Timeline(
        last.evidence.vm_id,
        last.subject.name,
        len(looks),
        tuple(run.entries),
        run.critical_seconds,
        run.state.status,
    )


def _settled(policy: Policy, fleet_size: int) -> Policy:
    """Return ``policy`` as it holds in a fleet of this size: few VMs need no jitter."""
    if fleet_size >= policy.jitter_from_vms:
        return policy
    return replace(policy, backoff=replace(policy.backoff, jitter_fraction=0.0))


class _Run:
    """One VM's way through its looks."""

    def __init__(self) -> None:
        self.state = VmState()
        self.entries: list[Entry] = []
        self.critical_seconds = 0.0
        self.at = datetime.min.replace(tzinfo=UTC)

    def look(self, look: Recorded, policy: Policy, now: datetime, *, assumed: bool = False) -> None:
        """Take one look and note what it would have led to."""
        if self.state.status is Status.CRITICAL:
            self.critical_seconds += (now - self.at).total_seconds()
        state = self.state
        if not look.evidence.is_updating:
            # What a command said isn't recorded; by the next look it has ended, one way or the other.
            state = replace(
                state, units={name: replace(unit, command=None) for name, unit in state.units.items()}
            )
        decision = step(state, look.evidence, policy, now)
        self._note(decision, now, assumed)
        self.state, self.at = replace(decision.state, outbox=()), now

    def _note(self, decision: Decision, now: datetime, assumed: bool) -> None:
        for event in decision.events:
            self.entries.append(Entry(event.at, event.kind, event.reason, assumed, event.detail))
        for notice in decision.state.outbox:
            detail = {"kind": notice.kind, "status": notice.status, "key": notice.key}
            self.entries.append(Entry(now, "alert", f"{notice.kind}: {notice.reason}", assumed, detail))
