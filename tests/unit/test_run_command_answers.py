"""What a Run Command that has ended says: bounded, whatever a VM writes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_watchdog.run_command_answers import action_result, managed_result, marked_line
from vm_watchdog.run_command_script import RESULT_MARKER


def a_line(**fields: Any) -> str:
    return RESULT_MARKER + json.dumps(fields)


def test_the_last_marked_line_counts() -> None:
    """Chatter before and after, and a line of an earlier run."""
    output = "\n".join(["hello", a_line(result="failed"), a_line(result="restarted", main_pid=7), "bye"])
    assert marked_line(output) == {"result": "restarted", "main_pid": 7}


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"a": None, "b": [1], "c": {"d": 1}, "e": "x"}, {"e": "x"}),
        ({"a": True, "b": 0, "c": 1.5, "d": ""}, {"a": True, "b": 0, "c": 1.5, "d": ""}),
        ({"a": float("nan"), "b": float("inf"), "c": 10**400, "d": -(10**16)}, {}),
        ({"a": "x" * 900}, {"a": "x" * 200}),
        ({"x" * 900: 1}, {"x" * 40: 1}),
        ({"a": "b\x00\x1b[31m\u202e\n"}, {"a": "b??[31m?\n"}),
        ({f"f{number}": number for number in range(30)}, {f"f{number}": number for number in range(10)}),
    ],
    ids=["no plain value", "plain values", "no sane number", "long", "long name", "not printable", "many"],
)
def test_fields_are_kept_where_they_are_plain_and_few(fields: dict[str, Any], kept: dict[str, Any]) -> None:
    assert marked_line(a_line(**fields)) == kept


@pytest.mark.parametrize("rest", ["", "{", "[]", "7", "null", '"x"', "{} {}", "[" * 4_000, '{"a":' * 700])
def test_a_line_that_is_no_object_says_nothing(rest: str) -> None:
    assert marked_line(RESULT_MARKER + rest) == {}


@given(st.text(max_size=4_096), st.text(max_size=4_096))
def test_no_output_makes_a_result_grow_or_fail(output: str, error: str) -> None:
    """Whatever stands in the tails that Azure hands back."""
    for text in (output, RESULT_MARKER + output, a_line(result=output, reason=error)):
        body = {"value": [{"message": f"Enable succeeded: \n[stdout]\n{text}\n[stderr]\n{error}"}]}
        for result in (managed_result("Failed", 1, text, error), action_result(body)):
            assert len(result.detail) <= 260
            assert not result.succeeded or result.result.get("result") == "restarted"


@pytest.mark.parametrize(
    "body",
    [{}, {"value": None}, {"value": []}, {"value": [None]}, {"value": [{}]}, {"value": [{"message": 7}]}],
)
def test_an_action_without_a_message_did_not_succeed(body: dict[str, Any]) -> None:
    result = action_result(body)
    assert (result.succeeded, result.detail[:35]) == (False, "the command ended without a result:")


def test_what_stands_in_stderr_is_not_the_agents_word() -> None:
    """Nor what merely looks like the end of stdout."""
    fine = a_line(result="restarted")
    assert not action_result({"value": [{"message": f"x[stdout]\n\n[stderr]\n{fine}\n"}]}).succeeded
    assert action_result({"value": [{"message": f"x[stdout]\n[stderr]\n{fine}\n[stderr]\n"}]}).succeeded
