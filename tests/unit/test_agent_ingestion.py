"""What each answer of the ingestion endpoint means, as a table."""

from __future__ import annotations

import json

import pytest

from tests.unit.agent_builders import NOW
from vm_agent.ingestion import Outcome, judge, wait_seconds


def answer_206(*errors: tuple[object, object]) -> bytes:
    listed = [{"index": index, "statusCode": code, "message": "m"} for index, code in errors]
    return json.dumps({"itemsReceived": 3, "itemsAccepted": 3 - len(errors), "errors": listed}).encode()


def test_200_takes_all() -> None:
    assert judge(200, b"", 3, NOW) == Outcome(accepted=3)


@pytest.mark.parametrize("status", [400, 402, 413, 439])
def test_what_will_never_be_taken_is_dropped_and_counted(status: int) -> None:
    outcome = judge(status, b"", 3, NOW)
    assert (outcome.accepted, outcome.dropped, outcome.resend) == (0, 3, ())
    assert str(status) in outcome.reason


@pytest.mark.parametrize("status", [401, 403, 404, 408, 429, 500, 502, 503, 504, 302, 418])
def test_everything_else_is_sent_again_later(status: int) -> None:
    outcome = judge(status, b"", 3, NOW, retry_after="7")
    assert (outcome.dropped, outcome.resend, outcome.wait_seconds) == (0, (0, 1, 2), 7.0)


def test_206_sends_again_only_the_items_that_may_be() -> None:
    outcome = judge(206, answer_206((0, 429), (2, 400)), 3, NOW, retry_after="3")
    assert (outcome.accepted, outcome.dropped, outcome.resend) == (1, 1, (0,))
    assert outcome.wait_seconds == 3.0
    assert "400 m" in outcome.reason


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"errors": 5}',
        answer_206((9, 429), (-1, 500), ("0", 429), (True, 429), (None, 1)),
    ],
)
def test_206_that_names_no_item_sends_nothing_twice(body: bytes) -> None:
    outcome = judge(206, body, 3, NOW)
    assert (outcome.accepted, outcome.dropped, outcome.resend) == (3, 0, ())


def test_307_names_the_next_host() -> None:
    outcome = judge(307, b"", 2, NOW, location="https://x/")
    assert (outcome.redirect, outcome.resend) == ("https://x/", (0, 1))
    assert judge(308, b"", 2, NOW).redirect == ""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        ("999999", 3600.0),
        ("Tue, 24 Nov 2026 12:00:30 GMT", 30.0),
        ("Tue, 24 Nov 2026 11:00:00 GMT", 0.0),
        ("-5", 0.0),
        ("soon", 0.0),
        ("", 0.0),
    ],
)
def test_retry_after(text: str, seconds: float) -> None:
    assert wait_seconds(text, NOW) == seconds
