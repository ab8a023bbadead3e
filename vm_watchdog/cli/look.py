"""``status``, ``explain`` and ``would-have``: how things stand. Asks the operator's side and shows it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import TypeVar

from vm_health.model import Status
from vm_watchdog.api_models import ExplainView, FleetView, SilenceView, UnitView, VmSummary
from vm_watchdog.app import Watchdog
from vm_watchdog.cli.call import Call
from vm_watchdog.cli.output import (
    EXIT_OK,
    EXIT_UNKNOWN,
    EXIT_WARNING,
    Output,
    clock,
    exit_code_of,
    moment,
    plural,
    span,
)
from vm_watchdog.cli.policy import policy_lines
from vm_watchdog.operator import Operator

T = TypeVar("T")


def asked(call: Call, question: Callable[[Operator, Watchdog], Awaitable[T]]) -> T:
    """Open the watchdog, ask its operator, close it."""

    async def ask() -> T:
        async with call.connect() as watchdog:
            return await question(watchdog.operator, watchdog)

    return asyncio.run(ask())


def status(call: Call) -> int:
    """Show the fleet as a whole, and whoever needs people."""

    async def question(operator: Operator, watchdog: Watchdog) -> tuple[FleetView, float]:
        return await operator.status(), watchdog.live_max_age_seconds

    fleet, max_age_seconds = asked(call, question)
    is_late = fleet.last_tick is None or fleet.last_tick.age_seconds > max_age_seconds
    call.output.give(fleet.model_dump(mode="json"), _fleet_lines(call.output, fleet, is_late))
    if is_late:
        return EXIT_UNKNOWN
    code = exit_code_of(fleet.statuses)
    return EXIT_WARNING if code == EXIT_OK and (fleet.frozen or fleet.incidents) else code


def explain(call: Call) -> int:
    """Show a fresh look at one VM, and what would come of it."""
    arguments = call.arguments
    seen = asked(call, lambda operator, _: operator.explain(arguments.vm, arguments.group))
    call.output.give(seen.model_dump(mode="json"), _explain_lines(call.output, seen))
    return seen.status.exit_code


def would_have(call: Call) -> int:
    """Show what was due and not done."""
    since = call.clock() - timedelta(days=call.arguments.days)
    found = asked(call, lambda operator, _: operator.would_have(since))
    lines = [f"{moment(one.at)}  {one.name}  {one.kind}  {one.reason}" for one in reversed(found)]
    none = f"nothing was held back since {moment(since)}"
    call.output.give(
        {"since": since.isoformat(), "events": [one.model_dump(mode="json") for one in found]},
        lines or [none],
    )
    return EXIT_OK


def _fleet_lines(output: Output, fleet: FleetView, is_late: bool) -> Iterator[str]:
    counts = ", ".join(f"{count:,} {output.tint(name)}" for name, count in fleet.statuses.items())
    yield f"{plural(fleet.vms, 'VM')}{f': {counts}' if counts else ''}"
    if fleet.mode == "observe":
        yield "mode     observe: nothing is restarted"
    tick = fleet.last_tick
    if tick is None:
        yield f"tick     {output.tint('WARNING')}  no tick has ended yet"
    else:
        late = f"  {output.tint('WARNING')}: that is long ago, what follows is old" if is_late else ""
        yield f"tick     {moment(tick.finished_at)}, {span(tick.age_seconds)} ago{late}"
        yield from (f"trouble  {trouble}" for trouble in tick.troubles)
    if fleet.frozen:
        yield f"frozen   {fleet.frozen}"
    if fleet.thawed_until is not None:
        yield f"thawed   until {moment(fleet.thawed_until)} by {fleet.thawed_by}"
    yield from (f"silence  {silence_line(silence)}" for silence in fleet.silences)
    if fleet.needing:
        yield ""
    for vm in fleet.needing:
        yield from _vm_lines(output, vm)


def _vm_lines(output: Output, vm: VmSummary) -> Iterator[str]:
    flapping = ", flapping" if vm.is_flapping else ""
    yield f"{output.tint(vm.status, 8)} {vm.name}  {vm.cause} since {moment(vm.since)}{flapping}"
    yield f"         {vm.reason}"
    yield from (f"         {_unit_line(unit)}" for unit in vm.units)


def _unit_line(unit: UnitView) -> str:
    parts = [plural(unit.attempts, "attempt")]
    if unit.circuit_open:
        parts.append("given up: people must look")
    elif unit.command is not None:
        parts.append(f"a restart is under way (token {unit.command.token})")
    elif unit.not_before is not None:
        parts.append(f"the next not before {clock(unit.not_before)}")
    if unit.held:
        parts.append(f"held: {unit.held}")
    return f"{unit.name}: {', '.join(parts)}"


def _explain_lines(output: Output, seen: ExplainView) -> Iterator[str]:
    yield f"{output.tint(seen.status)}  {seen.name} in {seen.group}  {seen.cause}  {moment(seen.at)}"
    yield from (f"  seen    {sentence}" for sentence in seen.evidence)
    yield f"  so      {seen.reason}"
    if seen.status is Status.MAINTENANCE or seen.silences:
        yield from (f"  silence {silence_line(silence)}" for silence in seen.silences)
    yield from (f"  would   {sentence}" for sentence in seen.would_do or ["do nothing"])
    if seen.hold is not None:
        yield f"  held    {seen.hold.reason}"
    chosen = [(path, one.value, one.source) for path, one in seen.policy.items() if one.source != "default"]
    yield f"  policy  {len(chosen)} of {len(seen.policy)} values are not built in (policy show has all)"
    yield from (f"  {line}" for line in policy_lines(chosen))


def silence_line(silence: SilenceView) -> str:
    """Return a silence on one line."""
    parts = (("vm", silence.vm), ("group", silence.group), ("tag", silence.tag))
    match = "every VM" if silence.all else ", ".join(f"{name} {text}" for name, text in parts if text)
    begins = "" if silence.is_active else f"from {moment(silence.starts_at)} "
    until = f"{begins}until {moment(silence.ends_at)}"
    return f"{silence.id}  {silence.stops} of {match} {until}, {silence.created_by}: {silence.why}"
