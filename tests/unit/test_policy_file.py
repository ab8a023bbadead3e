"""The policy file: what people write, and every fault in it by name."""

from __future__ import annotations

import tomllib
from dataclasses import asdict
from pathlib import Path

import pytest

from vm_health.backoff import BackoffPolicy
from vm_health.policy import Policy
from vm_health.rules import Thresholds
from vm_watchdog.policy_file import DEFAULT_POLICY_FILE, load_policy, parse_policy


def parsed(text: str) -> Policy:
    faults: list[str] = []
    policy = parse_policy(text, "p.toml", faults)
    assert faults == []
    return policy


def faults_in(text: str) -> list[str]:
    faults: list[str] = []
    parse_policy(text, "p.toml", faults)
    return faults


def test_the_file_that_is_shipped_holds_the_defaults() -> None:
    """Its first line says so."""
    faults: list[str] = []
    assert load_policy(DEFAULT_POLICY_FILE, faults) == Policy()
    assert faults == []


def test_the_file_that_is_shipped_shows_every_setting() -> None:
    defaults = tomllib.loads(DEFAULT_POLICY_FILE.read_text())["defaults"]
    expected = set(asdict(Policy())) - {"backoff", "may_act"} | {"backoff_seconds", "backoff_jitter"}
    assert set(defaults) == expected
    assert set(defaults["thresholds"]) == set(asdict(Thresholds()))


@pytest.mark.parametrize("text", ["", "[defaults]", "# nothing", "[defaults.thresholds]"])
def test_nothing_written_is_the_default(text: str) -> None:
    assert parsed(text) == Policy()


def test_every_value_is_taken() -> None:
    policy = parsed("""
        [defaults]
        backoff_seconds = [1, 2.5]
        backoff_jitter = 0.1
        max_attempts = 9
        stable_after_seconds = 11
        confirm_down = 3
        confirm_up = 4
        confirm_silent = 5
        snapshot_max_age_seconds = 120
        verify_after_seconds = 1.5
        [defaults.thresholds]
        disk_warning_percent = 70
        disk_critical_percent = 75.5
        memory_warning_percent = 60
        crash_loop_restarts = 2
        heartbeat_max_age_seconds = 30
    """)
    assert policy == Policy(
        thresholds=Thresholds(70, 75.5, 60, 2, 30),
        backoff=BackoffPolicy((1.0, 2.5), 0.1),
        confirm_down=3,
        confirm_up=4,
        confirm_silent=5,
        snapshot_max_age_seconds=120,
        stable_after_seconds=11,
        max_attempts=9,
        verify_after_seconds=1.5,
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[defaults", ["p.toml must be TOML"]),
        ("defaults = 1", ["p.toml: defaults must be a table"]),
        ("[groups.web]", ["p.toml: groups is not a setting"]),
        ("[default]", ["p.toml: default is not a setting; did you mean defaults?"]),
        (
            "[defaults]\nmax_attempt = 1",
            ["p.toml: defaults.max_attempt is not a setting; did you mean defaults.max_attempts?"],
        ),
        (
            "[defaults.thresholds]\ndisk_warn_percent = 1",
            [
                "p.toml: defaults.thresholds.disk_warn_percent is not a setting;"
                " did you mean defaults.thresholds.disk_warning_percent?"
            ],
        ),
        ("[defaults]\nthresholds = 1", ["p.toml: defaults.thresholds must be a table"]),
        ('[defaults]\nmax_attempts = "6"', ["p.toml: defaults.max_attempts must be a whole number, is '6'"]),
        ("[defaults]\nmax_attempts = 6.0", ["p.toml: defaults.max_attempts must be a whole number, is 6.0"]),
        (
            "[defaults]\nmax_attempts = true",
            ["p.toml: defaults.max_attempts must be a whole number, is True"],
        ),
        ("[defaults]\nmax_attempts = 0", ["p.toml: max_attempts must be 1 or more, is 0"]),
        (
            "[defaults]\nverify_after_seconds = nan",
            ["p.toml: defaults.verify_after_seconds must be a number"],
        ),
        (
            "[defaults]\nverify_after_seconds = inf",
            ["p.toml: defaults.verify_after_seconds must be a number"],
        ),
        (
            "[defaults]\nstable_after_seconds = " + "9" * 400,
            ["p.toml: defaults.stable_after_seconds must be a"],
        ),
        (
            "[defaults]\nbackoff_seconds = 10",
            ["p.toml: defaults.backoff_seconds must be a list of numbers, is 10"],
        ),
        ("[defaults]\nbackoff_seconds = []", ["p.toml: backoff needs 1 to 20 steps"]),
        (
            '[defaults]\nbackoff_seconds = ["1"]',
            ["p.toml: defaults.backoff_seconds must be a list of numbers"],
        ),
        (f"[defaults]\nbackoff_seconds = [{'9' * 400}]", ["p.toml: defaults.backoff_seconds must be a list"]),
        ("[defaults]\nbackoff_seconds = [20, 10]", ["p.toml: backoff steps must not fall"]),
        ("[defaults]\nbackoff_jitter = 0.9", ["p.toml: backoff jitter must lie in 0…0.5"]),
        (
            "[defaults.thresholds]\ndisk_warning_percent = 95\ncrash_loop_restarts = 0",
            [
                "p.toml: disk_warning_percent (95) must not be above",
                "p.toml: crash_loop_restarts must be 1 or more",
            ],
        ),
        (
            '[defaults]\nconfirm_up = "x"\nconfirm_down = []\nnonsense = 1',
            ["p.toml: defaults.nonsense", "p.toml: defaults.confirm_down", "p.toml: defaults.confirm_up"],
        ),
    ],
)
def test_every_fault_is_named(text: str, named: list[str]) -> None:
    faults = faults_in(text)
    assert len(faults) == len(named), faults
    for fault, start in zip(faults, named, strict=True):
        assert fault.startswith(start)


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_bytes(b"\xff\xfe")
    faults: list[str] = []
    load_policy(path, faults)
    assert faults[0].startswith(f"WATCHDOG_POLICY_FILE {path} must be readable UTF-8")


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    faults: list[str] = []
    load_policy(tmp_path, faults)
    assert len(faults) == 1
