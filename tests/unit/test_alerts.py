"""What people read, what the webhook carries, and what a channel's answer means."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from tests.builders import NOW, VM_ID, a_notice, at
from vm_alerts.channels.webhook import Webhook
from vm_alerts.http import HttpRequest, check_answer
from vm_alerts.message import build_message, duration
from vm_health.errors import PermanentError, TransientError
from vm_health.model import Cause, Status
from vm_health.state import FLEET_ID, Notice, NoticeKind

SECRET_URL = "https://hooks.example/services/s3cr3t?sig=t0ken"


@pytest.mark.parametrize(
    ("notice", "title"),
    [
        (a_notice(), "CRITICAL: web.service on web-1"),
        (a_notice(subjects=("a", "b", "c")), "CRITICAL: a, b, c on web-1"),
        (a_notice(subjects=("a", "b", "c", "d", "e")), "CRITICAL: a, b, c and 2 more on web-1"),
        (a_notice(subjects=(), cause=Cause.VM_SILENT), "CRITICAL: vm silent on web-1"),
        (
            a_notice(status=Status.WARNING, cause=Cause.DISK_USAGE, subjects=("/",)),
            "WARNING: / on web-1",
        ),
        (
            a_notice(NoticeKind.GAVE_UP, attempts=6),
            "PEOPLE NEEDED: web.service on web-1 is still down after 6 attempts",
        ),
        (a_notice(NoticeKind.RESOLVED, at=at(42)), "RESOLVED: web.service on web-1 after 42 s"),
        (
            a_notice(NoticeKind.REMINDER, status=Status.CRITICAL, at=at(14_400)),
            "STILL CRITICAL: web.service on web-1 for 4 h 0 min",
        ),
        (
            a_notice(NoticeKind.FROZEN, vm_id=FLEET_ID, subjects=(), cause=Cause.MASS_FAILURE),
            "FROZEN: mass failure; nothing is restarted on the whole fleet",
        ),
    ],
)
def test_titles(notice: Notice, title: str) -> None:
    assert build_message(notice, "", "").title == title


@pytest.mark.parametrize("kind", NoticeKind)
def test_every_kind_has_a_title(kind: NoticeKind) -> None:
    assert "web-1" in build_message(a_notice(kind), "", "").title


def test_braces_in_a_name_are_only_text() -> None:
    assert (
        build_message(a_notice(subjects=("{status}{0}",)), "", "").title == "CRITICAL: {status}{0} on web-1"
    )


def test_links() -> None:
    message = build_message(a_notice(), "https://dash.example", "https://portal.azure.com")
    assert message.dashboard_url == "https://dash.example"
    assert message.portal_url == f"https://portal.azure.com/#@/resource{VM_ID}"
    assert build_message(a_notice(), "", "").portal_url == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (-5, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (185, "3 min 5 s"),
        (3_599, "59 min 59 s"),
        (3_600, "1 h 0 min"),
        (7_800, "2 h 10 min"),
        (200_000, "55 h 33 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(NOW, NOW + timedelta(seconds=seconds)) == text


def payload(notice: Notice) -> dict[str, Any]:
    request = Webhook(SECRET_URL).request(
        build_message(notice, "https://dash.example", "https://portal.azure.com")
    )
    body: dict[str, Any] = json.loads(request.body)
    return body


def test_the_webhook_carries_everything() -> None:
    notice = a_notice(NoticeKind.RESOLVED, at=at(42), attempts=1)
    assert payload(notice) == {
        "schema": 1,
        "kind": "resolved",
        "key": "incident-1:resolved",
        "incident_id": "incident-1",
        "title": "RESOLVED: web.service on web-1 after 42 s",
        "status": "HEALTHY",
        "cause": "service_down",
        "vm": {"id": VM_ID, "name": "web-1"},
        "subjects": ["web.service"],
        "reason": "web.service is down (failed/failed, result exit-code)",
        "attempts": 1,
        "steps": [],
        "opened_at": "2026-11-24T12:00:00+00:00",
        "at": "2026-11-24T12:00:42+00:00",
        "links": {
            "dashboard": "https://dash.example",
            "portal": f"https://portal.azure.com/#@/resource{VM_ID}",
        },
    }


def test_the_webhook_request() -> None:
    request = Webhook(SECRET_URL).request(build_message(a_notice(), "", ""))
    assert (request.url, request.method) == (SECRET_URL, "POST")
    assert request.headers == {"Content-Type": "application/json", "X-Watchdog-Key": "incident-1:fired"}


def test_hostile_text_stays_text() -> None:
    reason = '"},"kind":"resolved\n\u2028\x00<script>'
    assert payload(a_notice(reason=reason))["reason"] == reason


def test_no_repr_shows_the_url() -> None:
    webhook = Webhook(SECRET_URL)
    request = webhook.request(build_message(a_notice(), "", ""))
    for shown in (repr(webhook), str(webhook), repr(request), f"{request}"):
        assert "s3cr3t" not in shown
        assert "t0ken" not in shown
    assert "Bearer" not in repr(HttpRequest("u", b"", {"Authorization": "Bearer x"}))


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_is_delivered(status: int) -> None:
    check_answer("webhook", status, None)


@pytest.mark.parametrize(
    ("status", "retry_after", "seconds"),
    [
        (429, "7", 7.0),
        (429, None, None),
        (429, "", None),
        (429, "soon", None),
        (429, "-1", None),
        (503, "Wed, 21 Oct 2026 07:28:00 GMT", None),
        (408, None, None),
        (425, None, None),
        (500, None, None),
        (502, "120", 120.0),
        (599, None, None),
    ],
)
def test_answers_that_another_try_may_help(
    status: int, retry_after: str | None, seconds: float | None
) -> None:
    with pytest.raises(TransientError, match=f"channel webhook answered {status}") as refused:
        check_answer("webhook", status, retry_after)
    assert refused.value.retry_after_seconds == seconds


@pytest.mark.parametrize("status", [100, 199, 301, 302, 307, 308, 400, 401, 403, 404, 410, 422])
def test_answers_that_no_other_try_will_help(status: int) -> None:
    with pytest.raises(PermanentError, match=f"channel webhook answered {status}"):
        check_answer("webhook", status, "7")
