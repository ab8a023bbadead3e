"""What is known beyond a single VM at one evaluation: freezes, silences, policy, mode. Who may act follows.

It is read once for an evaluation and held against every VM in it; nothing here touches the world.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from vm_health.fleet import FleetState, Freeze
from vm_health.model import Cause, Evidence
from vm_health.policy import Policy
from vm_health.policy_book import PolicyBook
from vm_health.silence import NOT_QUIET, Quiet, Silence, quiet
from vm_health.state import Hold
from vm_health.windows import tag_silence
from vm_watchdog.ports import TAG_LADDER, TAG_MAINTENANCE_UNTIL, Target

Recorder = Callable[[Evidence, datetime], None]


@dataclass(frozen=True, slots=True)
class TickOptions:
    """How the watchdog works. ``clock`` is read once an evaluation, and once more for the record of its end.

    Args:
        book: the policy, of every group and VM.
        may_act: False observes only, whatever a VM's tag allows.
        shard_size: VMs that one instance looks at before the work is split.
        recorder: takes the evidence of every look, for a later replay.
    """

    book: PolicyBook
    clock: Callable[[], datetime]
    may_act: bool = True
    shard_size: int = 500
    recorder: Recorder | None = None


@dataclass(slots=True)
class Sight:
    """The fleet's state, the silences in force and the policy, as of ``now``.

    ``fleet`` grows while an evaluation goes on; ``stored_fleet`` is what is saved under ``fleet_etag``;
    ``fleet_events`` counts the lines of the fleet's history written in it, for they share one moment.
    """

    options: TickOptions
    now: datetime
    fleet: FleetState
    silences: Sequence[Silence]
    fleet_etag: str | None = None
    stored_fleet: FleetState = field(default_factory=FleetState)
    unsaved_freezes: tuple[Freeze, ...] = ()
    fleet_events: int = 0
    _plain: dict[int, Policy] = field(default_factory=dict)

    @property
    def freezes(self) -> tuple[Freeze, ...]:
        """The freezes that hold for this evaluation."""
        return tuple(dict.fromkeys((*self.fleet.freezes, *self.unsaved_freezes)))

    @property
    def telemetry_is_believed(self) -> bool:
        """Whether a VM's missing telemetry says anything of that VM."""
        return all(freeze.cause is not Cause.TELEMETRY_STALE_FOR_ALL for freeze in self.freezes)

    def policy_for(self, target: Target) -> Policy:
        """Return what applies to ``target``. Few VMs need no jitter: their waits are exact."""
        policy = self.options.book.policy_for(target.subject)
        if self.fleet.vm_count >= policy.jitter_from_vms or not policy.backoff.jitter_fraction:
            return policy
        plain = self._plain.get(id(policy))
        if plain is None:
            plain = replace(policy, backoff=replace(policy.backoff, jitter_fraction=0.0))
            self._plain[id(policy)] = plain
        return plain

    def quiet_for(self, target: Target) -> Quiet:
        """Return what silences, maintenance windows and the VM's own tag stop for ``target``."""
        silences, subject = self.silences, target.subject
        if TAG_MAINTENANCE_UNTIL in target.tags:
            tagged = tag_silence(subject, self.now).silence
            silences = silences if tagged is None else [*silences, tagged]
        return quiet(silences, subject, self.now) if silences else NOT_QUIET

    def faults_of(self, targets: Sequence[Target]) -> list[str]:
        """Return what is wrong with the tags of ``targets``, one sentence each: such tags don't count."""
        faults = []
        for target in targets:
            if TAG_LADDER in target.tags or TAG_MAINTENANCE_UNTIL in target.tags:
                tagged = tag_silence(target.subject, self.now).fault
                found = [*self.options.book.tag_faults(target.subject), *([tagged] if tagged else [])]
                faults += [f"{target.name}: {fault}" for fault in dict.fromkeys(found)]
        return faults

    def hold_for(self, target: Target, stops: Quiet) -> Hold | None:
        """Return why nobody may act on ``target`` now, None where all is free but the budget."""
        if not self.options.may_act or not target.may_act:
            return Hold("observe", "only observing: " + self._who_observes())
        if frozen := replace(self.fleet, freezes=self.freezes).frozen(self.now):
            return Hold("frozen", f"all action is frozen: {frozen}")
        if stops.action is not None:
            return Hold("silenced", f"action is silenced: {stops.action}")
        return None

    def _who_observes(self) -> str:
        return "the VM's tag says so" if self.options.may_act else "WATCHDOG_MODE says so"
