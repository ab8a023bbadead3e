"""The stacks that scenarios are played on: made of what the files give, started once, played on in parallel.

Scenarios that share no VM run at the same time; one that wants every VM of its stage waits for all others.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from devcloud.stack import TOOLS, StackOptions
from devcloud.vms.factory import Kind
from devcloud.vms.systemd import supported
from tests.conftest import require
from tests.e2e.scenarios.play import Play
from tests.e2e.scenarios.script import (
    Scenario,
    ScenarioError,
    StageName,
    conflicts,
    read_scenario,
    scenario_files,
)
from tests.e2e.site import Site, opened_site

_KINDS: Mapping[StageName, Kind] = {"machines": "systemd", "processes": "process"}
_AT_ONCE = 6  # as many as two cores carry
_SETTINGS = {"WATCHDOG_LIVE_MAX_AGE_SECONDS": "10", "WATCHDOG_PROBE_TIMEOUT_SECONDS": "1"}
_ALWAYS: Mapping[StageName, tuple[str, ...]] = {"machines": ("web-1", "api-1", "jobs-1"), "processes": ()}


class Stages:
    """Starts a stage when it is first asked for. ``close`` ends everything."""

    def __init__(self) -> None:
        self._exit = AsyncExitStack()
        self._sites: dict[StageName, Site] = {}
        self._starting = asyncio.Lock()
        self._vm_locks: dict[tuple[StageName, str], asyncio.Lock] = {}
        self._plays: dict[str, asyncio.Task[float]] = {}
        self._at_once = asyncio.Semaphore(_AT_ONCE)

    async def close(self) -> None:
        """End what is still being played, then the stacks."""
        for task in self._plays.values():
            task.cancel()
        await asyncio.gather(*self._plays.values(), return_exceptions=True)
        await self._exit.aclose()

    async def site(self, stage: StageName) -> Site:
        """The running stack."""
        async with self._starting:
            if stage not in self._sites:
                need(_KINDS[stage])
                self._sites[stage] = await self._exit.enter_async_context(opened_site(stage_options(stage)))
        return self._sites[stage]

    def begin(self, scenarios: Sequence[Scenario]) -> None:
        """Play these, as many at a time as share no VM."""
        for scenario in scenarios:
            if scenario.name not in self._plays:
                self._plays[scenario.name] = asyncio.create_task(self._play(scenario))

    async def played(self, name: str) -> float:
        """Wait for a scenario's end; returns how long it took. Raises what went wrong in it."""
        return await self._plays[name]

    async def _play(self, scenario: Scenario) -> float:
        site = await self.site(scenario.stage)
        async with AsyncExitStack() as held:
            for vm in sorted(scenario.vms):
                key = (scenario.stage, vm)
                await held.enter_async_context(self._vm_locks.setdefault(key, asyncio.Lock()))
            await held.enter_async_context(self._at_once)
            began = time.monotonic()
            await Play(site, scenario).run()
            return time.monotonic() - began


def need(kind: Kind) -> None:
    """End the test where the machine can't run this kind of VM."""
    require((TOOLS / "node_modules" / "azurite").is_dir(), "Azurite, which make setup installs")
    reason = supported() if kind == "systemd" else None
    require(reason is None, str(reason))


def readable_scenarios() -> list[Scenario]:
    """Every scenario whose file can be read; the others fail their own tests."""
    found = []
    for path in scenario_files():
        try:
            found.append(read_scenario(path))
        except ScenarioError:
            continue
    return found


def stage_options(stage: StageName) -> StackOptions:
    """What a stage must be for all its scenarios."""
    scenarios = [one for one in readable_scenarios() if one.stage == stage]
    if faults := conflicts(scenarios):
        raise ScenarioError("; ".join(faults))
    given = {vm: one for scenario in scenarios for vm, one in scenario.vms.items()}
    names = dict.fromkeys((*_ALWAYS[stage], *given))
    policy = Path(__file__).with_name(f"{stage}.toml").read_text(encoding="utf-8")
    return StackOptions(
        kind=_KINDS[stage],
        names=tuple(names),
        port=0,
        schedule="* * * * * *",
        sample_interval_seconds=0.5 if stage == "machines" else 1.0,
        report_interval_seconds=1,
        settings=_SETTINGS,
        policy=policy + "".join(_rules((vm, one.policy) for vm, one in given.items())),
        tags={vm: {"watchdog-group": vm} | (given[vm].tags if vm in given else {}) for vm in names},
        has_relays=True,
    )


def _rules(policies: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterable[str]:
    for vm, policy in policies:
        if policy:
            yield f'\n[[vms]]\nmatch = {{ vm = "{vm}" }}\n'
            # JSON's values are TOML's, as far as a policy has them.
            own = {name: value for name, value in policy.items() if not isinstance(value, dict)}
            yield from (f"{name} = {json.dumps(value)}\n" for name, value in own.items())
            for table, values in policy.items():
                if isinstance(values, dict):
                    yield f"[vms.{table}]\n"
                    yield from (f"{name} = {json.dumps(value)}\n" for name, value in values.items())
