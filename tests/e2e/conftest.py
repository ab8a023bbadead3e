"""The stacks of this tier, started when the first test wants them: see ``scenarios/stages.py``."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.e2e.scenarios.stages import Stages
from tests.e2e.site import Site


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stages() -> AsyncIterator[Stages]:
    """Every stage of this run; none is started yet."""
    started = Stages()
    try:
        yield started
    finally:
        await started.close()


@pytest_asyncio.fixture(loop_scope="session")
async def site(stages: Stages) -> AsyncIterator[Site]:
    """The stage of real machines, every VM healthy before a test, and after it again."""
    machines = await stages.site("machines")
    await machines.healthy()
    machines.begin()
    yield machines
    machines.stack.cloud.faults.clear()
    await machines.healthy()
