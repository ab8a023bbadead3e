"""The list of all scenarios, as a document: what each is about, in its own file's words."""

from __future__ import annotations

from devcloud.stack import ROOT
from tests.e2e.scenarios.script import read_scenario, scenario_files

DOCUMENT = ROOT / "docs" / "scenarios.md"
_HEAD = """\
# Scenarios

What the watchdog does when something breaks, each with its timeline as a file that `make e2e` plays against
real agents, the function app and the local Azure. A file names every change of status, every action, every
freeze and every alert of its VMs: anything else that happens fails it. What may stand in a file is told in
[`script.py`](../tests/e2e/scenarios/script.py); a scenario more is a file more, and
`python -m tests.e2e.scenarios` writes this list. Waits are seconds here that are minutes in production.

| scenario | what happens |
|---|---|
"""


def document_text() -> str:
    """Return the document; raises ScenarioError where a file can't be read."""
    scenarios = [read_scenario(path) for path in scenario_files()]
    rows = [
        f"| [{one.title}](../tests/e2e/scenarios/{one.name}.txt) | {one.about} |\n"
        for one in sorted(scenarios, key=lambda one: one.title)
    ]
    return _HEAD + "".join(rows)
