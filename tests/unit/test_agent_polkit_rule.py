"""The polkit rule: what it names, what never gets into it; that polkit obeys it is a component test's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from vm_agent.polkit_rule import knows_rules, rule
from vm_health.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def units_of(text: str) -> list[str]:
    """The list as a JavaScript engine reads it, which for this part is JSON."""
    found = re.search(r"var units = (\[.*?\]);", text, re.DOTALL)
    assert found is not None
    names: list[str] = json.loads(found[1])
    return names


def test_it_names_each_unit_once_and_in_order() -> None:
    assert units_of(rule(["web.service", "db.service", "web.service"])) == ["db.service", "web.service"]


def test_no_units_allow_nothing() -> None:
    assert units_of(rule([])) == []


def test_a_legal_backslash_stays_a_backslash() -> None:
    text = rule([r"mnt-my\x2ddisk.mount"])
    assert r'"mnt-my\\x2ddisk.mount"' in text
    assert units_of(text) == [r"mnt-my\x2ddisk.mount"]


def test_whatever_is_no_full_unit_name_is_refused_all_at_once() -> None:
    wrong = [
        'a"];polkit.addRule(x);[".service',
        "web",
        "web.service\n",
        "-x.service",
        "*.service",
        "wéb.service",
    ]
    with pytest.raises(ConfigError) as caught:
        rule(["web.service", *wrong])
    assert sorted(fault.partition("was ")[2] for fault in caught.value.faults) == sorted(map(repr, wrong))


def test_a_user_name_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="user must be"):
        rule(["web.service"], user='x" || true || "')
    assert 'subject.user !== "watcher"' in rule([], user="watcher")


@pytest.mark.parametrize(
    ("version", "knows"),
    [
        ("pkaction version 0.105", False),
        ("pkaction version 0.106", True),
        ("pkaction version 122", True),
        ("pkaction version 0.120", True),
        ("", False),
    ],
)
def test_which_polkit_knows_rules(version: str, knows: bool) -> None:
    assert knows_rules(version) is knows


def test_the_example_in_deploy_is_what_the_code_writes() -> None:
    example = ROOT / "deploy" / "polkit" / "50-vm-agent.rules"
    assert example.read_text(encoding="utf-8") == rule(["faucet_worker.service"])
