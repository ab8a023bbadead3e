"""Every scenario of ``scenarios/*.txt`` is played against the whole: agents, function app, local Azure."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.scenarios.script import Scenario, ScenarioError, read_scenario, scenario_files
from tests.e2e.scenarios.stages import Stages

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]


@pytest.mark.parametrize("path", scenario_files(), ids=lambda path: path.stem)
async def test_scenario(path: Path, stages: Stages, request: pytest.FixtureRequest) -> None:
    """What the file says is what happens, and nothing else does. The chosen ones play side by side."""
    scenario = read_scenario(path)
    stages.begin(_chosen(request))
    await stages.played(scenario.name)


def _chosen(request: pytest.FixtureRequest) -> list[Scenario]:
    """The scenarios of this run, in the order of their tests."""
    found = []
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.originalname == "test_scenario":
            try:
                found.append(read_scenario(item.callspec.params["path"]))
            except ScenarioError:  # its own test tells
                continue
    return found
