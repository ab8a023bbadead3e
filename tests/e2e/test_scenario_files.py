"""The scenario files themselves: nothing in them is overlooked, the document lists them. Starts nothing."""

from __future__ import annotations

import pytest

from tests.e2e.scenarios.document import DOCUMENT, document_text
from tests.e2e.scenarios.script import STAGES, ScenarioError, StageName, parse
from tests.e2e.scenarios.stages import readable_scenarios, stage_options
from vm_health.model import Cause
from vm_watchdog.policy_file import parse_policy

GOOD = """\
# A title

A sentence.

stage machines
given api-1
do kill the worker on api-1
then alert fired: api-1 service_down
"""


def test_a_scenario_is_read_whole() -> None:
    found = parse("good", GOOD + 'given tag of api-1: watchdog = "observe"\nnever api-1 restart\n')
    assert (found.title, found.about, found.stage) == ("A title", "A sentence.", "machines")
    assert found.vms["api-1"].tags == {"watchdog-group": "api-1", "watchdog": "observe"}
    assert [step.keyword for step in found.steps] == ["do", "then", "never"]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("do paint the worker on api-1", "'paint the worker on api-1' is no sentence that may follow 'do'"),
        ("then api-1 sings", "'api-1 sings' is no sentence that may follow 'then'"),
        ("then kill the worker on api-1", "is no sentence that may follow 'then'"),
        ("soon api-1 restart", "begins with no known word"),
        ("never live answers 503", "after 'never' must stand an event"),
        ("then alert fired: web-9 service_down", "web-9 is not given"),
        ("given policy of web-9: max_attempts = 2", "web-9 must be given before its policy"),
        ("given policy of api-1: max_attempts =", "must be a line of TOML"),
        ("given peace", "'peace' is nothing that can be given"),
        ("stage theatre", "stage must be one of machines, processes, is 'theatre'"),
    ],
)
def test_what_a_file_must_not_say_is_told_with_its_line(line: str, fault: str) -> None:
    with pytest.raises(ScenarioError) as raised:
        parse("bad", f"{GOOD}{line}\n")
    assert f"line {GOOD.count(chr(10)) + 1}: " in str(raised.value)
    assert fault in str(raised.value)


def test_all_faults_of_a_file_are_told_at_once() -> None:
    with pytest.raises(ScenarioError) as raised:
        parse("bad", "no title\ndo nothing\nthen nothing\n")
    for fault in ("line 1", "line 2", "line 3", "must say in a sentence", "must do something"):
        assert fault in str(raised.value)


def test_a_scenario_ends_with_what_is_seen() -> None:
    with pytest.raises(ScenarioError, match="must end with what is seen"):
        parse("bad", GOOD + "do start the worker on api-1\n")


@pytest.mark.parametrize("stage", STAGES)
def test_the_policy_that_a_stage_gets_is_a_good_one(stage: StageName) -> None:
    faults: list[str] = []
    parse_policy(stage_options(stage).policy, f"{stage}.toml", faults)
    assert faults == []


def test_the_document_lists_every_scenario() -> None:
    """``python -m tests.e2e.scenarios`` writes it."""
    assert DOCUMENT.read_text(encoding="utf-8") == document_text()


def test_causes_in_scenarios_are_the_products_own() -> None:
    """A misspelt cause would otherwise be seen only when its scenario waits in vain."""
    words = {
        step.sentence.places["word"]
        for scenario in readable_scenarios()
        for step in scenario.steps
        if step.keyword != "do" and "word" in step.sentence.places
    }
    assert words <= set(Cause)
