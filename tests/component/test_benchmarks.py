"""The measuring program itself: a short run, its table and its file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import MEASUREMENTS, main, measurement
from benchmarks.figures import Figure, table
from benchmarks.options import ROOT


def test_measures_the_import_and_says_on_what(tmp_path: Path) -> None:
    """One row a figure with its goal, and the same numbers as JSON."""
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "import", "--repeat", "2", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode in (0, 1), done.stderr  # whether the goal is met depends on the machine
    assert done.stdout.startswith("cores: ")
    found = json.loads(file.read_text())
    for figure in found["figures"]:
        assert f"\n{figure['figure']} " in done.stdout
        assert len(figure["values"]) == 2
        assert figure["median"] > 0
    [goal] = [figure for figure in found["figures"] if figure["goal"] is not None]
    assert (goal["figure"], goal["goal"]) == ("import function_app", 0.3)
    assert goal["met"] == (goal["median"] <= 0.3) == (done.returncode == 0)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["imports"], "unknown: imports; must be of import, decisions, tick, agent, warm, restart, cold"),
        (["import", "--repeat", "0"], "must be a whole number from 1 to 100, was 0"),
    ],
)
def test_names_what_it_does_not_know(
    arguments: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bad arguments end with what they may be, and measure nothing."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert fault in capsys.readouterr().err


def test_every_measurement_is_there() -> None:
    """What is named on the command line can be loaded."""
    assert all(callable(measurement(name)) for name in MEASUREMENTS)


def test_the_table_holds_result_against_goal() -> None:
    """The median counts; one run has no worst."""
    lines = table(
        [Figure("slow", "s", (1.0, 9.0, 3.0), goal=2.0), Figure("small", "MB", (19.96,), 20.0, "alone")]
    ).splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["slow", "3", "9", "s", "<=", "2", "MISSED", "3"],
        ["small", "20", "MB", "<=", "20", "met", "1", "alone"],
    ]
