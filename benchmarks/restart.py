"""From a killed worker to its detection, to the alert and to its next process: the product's main promise."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from benchmarks.figures import Figure
from benchmarks.options import Options
from devcloud.app_process import Record
from devcloud.stack import Stack, StackOptions, unit_of
from devcloud.webhook_sink import Received

_PATIENCE_SECONDS = 120.0
_SAMPLE_INTERVALS_SECONDS = (1.0, 15.0)  # the local stack's, and the agent's own default


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds after the kill."""

    detected: float
    alerted: float
    restarted: float


def measure(options: Options) -> list[Figure]:
    """Kill one worker after the other, each in a VM of its own and at a random moment."""
    figures: list[Figure] = []
    for interval_seconds in _SAMPLE_INTERVALS_SECONDS:
        outcomes = asyncio.run(_play(interval_seconds, options))
        note = f"agent looks every {interval_seconds:g} s, backoff {StackOptions().backoff_seconds[0]:g} s"
        figures += [
            Figure("kill -> detected", "s", tuple(one.detected for one in outcomes), note=note),
            Figure("kill -> alert received", "s", tuple(one.alerted for one in outcomes), note=note),
            Figure("kill -> new process", "s", tuple(one.restarted for one in outcomes), note=note),
        ]
    return figures


async def _play(interval_seconds: float, options: Options) -> list[Outcome]:
    repeat = options.repeat_or(5)
    stack_options = StackOptions(
        names=tuple(f"web-{number}" for number in range(1, repeat + 1)),
        port=0,
        sample_interval_seconds=interval_seconds,
    )
    async with Stack(stack_options, lambda _: None) as stack:
        await _all_healthy(stack)
        outcomes = []
        for name in stack.vms:
            await asyncio.sleep(random.uniform(0, interval_seconds))  # no kill in step with the samples
            outcomes.append(await _kill(stack, name))
            options.progress(
                f"restart: sampling every {interval_seconds:g} s, {name}, "
                f"a new process after {outcomes[-1].restarted:.1f} s"
            )
        return outcomes


async def _kill(stack: Stack, name: str) -> Outcome:
    vm, unit, start = stack.vms[name], unit_of(name), len(stack.app.records)
    await vm.kill_unit(unit)
    killed, killed_monotonic = datetime.now(UTC), time.monotonic()

    def decided(event: str) -> bool:
        return any(_is_decision(record, name, event) for record in stack.app.records[start:])

    detected = await stack.app.wait_for(
        lambda record: _is_decision(record, name, "transition: HEALTHY -> CRITICAL"), _PATIENCE_SECONDS, start
    )
    alert = await stack.sink.wait_until(lambda alert: _is_fired(alert, name), _PATIENCE_SECONDS)
    await stack.app.wait_for(lambda _: decided("transition: CRITICAL -> HEALTHY"), _PATIENCE_SECONDS, start)
    shown = await vm.unit_properties(unit)
    return Outcome(
        (datetime.fromisoformat(detected.time) - killed).total_seconds(),
        (alert.at - killed).total_seconds(),
        int(shown["ActiveEnterTimestampMonotonic"]) / 1e6 - killed_monotonic,
    )


async def _all_healthy(stack: Stack) -> None:
    def healthy(record: Record) -> bool:
        return record.message == "tick" and record.extra["statuses"] == {"HEALTHY": len(stack.vms)}

    await stack.app.wait_for(healthy, _PATIENCE_SECONDS)


def _is_decision(record: Record, vm: str, event: str) -> bool:
    return (
        record.message == "decision"
        and record.extra["vm"] == vm
        and any(text.startswith(event) for text in record.extra["events"])
    )


def _is_fired(alert: Received, vm: str) -> bool:
    return (alert.body["kind"], alert.body["vm"]["name"]) == ("fired", vm)
