"""Reads a scenario file into steps. All faults of a file are told at once, each with its line. Plays nothing.

A file starts with ``# Title`` and a sentence that says what it is about. Then one sentence a line::

    stage machines                              the stack it is played on: machines or processes
    given api-1, jobs-1 [in group shop]         VMs, alone in their groups where none is named
    given tag of api-1: watchdog = "observe"    one of their tags
    given policy of api-1: max_attempts = 2     a line of TOML of the policy that applies to them
    do SENTENCE                                 a sentence of ``doing.py`` or ``doing_cloud.py``
    then SENTENCE                               what must be seen next: a sentence of ``seeing.py``
    after 2 s SENTENCE                          the same, so long after the VM's line before: never earlier
    within 60 s SENTENCE                        the same, with more patience
    perhaps SENTENCE                            may be seen, or not
    never SENTENCE                              must not be seen in the whole scenario

What changes a VM's status, every action, every freeze and every alert must be named: what is seen of the
scenario's VMs without standing in its file is a failure. Lines that begin with ``#`` are comments.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.e2e.scenarios import doing_cloud, seeing
from tests.e2e.scenarios.sentences import Sentence

StageName = Literal["machines", "processes"]
STAGES: tuple[StageName, ...] = ("machines", "processes")
EVERY_VM = "every VM"
_LINE = re.compile(
    r"(?P<keyword>stage|given|do|then|perhaps|never"
    r"|after (?P<after>\d+(?:\.\d+)?) s|within (?P<within>\d+) s)\s+(?P<rest>.*)"
)
_VM_LIST = r"[a-z]+-\d+(?:, [a-z]+-\d+)*"
_GIVEN_VMS = re.compile(rf"(?P<vms>{_VM_LIST})(?: in group (?P<group>[a-z]+))?")
_GIVEN_TOML = re.compile(rf"(?P<what>policy|tag) of (?P<vms>{_VM_LIST}): (?P<toml>.+)")


class ScenarioError(Exception):
    """A scenario file can't be used; the message names every fault."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line that is played. ``seconds`` is that of "after" or "within"."""

    line: int
    text: str
    keyword: Literal["do", "then", "after", "within", "perhaps", "never"]
    sentence: Sentence
    seconds: float = 0.0


@dataclass(slots=True)
class Given:
    """A VM as a scenario wants it: tags, and the policy that applies to it, both as TOML reads them."""

    tags: dict[str, str] = field(default_factory=dict)
    policy: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Scenario:
    """A file that was read."""

    name: str
    title: str = ""
    about: str = ""
    stage: StageName = "machines"
    vms: dict[str, Given] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)


def scenario_files() -> list[Path]:
    """Every scenario that there is."""
    return sorted(Path(__file__).parent.glob("*.txt"))


def read_scenario(path: Path) -> Scenario:
    """Read a file; raises ScenarioError."""
    return parse(path.stem, path.read_text(encoding="utf-8"))


def parse(name: str, text: str) -> Scenario:
    """Read the text of a scenario; raises ScenarioError with every fault."""
    found, faults = Scenario(name), list[str]()
    about: list[str] = []
    for number, line in enumerate(map(str.strip, text.splitlines()), start=1):
        if number == 1:
            found.title = line.removeprefix("#").strip()
            if not line.startswith("# ") or not found.title:
                faults.append("line 1: must be '# ' and a title")
        elif line and not line.startswith("#"):
            matched = _LINE.fullmatch(line)
            if matched is None and not found.vms and not found.steps:
                about.append(line)
            elif matched is None:
                faults.append(f"line {number}: {line!r} begins with no known word")
            else:
                faults += [f"line {number}: {fault}" for fault in _take(found, number, line, matched)]
    found.about = " ".join(about)
    if not found.about.endswith("."):
        faults.append("must say in a sentence what it is about")
    if not any(step.keyword == "do" for step in found.steps):
        faults.append("must do something")
    if not found.steps or found.steps[-1].keyword in ("do", "perhaps"):
        faults.append("must end with what is seen")
    if faults:
        raise ScenarioError(f"{name}: " + "; ".join(faults))
    return found


def _take(found: Scenario, number: int, line: str, matched: re.Match[str]) -> Iterator[str]:
    """Add a line to ``found``; yields what is wrong with it."""
    keyword, rest = matched["keyword"].split()[0], matched["rest"].strip()
    if keyword == "stage":
        yield from [] if rest in STAGES else [f"stage must be one of {', '.join(STAGES)}, is {rest!r}"]
        found.stage = rest  # type: ignore[assignment]
        return
    if keyword == "given":
        yield from _take_given(found, rest)
        return
    known = doing_cloud.SENTENCES if keyword == "do" else seeing.SENTENCES
    sentence = known.read(rest)
    if sentence is None:
        yield f"{rest!r} is no sentence that may follow {keyword!r}"
        return
    if keyword in ("perhaps", "never", "after") and not isinstance(sentence.meaning, seeing.Event):
        yield f"after {keyword!r} must stand an event of a VM, the fleet or an alert, not {rest!r}"
        return
    vms = tuple(found.vms) if sentence.vms == (EVERY_VM,) else sentence.vms
    yield from (f"{vm} is not given" for vm in vms if vm not in found.vms)
    seconds = float(matched["after"] or matched["within"] or 0)
    found.steps.append(Step(number, line, keyword, sentence.about(vms), seconds))  # type: ignore[arg-type]


def _take_given(found: Scenario, rest: str) -> Iterator[str]:
    if matched := _GIVEN_VMS.fullmatch(rest):
        for vm in matched["vms"].split(", "):
            found.vms[vm] = Given({"watchdog-group": matched["group"] or vm})
    elif matched := _GIVEN_TOML.fullmatch(rest):
        try:
            value = tomllib.loads(matched["toml"])
        except tomllib.TOMLDecodeError as error:
            yield f"{matched['toml']!r} must be a line of TOML ({error})"
            return
        for vm in matched["vms"].split(", "):
            if vm not in found.vms:
                yield f"{vm} must be given before its {matched['what']}"
            elif matched["what"] == "tag":
                found.vms[vm].tags |= {name: str(text) for name, text in value.items()}
            else:
                found.vms[vm].policy = _merged(found.vms[vm].policy, value)
    else:
        yield f"{rest!r} is nothing that can be given"


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    both = {name: _merged(first[name], value) if isinstance(value, dict) and isinstance(first.get(name), dict)
            else value for name, value in second.items()}  # fmt: skip
    return {**first, **both}


def conflicts(scenarios: Sequence[Scenario]) -> list[str]:
    """Name the VMs of which two files on one stage want different things."""
    found, first = [], dict[tuple[str, str], tuple[str, Given]]()
    for scenario in scenarios:
        for vm, given in scenario.vms.items():
            name, known = first.setdefault((scenario.stage, vm), (scenario.name, given))
            if known != given:
                found.append(f"{vm} is given otherwise in {scenario.name} than in {name}")
    return found
