"""Steps in which time passes and the watchdog looks: as usual, late, twice, at the same time, or dying."""

from __future__ import annotations

from tests.properties.cloud import Message
from tests.properties.steps import Step, unit_of, vm_of
from tests.properties.world import Work, World, request_of, tick, work_of

WAITS = (5.0, 10.0, 20.0, 60.0, 1.0, 3.0, 15.0, 40.0, 0.5, 120.0, 300.0)
OUTAGES = (600.0, 3_000.0, 3_600.0, 43_200.0)
PAUSES = (0.0, 0.0, 1.0, 5.0, 12.0, 25.0)  # as long as one call of an instance may take


def minute(world: World, step: Step) -> None:
    world.pass_time(60.0 * (1 + step.a // 200))


def wait(world: World, step: Step) -> None:
    world.pass_time(WAITS[step.a % len(WAITS)])


def outage(world: World, step: Step) -> None:
    """The watchdog is not run for hours; then it is again, with all the old messages."""
    world.pass_time(OUTAGES[step.a % 4], ticks=False)


def extra_tick(world: World, _step: Step) -> None:
    world.run("tick", tick)
    world.deliver_due(only_shards=True)


def nudge(world: World, step: Step) -> None:
    world.deliver(Message(world.clock.now, vm_id=vm_of(world, step).vm_id), keeps=True)


def slow_queue(world: World, step: Step) -> None:
    """From now on messages come only when other rules bring them, or on time again."""
    world.is_prompt = bool(step.a % 3 == 0)


def bring(world: World, step: Step) -> None:
    """A message that is due comes: late, twice, or never."""
    due = [one for one in world.cloud.messages if one.visible_at <= world.clock.now]
    if not due:
        return
    message = due[step.a % len(due)]
    if step.b % 4 == 3:
        world.cloud.messages.remove(message)
        return
    world.deliver(message, keeps=step.b % 4 == 1)


def _work(world: World, step: Step, choice: int) -> tuple[str, Work]:
    """What an instance does: the message that is next, a look at some VM, a tick, or a person's request."""
    waiting = sorted(world.cloud.messages, key=lambda one: one.visible_at)
    if choice % 4 == 0 and waiting:
        if waiting[0].visible_at > world.clock.now:
            world.pass_time((waiting[0].visible_at - world.clock.now).total_seconds() - 0.01, ticks=False)
            world.cloud.move_to(max(waiting[0].visible_at, world.clock.now))
        return work_of(waiting[0])
    if choice % 4 == 1:
        return "tick", tick
    vm = vm_of(world, step)
    if choice % 4 == 2:
        return "request", request_of(vm.vm_id, unit_of(vm, step))
    return work_of(Message(world.clock.now, vm_id=vm.vm_id))


def race(world: World, step: Step) -> None:
    """Two instances: one is held somewhere, the other goes on, then the first does."""
    kind, work = _work(world, step, step.a)
    other_kind, other_work = (kind, work) if step.a // 4 % 2 == 0 else _work(world, step, step.a // 8)
    first = world.begin(kind, work, is_stepped=True)
    first.process.go_on(step.c % 48)
    world.tell(f"{first.name} is held after {first.process.points} calls; {other_kind} comes")
    world.cloud.move_to(world.after(PAUSES[step.b % len(PAUSES)]))
    world.met["races"] += first.process.is_held
    second = world.begin(other_kind, other_work, is_stepped=True)
    second.process.go_on(step.d if step.d < 40 else 1_000)
    world.cloud.move_to(world.after(PAUSES[step.b // 8 % len(PAUSES)]))
    for one in (first, second) if step.b // 64 % 2 == 0 else (second, first):
        world.end(one)


def crash(world: World, step: Step) -> None:
    """An instance dies between two calls; its message comes again."""
    kind, work = _work(world, step, step.a)
    dying = world.begin(kind, work, is_stepped=True)
    dying.process.go_on(step.c % 64)
    world.met["crashes"] += dying.process.is_held
    dying.process.die()
    world.tell(f"{dying.name} dies after {dying.process.points} calls")
    if step.b % 2:
        world.cloud.move_to(world.after(PAUSES[step.b // 2 % len(PAUSES)]))
        world.run(kind, work)


def hiccup(world: World, step: Step) -> None:
    """One call of an instance fails, or its answer is lost."""
    kind, work = _work(world, step, step.a)
    world.tell(f"{kind} with call {step.c % 48} failing")
    world.met["failing calls"] += 1
    world.run(kind, work, fails_at=step.c % 48, loses_answer=bool(step.b % 2))
