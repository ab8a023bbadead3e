"""A story: a random fleet and what happens to it, played step by step with every promise held against it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.properties import promises_action, promises_fleet, promises_telling
from tests.properties.checking import Breach, Held, clock
from tests.properties.chronicle import Ended, Entry, Queued, Saved, Sent
from tests.properties.rules import enabled
from tests.properties.settling import check_restarts_are_punctual, settle
from tests.properties.sim_vm import SimVm, Unit
from tests.properties.steps import Rule, Step
from tests.properties.world import Complaints, World
from vm_health.backoff import BackoffPolicy
from vm_health.policy import Policy
from vm_health.state import VmActionKind

HEADER_BYTES = 8
RESTART, REDEPLOY = VmActionKind.RESTART, VmActionKind.REDEPLOY
POLICIES = (
    Policy(
        backoff=BackoffPolicy((5.0, 7.0, 15.0)),
        max_attempts=2,
        stable_after_seconds=60.0,
        confirm_silent=2,
        verify_after_seconds=3.0,
        ladder_wait_seconds=60.0,
        budget_percent=30.0,
    ),
    Policy(),
    Policy(
        backoff=BackoffPolicy((8.0, 8.0, 20.0)),
        confirm_down=1,
        confirm_up=1,
        confirm_silent=1,
        max_attempts=3,
        stable_after_seconds=120.0,
        ladder=(RESTART, REDEPLOY),
        ladder_wait_seconds=40.0,
        budget_percent=50.0,
        jitter_from_vms=2,
        flapping_high_percent=0.0,
        flapping_low_percent=0.0,
    ),
    Policy(
        ladder=(RESTART,), max_attempts=1, stable_after_seconds=90.0, budget_percent=20.0, jitter_from_vms=4
    ),
)
SIZES = (1, 2, 3, 1, 2, 4, 1, 2, 1, 3, 2, 6, 1, 5, 2, 12)
CHECKS: tuple[Callable[[Held, Entry], None], ...] = tuple(
    check
    for module in (promises_action, promises_fleet, promises_telling)
    for name, check in vars(module).items()
    if name.startswith("check_")
)


@dataclass
class Story:
    """One world and the memory of its promises."""

    world: World
    held: Held
    complaints: Complaints = field(default_factory=Complaints)
    checked: int = 0

    def check(self) -> None:
        """Hold every promise against what is new."""
        chronicle = self.world.chronicle
        for error in (*chronicle.bugs, *self.complaints.bugs):
            raise Breach("nothing falls over", f"{type(error).__name__}: {error}") from error
        entries = chronicle.entries
        for entry in entries[self.checked :]:
            for check in CHECKS:
                check(self.held, entry)
        self.checked = len(entries)
        if self.world.is_calm and self.world.is_prompt:
            check_restarts_are_punctual(self.world)

    def told(self) -> str:
        """The story so far, to be read."""
        lines = [f"{clock(moment)}  {text}" for moment, text in self.world.chronicle.story]
        return "\n".join(["", *lines[-80:]])


def play(rules: Sequence[Rule], header: bytes, steps: Sequence[bytes]) -> Story:
    """Play a story; a breach tells it.

    Raises:
        Breach: a promise was not kept.
    """
    story = begin(header)
    chosen = enabled(rules, int.from_bytes(header[4:7], "big"))
    logger = logging.getLogger("vm_watchdog")
    logger.addHandler(story.complaints)
    try:
        for text in steps:
            step = Step(*text)
            rule = chosen[step.rule % len(chosen)]
            if not rule.is_calm:
                story.world.is_calm = False
            rule.play(story.world, step)
            story.check()
        if header[7] % 32 == 1:
            settle(story.world, story.check)
    except Breach as error:
        error.add_note(f"play(..., {header!r}, {list(steps)!r})")
        error.add_note(story.told())
        raise
    finally:
        logger.removeHandler(story.complaints)
        story.world.loop.close()
    return story


def begin(header: bytes) -> Story:
    """Build the world that a header tells of, with one look at it while all is fine."""
    size, kind, tags, senses = SIZES[header[0] % len(SIZES)], header[1], header[2], header[3]
    policy = POLICIES[kind % len(POLICIES)]
    world = World(policy, shard_size=2 if kind // 4 % 8 == 7 else 500, may_act=kind // 32 % 8 != 7)
    for number in range(size):
        odd = (tags >> number % 8) & 1
        vm = SimVm(
            name=f"vm-{number}",
            group=f"rg-{number % (1 + tags % 2)}",
            units=dict.fromkeys(("web.service", "db.service")[: 1 + (number + senses) % 2], Unit.UP),
            tags={"watchdog": "observe" if odd and number == 3 else "on"},
            reports_endpoint=bool(odd and senses & 4),
            sample_seconds=10.0 if senses % 4 == 3 else 1.0,
        )
        if not (odd and senses & 8):
            vm.tags["watchdog-endpoint"] = vm.endpoint
        if odd and senses & 16:
            vm.tags["watchdog-ladder"] = "vm-restart"
        world.add(vm)
    world.cloud.canary_sends = bool(senses & 32)
    world.cloud.move_to(world.after(3.0))
    world.cloud.move_to(world.after(3.0))
    world.pass_time(3.0)
    jitter = policy.backoff.jitter_fraction if size >= policy.jitter_from_vms else 0.0
    return Story(world, Held(may_act=world.may_act, jitter=jitter))


def reached(story: Story) -> Counter[str]:
    """What a story came to: what no story reaches, no promise can be broken by."""
    found = Counter({"stories": 1, **story.world.met})
    for entry in story.world.chronicle.entries:
        match entry:
            case Sent():
                kind = "VM actions" if entry.action else "requests" if entry.is_requested else "restarts"
                found[kind] += 1
                found[f"commands {entry.outcome.kind}"] += 1
            case Queued():
                found[f"notices {entry.notice.kind}"] += 1
                found[f"because of {entry.notice.cause}"] += 1
            case Saved():
                found["writes"] += 1
            case Ended():
                found["undisturbed ticks"] += 1
            case _:
                pass
    return found
