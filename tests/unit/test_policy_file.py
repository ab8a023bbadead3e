"""The policy file: what people write, every fault in it by name, and the document that explains it."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from vm_health.backoff import BackoffPolicy
from vm_health.policy import Policy
from vm_health.policy_book import TAG_LADDER, PolicyBook
from vm_health.rules import Thresholds
from vm_health.safety import FREEZE_CAUSES, SafetyPolicy
from vm_health.silence import Matcher, Stops, Subject
from vm_health.state import VmActionKind
from vm_health.windows import TAG_MAINTENANCE_UNTIL, MaintenanceWindow
from vm_watchdog.policy_fields import (
    DAYS,
    MATCH_FIELDS,
    POLICY_FIELDS,
    SAFETY_FIELDS,
    THRESHOLD_FIELDS,
    WINDOW_FIELDS,
)
from vm_watchdog.policy_file import DEFAULT_POLICY_FILE, MAX_RULES, TABLES, load_policy, parse_policy

DOCUMENT = DEFAULT_POLICY_FILE.parent / "docs" / "policy.md"


def parsed(text: str) -> PolicyBook:
    faults: list[str] = []
    book = parse_policy(text, "p.toml", faults)
    assert faults == []
    return book


def faults_in(text: str) -> list[str]:
    faults: list[str] = []
    parse_policy(text, "p.toml", faults)
    return faults


def uncommented(text: str) -> str:
    """The file with its examples switched on: `#` right before a word is an example, `# ` is prose."""
    return re.sub(r"^#(?=[^ ])", "", text, flags=re.MULTILINE)


class TestShippedFile:
    def test_it_holds_the_defaults(self) -> None:
        """Its first line says so."""
        faults: list[str] = []
        assert load_policy(DEFAULT_POLICY_FILE, faults) == PolicyBook()
        assert faults == []

    def test_it_shows_every_setting(self) -> None:
        document = tomllib.loads(DEFAULT_POLICY_FILE.read_text(encoding="utf-8"))
        assert set(document["defaults"]) == {*POLICY_FIELDS, "thresholds"}
        assert set(document["defaults"]["thresholds"]) == set(THRESHOLD_FIELDS)
        assert set(document["safety"]) == set(SAFETY_FIELDS)

    def test_its_examples_work(self) -> None:
        text = uncommented(DEFAULT_POLICY_FILE.read_text(encoding="utf-8"))
        book = parsed(text)
        assert [rule.path for rule in book.rules] == ["groups.web", "groups.batch-*", "vms[0]"]
        assert [window.name for window in book.windows] == ["patching"]
        assert set(tomllib.loads(text)) == set(TABLES)
        assert set(tomllib.loads(text)["maintenance"][0]) == {*WINDOW_FIELDS, "match"}


@pytest.mark.parametrize(
    "text", ["", "[defaults]", "# nothing", "[defaults.thresholds]", "[groups]", "[safety]", "vms = []"]
)
def test_nothing_written_is_the_default(text: str) -> None:
    assert parsed(text) == PolicyBook()


def test_every_value_is_taken() -> None:
    """Each differs from its default: a field that is not read would be noticed."""
    book = parsed("""
        [defaults]
        backoff_seconds = [1, 2.5]
        backoff_jitter = 0.2
        jitter_from_vms = 3
        max_attempts = 9
        stable_after_seconds = 11
        confirm_down = 3
        confirm_up = 4
        confirm_silent = 5
        snapshot_max_age_seconds = 120
        verify_after_seconds = 1.5
        on_stale_heartbeat = "restart"
        budget_percent = 20
        ladder = ["redeploy", "vm-restart"]
        ladder_wait_seconds = 301
        vm_actions_an_hour = 2
        vm_actions_a_day = 3
        flapping_high_percent = 40
        flapping_low_percent = 35.5
        excuse_max_seconds = 12
        command_hung_seconds = 14
        forget_after_seconds = 13
        reminder_seconds = 14
        [defaults.thresholds]
        disk_warning_percent = 70
        disk_critical_percent = 75.5
        memory_warning_percent = 60
        crash_loop_restarts = 2
        heartbeat_max_age_seconds = 30
        log_errors = 4
        startup_grace_seconds = 5
        [safety]
        mass_failure_percent = 40
        mass_failure_min_vms = 4
        mass_failure_window_seconds = 60
        stale_min_vms = 5
        inventory_settles_seconds = 600
    """)
    expected = Policy(
        thresholds=Thresholds(70, 75.5, 60, 2, 30, 4, 5),
        backoff=BackoffPolicy((1.0, 2.5), 0.2),
        confirm_down=3,
        confirm_up=4,
        confirm_silent=5,
        snapshot_max_age_seconds=120,
        stable_after_seconds=11,
        max_attempts=9,
        verify_after_seconds=1.5,
        jitter_from_vms=3,
        restart_on_stale_heartbeat=True,
        ladder=(VmActionKind.REDEPLOY, VmActionKind.RESTART),
        ladder_wait_seconds=301,
        vm_actions_an_hour=2,
        vm_actions_a_day=3,
        budget_percent=20,
        reminder_seconds=14,
        flapping_high_percent=40,
        flapping_low_percent=35.5,
        excuse_max_seconds=12,
        command_hung_seconds=14,
        forget_after_seconds=13,
    )
    assert book == PolicyBook(expected, safety=SafetyPolicy(40, 4, 60, 5, 600))
    sources = {applied.path: applied.source for applied in book.explain(Subject("vm", "group"))}
    assert set(sources.values()) == {"p.toml [defaults]"}
    defaults = {applied.path: applied.value for applied in PolicyBook().explain(Subject("vm", "group"))}
    now = {applied.path: applied.value for applied in book.explain(Subject("vm", "group"))}
    assert all(now[path] != defaults[path] for path in defaults)


def test_nothing_at_all_is_a_value_too() -> None:
    policy = parsed("""
        [defaults]
        flapping_high_percent = 0
        flapping_low_percent = 0
        budget_percent = 0
        backoff_jitter = 0
        thresholds = { disk_warning_percent = 0, startup_grace_seconds = 0 }
    """).defaults
    assert (policy.flapping_high_percent, policy.budget_percent, policy.backoff.jitter_fraction) == (0, 0, 0)
    assert (policy.thresholds.disk_warning_percent, policy.thresholds.startup_grace_seconds) == (0, 0)


def test_groups_and_vms_override_the_defaults_in_this_order() -> None:
    book = parsed("""
        [[vms]]
        match = { vm = "web-1", group = "web", tag = "Env = prod" }
        max_attempts = 3
        thresholds = { log_errors = 7 }
        [groups."w*"]
        max_attempts = 9
        confirm_up = 9
        [groups.web]
        confirm_up = 4
        [groups.web.thresholds]
        disk_warning_percent = 85
        [defaults]
        confirm_down = 5
    """)
    found = {
        path: (value, source)
        for path, value, source in book.explain(Subject("web-1", "web", {"env": "prod"}))
        if source != "default"
    }
    assert found == {
        "confirm_down": (5, "p.toml [defaults]"),
        "confirm_up": (4, "[groups.web]"),
        "max_attempts": (3, "[[vms]] vm web-1, group web, tag env=prod"),
        "thresholds.disk_warning_percent": (85.0, "[groups.web]"),
        "thresholds.log_errors": (7, "[[vms]] vm web-1, group web, tag env=prod"),
    }
    assert book.policy_for(Subject("web-2", "web")).max_attempts == 9
    assert book.policy_for(Subject("db-1", "db")) == replace(Policy(), confirm_down=5)


def test_windows_are_read() -> None:
    (full, small) = parsed("""
        [[maintenance]]
        name = "patching"
        match = { group = "web" }
        days = ["sat", "sun"]
        at = "23:30"
        minutes = 90
        stops = "action"
        why = "weekly patching"
        [[maintenance]]
        name = "nightly"
        match = { vm = "*" }
        at = "00:00"
        minutes = 5
        why = "backup"
    """).windows
    assert full == MaintenanceWindow(
        "patching",
        Matcher(group="web"),
        23 * 60 + 30,
        90,
        "weekly patching",
        frozenset({5, 6}),
        Stops.ACTION,
        "p.toml",
    )
    assert small == MaintenanceWindow("nightly", Matcher(vm="*"), 0, 5, "backup", created_by="p.toml")


WINDOW = 'name = "w"\nmatch = { vm = "*" }\nat = "02:00"\nminutes = 10\nwhy = "x"\n'
MATCH_MUST = 'match must be a table of vm, group or tag such as { vm = "db-*" }'


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[defaults", ["p.toml must be TOML"]),
        ("a = " + "[" * 5_000, ["p.toml must be TOML"]),
        ("[defaults]\nmax_attempts = " + "9" * 5_000, ["p.toml must be TOML"]),
        ("defaults = 1", ["p.toml: defaults must be a table, is 1"]),
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
        ("[defaults]\nmay_act = false", ["p.toml: defaults.may_act is not a setting"]),
        ("[defaults]\nthresholds = 1", ["p.toml: defaults.thresholds must be a table"]),
        (
            '[defaults]\nmax_attempts = "6"',
            ["p.toml: defaults.max_attempts must be a whole number, 0 or more, is '6'"],
        ),
        (
            "[defaults]\nmax_attempts = 6.0",
            ["p.toml: defaults.max_attempts must be a whole number, 0 or more, is 6.0"],
        ),
        ("[defaults]\nmax_attempts = true", ["p.toml: defaults.max_attempts must be a whole number"]),
        ("[defaults]\nmax_attempts = -1", ["p.toml: defaults.max_attempts must be a whole number"]),
        ("[defaults]\nmax_attempts = 0", ["p.toml: defaults.max_attempts must be 1 or more, is 0"]),
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
            ["p.toml: defaults.backoff_seconds must be a list of numbers, 0 or more, is 10"],
        ),
        ("[defaults]\nbackoff_seconds = []", ["p.toml: defaults: backoff needs 1 to 20 steps"]),
        (
            '[defaults]\nbackoff_seconds = ["1"]',
            ["p.toml: defaults.backoff_seconds must be a list of numbers"],
        ),
        (f"[defaults]\nbackoff_seconds = [{'9' * 400}]", ["p.toml: defaults.backoff_seconds must be a list"]),
        ("[defaults]\nbackoff_seconds = [20, 10]", ["p.toml: defaults: backoff steps must not fall"]),
        ("[defaults]\nbackoff_jitter = 0.9", ["p.toml: defaults: backoff jitter must lie in 0…0.5"]),
        (
            '[defaults]\nladder = "redeploy"',
            ["p.toml: defaults.ladder must be a list of any of vm-restart, redeploy, is 'redeploy'"],
        ),
        (
            "[defaults]\nladder = [[]]",
            ["p.toml: defaults.ladder must be a list of any of vm-restart, redeploy"],
        ),
        (
            '[defaults]\nladder = ["redeploy", "redeploy"]',
            ["p.toml: defaults.ladder must name each step once, is ['redeploy', 'redeploy']"],
        ),
        (
            "[defaults]\non_stale_heartbeat = true",
            ["p.toml: defaults.on_stale_heartbeat must be one of alert, restart, is True"],
        ),
        (
            "[defaults]\nflapping_low_percent = 31",
            ["p.toml: defaults.flapping_low_percent (31) must not be above flapping_high_percent (30)"],
        ),
        (
            "[defaults.thresholds]\ndisk_warning_percent = 95\ncrash_loop_restarts = 0",
            [
                "p.toml: defaults.thresholds.disk_warning_percent (95) must not be above",
                "p.toml: defaults.thresholds.crash_loop_restarts must be 1 or more",
            ],
        ),
        (
            '[defaults]\nconfirm_up = "x"\nconfirm_down = []\nnonsense = 1',
            ["p.toml: defaults.nonsense", "p.toml: defaults.confirm_down", "p.toml: defaults.confirm_up"],
        ),
        ("groups = []", ["p.toml: groups must be a table, is []"]),
        ("[groups]\nweb = 1", ["p.toml: groups.web must be a table, is 1"]),
        ('[groups." "]\nconfirm_up = 3', ["p.toml: groups: a group's name must not be empty"]),
        (
            "[groups.web]\nconfirm = 3",
            ["p.toml: groups.web.confirm is not a setting; did you mean groups.web.confirm_up?"],
        ),
        (
            "[groups.web.thresholds]\ndisk_warning_percent = 95",
            [
                "p.toml: groups.web.thresholds.disk_warning_percent (95) must not be above"
                " disk_critical_percent (90)"
            ],
        ),
        (
            "[groups.web.thresholds]\ndisk_warning_percent = '9'",
            ["p.toml: groups.web.thresholds.disk_warning_percent must be a number, 0 or more, is '9'"],
        ),
        ("[vms]\nconfirm_up = 3", ["p.toml: vms must be a list of tables ([[vms]]), is {'confirm_up': 3}"]),
        ("vms = [1]", ["p.toml: vms must be a list of tables ([[vms]]), is [1]"]),
        ("[[vms]]\nconfirm_up = 3", [f"p.toml: vms[0].{MATCH_MUST}, is None"]),
        ("[[vms]]\nmatch = {}", [f"p.toml: vms[0].{MATCH_MUST}, is {{}}"]),
        ('[[vms]]\nmatch = "db-*"', [f"p.toml: vms[0].{MATCH_MUST}, is 'db-*'"]),
        (
            '[[vms]]\nmatch = { name = "x" }',
            ["p.toml: vms[0].match.name is not a setting"],
        ),
        ('[[vms]]\nmatch = { vm = " " }', ["p.toml: vms[0].match.vm must be a text of 1 to 300 printable"]),
        ('[[vms]]\nmatch = { tag = "=prod" }', ["p.toml: vms[0].match.tag must be a tag and its value"]),
        ('[[vms]]\nmatch = { tag = "env=" }', ["p.toml: vms[0].match.tag must be a tag and its value"]),
        (
            '[[vms]]\nmatch = { tag = "env" }',
            ["p.toml: vms[0].match.tag must be a tag and its value such as \"env=prod\", is 'env'"],
        ),
        (
            '[[vms]]\nmatch = { vm = "a" }\n[[vms]]\nmatch = { vm = "b" }\nmax_attempts = 0',
            ["p.toml: vms[1].max_attempts must be 1 or more, is 0"],
        ),
        (
            "[defaults]\nconfirm_up = 0\n[groups.web]\nmax_attempts = 0\n[safety]\nstale_min_vms = 0",
            [
                "p.toml: defaults.confirm_up must be 1 or more, is 0",
                "p.toml: groups.web.max_attempts must be 1 or more, is 0",
                "p.toml: safety.stale_min_vms must be 1 or more, is 0",
            ],
        ),
        (
            "[groups.web.thresholds]\ndisk_warning_percent = 88\n"
            '[[vms]]\nmatch = { vm = "web-1" }\nthresholds = { disk_critical_percent = 85 }',
            ["p.toml: groups.web together with vms[0]: disk_warning_percent (88) must not be above"],
        ),
        (
            "[safety]\nmass_percent = 3",
            ["p.toml: safety.mass_percent is not a setting; did you mean safety.mass_failure_percent?"],
        ),
        ("[safety]\nstale_min_vms = 2.5", ["p.toml: safety.stale_min_vms must be a whole number"]),
        ("[maintenance]\n" + WINDOW, ["p.toml: maintenance must be a list of tables ([[maintenance]])"]),
        (
            "[[maintenance]]",
            [
                f"p.toml: maintenance[0].{MATCH_MUST}, is None",
                "p.toml: maintenance[0].name must be set",
                "p.toml: maintenance[0].at must be set",
                "p.toml: maintenance[0].minutes must be set",
                "p.toml: maintenance[0].why must be set",
            ],
        ),
        (
            "[[maintenance]]\n" + WINDOW.replace('"02:00"', '"24:00"'),
            ["p.toml: maintenance[0].at must be a time of day (UTC) as text, such as \"02:00\", is '24:00'"],
        ),
        (
            "[[maintenance]]\n" + WINDOW.replace('"02:00"', "02:00:00"),
            ["p.toml: maintenance[0].at must be a time of day (UTC) as text"],
        ),
        (
            "[[maintenance]]\n" + WINDOW + 'days = ["sunday"]\nstops = "all"\nuntil = 1',
            [
                "p.toml: maintenance[0].until is not a setting",
                "p.toml: maintenance[0].days must be a list of any of mon, tue, wed, thu, fri, sat, sun",
                "p.toml: maintenance[0].stops must be one of alerts, action, both, is 'all'",
            ],
        ),
        (
            "[[maintenance]]\n" + WINDOW.replace("10", "1440"),
            ["p.toml: maintenance.w.minutes must be 1 to 1439, is 1440"],
        ),
        (
            f"[[maintenance]]\n{WINDOW}[[maintenance]]\n{WINDOW}",
            ["p.toml: maintenance.w.name must be given once, is given 2 times"],
        ),
    ],
)
def test_every_fault_is_named(text: str, named: list[str]) -> None:
    faults = faults_in(text)
    assert len(faults) == len(named), faults
    for fault, start in zip(faults, named, strict=True):
        assert fault.startswith(start)


def test_a_limit_that_cannot_be_read_is_not_compared() -> None:
    """Else the file would be blamed for the default that stands in for it."""
    (fault,) = faults_in("""
        [defaults.thresholds]
        disk_critical_percent = "98"
        [groups.web.thresholds]
        disk_warning_percent = 95
    """)
    assert fault == "p.toml: defaults.thresholds.disk_critical_percent must be a number, 0 or more, is '98'"


def test_there_may_not_be_rules_without_end() -> None:
    groups = "".join(f"[groups.g{number}]\n" for number in range(MAX_RULES + 1))
    parsed(groups[: groups.rindex("[")])
    assert faults_in(groups) == [f"p.toml: groups and vms must be at most 200 together, are {MAX_RULES + 1}"]


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


class TestDocument:
    def test_it_names_every_key(self) -> None:
        text = DOCUMENT.read_text(encoding="utf-8")
        told = set(re.findall(r"`([\w.-]+)`", text))
        wanted = {*POLICY_FIELDS, *THRESHOLD_FIELDS, *SAFETY_FIELDS, *MATCH_FIELDS, *WINDOW_FIELDS}
        assert wanted - told == set()
        assert {TAG_LADDER, TAG_MAINTENANCE_UNTIL} <= told
        assert {cause.value for cause in FREEZE_CAUSES} <= told
        assert set(DAYS) <= set(re.findall(r"\w+", text))

    def test_its_table_of_defaults_is_true(self) -> None:
        rows = dict(
            re.findall(r"^\| `([\w.]+)` \| ([^|]*) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
        )
        shipped = tomllib.loads(DEFAULT_POLICY_FILE.read_text(encoding="utf-8"))
        defaults = shipped["defaults"]
        values = {**defaults, **defaults["thresholds"], **shipped["safety"]}
        del values["thresholds"]
        told = {name: text for name, text in rows.items() if name not in set(FREEZE_CAUSES)}
        assert told.keys() == values.keys()
        for name, text in told.items():
            assert tomllib.loads(f"value = {text}")["value"] == values[name], name

    def test_its_samples_work(self) -> None:
        samples = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
        assert len(samples) >= 3
        for sample in samples:
            assert parsed(sample) != PolicyBook()
