"""What applies to a VM, from where, and which combinations of rules are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.builders import NOW
from vm_health.backoff import BackoffPolicy
from vm_health.policy import Policy
from vm_health.policy_book import TAG_LADDER, PolicyBook, PolicyRule, changed, policy_values
from vm_health.policy_overlap import book_faults, may_overlap
from vm_health.rules import Thresholds
from vm_health.safety import SafetyPolicy
from vm_health.silence import Matcher, Subject
from vm_health.state import VmActionKind
from vm_health.windows import MaintenanceWindow
from vm_watchdog import ports

RESTART, REDEPLOY = VmActionKind.RESTART, VmActionKind.REDEPLOY


def group(name: str, **changes: Any) -> PolicyRule:
    return PolicyRule(f"[groups.{name}]", f"groups.{name}", Matcher(group=name), _paths(changes))


def vms(match: Matcher, index: int = 0, **changes: Any) -> PolicyRule:
    return PolicyRule(f"[[vms]] {match}", f"vms[{index}]", match, _paths(changes))


def _paths(changes: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("__", "."): value for name, value in changes.items()}


def web(name: str = "web-1", group: str = "web", **tags: str) -> Subject:
    return Subject(name, group, {key.replace("_", "-"): value for key, value in tags.items()})


def test_without_rules_the_defaults_apply_to_everybody() -> None:
    book = PolicyBook(Policy(confirm_up=7))
    assert book.policy_for(web()) is book.policy_for(web("db-1", "db")) is not None
    assert book.policy_for(web()) == Policy(confirm_up=7)


def test_changes_reach_into_the_parts_of_a_policy() -> None:
    policy = changed(
        Policy(),
        _paths({"confirm_up": 7, "thresholds__log_errors": 3, "backoff__steps_seconds": (1.0,)})
        | {"thresholds.crash_loop_restarts": 9},
    )
    assert policy == Policy(
        confirm_up=7,
        thresholds=Thresholds(log_errors=3, crash_loop_restarts=9),
        backoff=BackoffPolicy((1.0,)),
    )


def test_the_later_rule_wins_field_by_field() -> None:
    book = PolicyBook(
        Policy(),
        (
            group("w*", confirm_up=3, confirm_down=3, max_attempts=3, thresholds__log_errors=3),
            group("web", confirm_down=4, max_attempts=4),
            vms(Matcher(vm="web-*"), max_attempts=5),
            vms(Matcher(tag=("env", "prod")), 1, thresholds__disk_warning_percent=70.0),
        ),
    )
    policy = book.policy_for(web(env="prod"))
    assert (policy.confirm_up, policy.confirm_down, policy.max_attempts) == (3, 4, 5)
    assert policy.thresholds == Thresholds(log_errors=3, disk_warning_percent=70.0)
    assert book.policy_for(web("x-1", "web")).max_attempts == 4
    assert book.policy_for(web("x-1", "wiki")).max_attempts == 3
    assert book.policy_for(web("x-1", "db")) is book.policy_for(web("x-2", "db"))
    assert book.policy_for(web("x-1", "db")) == Policy()


def test_a_vm_rule_with_a_group_needs_both() -> None:
    book = PolicyBook(Policy(), (vms(Matcher(vm="web-*", group="prod"), confirm_up=9),))
    assert book.policy_for(web("web-1", "prod")).confirm_up == 9
    assert book.policy_for(web("web-1", "test")).confirm_up == 2
    assert book.policy_for(web("db-1", "prod")).confirm_up == 2


def test_vms_to_which_the_same_applies_share_one_policy() -> None:
    """A thousand VMs of a group cost one resolution; a look at the rules is all that is done for each."""
    book = PolicyBook(Policy(), (group("web", confirm_up=3), vms(Matcher(vm="*-7"), confirm_up=4)))
    found = {id(book.policy_for(web(f"web-{number}"))) for number in range(1000)}
    assert len(found) == 2


def test_a_change_of_tags_is_seen_at_the_next_look() -> None:
    book = PolicyBook(Policy(), (vms(Matcher(tag=("env", "prod")), confirm_up=4),))
    assert book.policy_for(web()).confirm_up == 2
    assert book.policy_for(web(env="prod")).confirm_up == 4
    assert book.policy_for(web()).confirm_up == 2


def test_a_replaced_book_remembers_nothing_of_the_old_one() -> None:
    book = PolicyBook(Policy(), (group("web", confirm_up=3),))
    assert book.policy_for(web()).confirm_up == 3
    other = replace(book, defaults=Policy(max_attempts=9), rules=(group("web", confirm_up=4),))
    assert (other.policy_for(web()).confirm_up, other.policy_for(web()).max_attempts) == (4, 9)


def test_many_groups_are_not_remembered_for_ever() -> None:
    book = PolicyBook(Policy(), (group("web", confirm_up=3),))
    for number in range(10_050):
        book.policy_for(web(group=f"g{number}"))
    assert book.policy_for(web()).confirm_up == 3
    assert len(book._by_group) <= 10_000


@pytest.mark.parametrize(
    ("text", "ladder"),
    [
        ("none", ()),
        (" None ", ()),
        ("vm-restart", (RESTART,)),
        ("VM-Restart, redeploy", (RESTART, REDEPLOY)),
        ("redeploy,vm-restart", (REDEPLOY, RESTART)),
    ],
)
def test_the_tag_is_stronger_than_any_rule(text: str, ladder: tuple[VmActionKind, ...]) -> None:
    book = PolicyBook(Policy(), (vms(Matcher(vm="*"), ladder=(REDEPLOY,)),))
    subject = web(watchdog_ladder=text)
    assert book.policy_for(subject).ladder == ladder
    assert book.tag_faults(subject) == []


@pytest.mark.parametrize(
    "text", ["", "reboot", "none,redeploy", "redeploy,redeploy", "vm-restart,", "vm_restart", "x" * 256]
)
def test_a_tag_that_cannot_be_read_is_ignored_and_told(text: str) -> None:
    book = PolicyBook(Policy(), (vms(Matcher(vm="*"), ladder=(REDEPLOY,)),))
    subject = web(watchdog_ladder=text)
    assert book.policy_for(subject).ladder == (REDEPLOY,)
    assert book.tag_faults(subject) == [
        "tag watchdog-ladder must be none, or a list with commas of vm-restart, redeploy, each once,"
        f" is {text[:60]!r}: ignored"
    ]


def test_no_tag_is_no_fault() -> None:
    assert PolicyBook().tag_faults(web()) == []


def test_the_tag_has_one_name() -> None:
    assert ports.TAG_LADDER == TAG_LADDER


def test_every_value_says_where_it_comes_from() -> None:
    book = PolicyBook(
        Policy(confirm_up=3, confirm_down=3),
        (
            group("web", confirm_down=4, backoff__steps_seconds=(1.0, 2.0)),
            vms(Matcher(vm="web-*"), restart_on_stale_heartbeat=True, thresholds__log_errors=5),
            vms(Matcher(vm="db-*"), 1, max_attempts=9),
        ),
        written=frozenset({"confirm_up", "confirm_down"}),
        file_name="my.toml",
    )
    found = {applied.path: (applied.value, applied.source) for applied in book.explain(web())}
    assert found["confirm_up"] == (3, "my.toml [defaults]")
    assert found["confirm_down"] == (4, "[groups.web]")
    assert found["backoff_seconds"] == ((1.0, 2.0), "[groups.web]")
    assert found["backoff_jitter"] == (0.1, "default")
    assert found["on_stale_heartbeat"] == ("restart", "[[vms]] vm web-*")
    assert found["thresholds.log_errors"] == (5, "[[vms]] vm web-*")
    assert found["max_attempts"] == (6, "default")
    assert found["ladder"] == ([], "default")


def test_the_tag_is_a_source_too() -> None:
    found = {applied.path: applied for applied in PolicyBook().explain(web(watchdog_ladder="vm-restart"))}
    assert found["ladder"] == ("ladder", ["vm-restart"], "tag watchdog-ladder")
    assert found["on_stale_heartbeat"].value == "alert"


def test_an_explanation_leaves_no_field_out() -> None:
    assert len(PolicyBook().explain(web())) == len(list(policy_values(Policy())))
    assert "may_act" not in {applied.path for applied in PolicyBook().explain(web())}


def test_open_windows_are_silences() -> None:
    window = MaintenanceWindow("patching", Matcher(group="web"), 11 * 60, 120, "weekly patching")
    other = replace(window, name="later", at_minute=20 * 60)
    silences = PolicyBook(windows=(window, other)).silences_at(NOW)
    assert [silence.id for silence in silences] == ["window-patching"]


class TestFaults:
    @pytest.mark.parametrize(
        ("book", "named"),
        [
            (PolicyBook(), []),
            (PolicyBook(Policy(confirm_up=0)), ["defaults.confirm_up must be 1 or more, is 0"]),
            (
                PolicyBook(rules=(group("web", confirm_up=0), group("db", thresholds__log_errors=-1))),
                [
                    "groups.web.confirm_up must be 1 or more, is 0",
                    "groups.db.thresholds.log_errors must be 0 or more, is -1",
                ],
            ),
            (
                PolicyBook(rules=(group("web", thresholds__disk_critical_percent=70.0),)),
                [
                    "groups.web.thresholds.disk_warning_percent (80) must not be above"
                    " disk_critical_percent (70)"
                ],
            ),
            (
                PolicyBook(rules=(vms(Matcher(vm="x"), backoff__steps_seconds=()),)),
                ["vms[0]: backoff needs 1 to 20 steps, has 0"],
            ),
            (
                PolicyBook(safety=SafetyPolicy(stale_min_vms=0)),
                ["safety.stale_min_vms must be 1 or more, is 0"],
            ),
            (
                PolicyBook(windows=(MaintenanceWindow("w", Matcher(vm="*"), 0, 1440, "x"),)),
                [
                    "maintenance.w.minutes must be 1 to 1439, is 1440:"
                    " a window that never ends is an opt-out by tag"
                ],
            ),
            (
                PolicyBook(windows=(MaintenanceWindow("w", Matcher(vm="*"), 0, 10, "x"),) * 2),
                ["maintenance.w.name must be given once, is given 2 times"],
            ),
        ],
    )
    def test_each_has_its_place(self, book: PolicyBook, named: list[str]) -> None:
        assert book_faults(book) == named

    def test_a_fault_of_the_defaults_is_not_repeated_for_every_rule(self) -> None:
        book = PolicyBook(Policy(confirm_up=0), (group("web", confirm_down=3),))
        assert book_faults(book) == ["defaults.confirm_up must be 1 or more, is 0"]

    def test_a_rule_may_mend_the_defaults_and_then_has_no_fault(self) -> None:
        book = PolicyBook(Policy(confirm_up=0), (group("web", confirm_up=3),))
        assert book_faults(book) == ["defaults.confirm_up must be 1 or more, is 0"]

    def test_rules_that_are_fine_alone_and_not_together(self) -> None:
        weak = group("web", thresholds__disk_warning_percent=88.0)
        strong = vms(Matcher(vm="db-*"), thresholds__disk_critical_percent=85.0)
        assert book_faults(PolicyBook(rules=(weak,))) == book_faults(PolicyBook(rules=(strong,))) == []
        assert book_faults(PolicyBook(rules=(weak, strong))) == [
            "groups.web together with vms[0]: disk_warning_percent (88) must not be above"
            " disk_critical_percent (85)"
        ]

    def test_rules_that_never_meet_may_disagree(self) -> None:
        weak = group("web", thresholds__disk_warning_percent=88.0)
        other = group("db", thresholds__disk_critical_percent=85.0)
        assert book_faults(PolicyBook(rules=(weak, other))) == []


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        (Matcher(group="web"), Matcher(group="web"), True),
        (Matcher(group="web"), Matcher(group="WEB"), True),
        (Matcher(group="web"), Matcher(group="db"), False),
        (Matcher(group="web"), Matcher(group="w*"), True),
        (Matcher(group="web"), Matcher(group="d?"), False),
        (Matcher(group="web"), Matcher(vm="db-*"), True),
        (Matcher(vm="web-*"), Matcher(vm="db-*"), False),
        (Matcher(vm="web-*"), Matcher(vm="we*"), True),
        (Matcher(vm="*-prod"), Matcher(vm="*-test"), False),
        (Matcher(vm="*-prod"), Matcher(vm="web-*"), True),
        (Matcher(vm="*[ab]"), Matcher(vm="*b"), True),
        (Matcher(vm="*[ab]x"), Matcher(vm="*y"), False),
        (Matcher(vm="web-*", group="a"), Matcher(vm="web-*", group="b"), False),
        (Matcher(tag=("env", "prod")), Matcher(tag=("ENV", "test")), False),
        (Matcher(tag=("env", "prod")), Matcher(tag=("env", "p*")), True),
        (Matcher(tag=("env", "prod")), Matcher(tag=("owner", "test")), True),
    ],
)
def test_whether_two_matchers_can_mean_the_same_vm(one: Matcher, other: Matcher, meet: bool) -> None:
    assert may_overlap(one, other) is may_overlap(other, one) is meet
