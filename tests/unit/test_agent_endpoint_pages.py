"""What stands under each path."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from tests.unit.agent_builders import NOW, VM_ID, a_down_unit, a_report
from tests.unit.endpoint_builders import a_full_report
from vm_agent.board import Board, empty_report
from vm_agent.http_answer import Answer
from vm_agent.http_request import Request
from vm_agent.pages import AGE, Pages
from vm_agent.web_guide import STYLE, STYLE_HASH
from vm_agent.web_page import web_page
from vm_agent.web_rows import duration, size
from vm_health.model import HealthReport, Status
from vm_health.settings_table import Secret
from vm_health.wire import decode_report

FINE, WARNED, DOWN = a_report(), a_report(disk_percent=85), a_report(a_down_unit())
TOKEN = "correct-horse-battery"


class Site:
    """Pages over a board whose clock a test moves."""

    def __init__(self, report: HealthReport | None = FINE, token: str = "") -> None:
        self.seconds = 100.0
        self.own: dict[str, float] = {"samples": 3}
        self.board = Board(empty_report("vm1", VM_ID, "", NOW), 60.0, lambda: self.seconds)
        if report is not None:
            self.board.post(report, self.seconds)
        self._pages = Pages(self.board, lambda: self.own, Secret(token))

    def get(self, target: str, headers: Mapping[str, str] | None = None) -> Answer:
        path, _, query = target.partition("?")
        values = dict(item.partition("=")[::2] for item in query.split("&") if item)
        return self._pages.answer(Request("GET", path, values, headers or {}))


@pytest.mark.parametrize(
    ("report", "plain", "strict"),
    [
        (FINE, 200, 200),
        (WARNED, 200, 503),
        (DOWN, 503, 503),
        (replace(FINE, status=Status.UNKNOWN), 503, 503),
    ],
)
def test_health_says_by_its_status_whether_the_vm_works(
    report: HealthReport, plain: int, strict: int
) -> None:
    site = Site(report)
    assert [site.get(path).status for path in ("/health", "/health?strict=0", "/health?cache=4711")] == [
        plain
    ] * 3
    assert [site.get(f"/health?strict{yes}").status for yes in ("=1", "", "=TRUE")] == [strict] * 3
    assert decode_report(site.get("/health").body.decode()) == report
    assert site.get("/health?strict=maybe").status == 400


def test_only_the_age_moves_between_samples() -> None:
    site = Site(DOWN)
    first = site.get("/health")
    site.seconds += 12.3456
    second = site.get("/health")
    assert decode_report(second.body.decode()) == replace(DOWN, age_seconds=12.346)
    assert first.parts[0] is second.parts[0]
    assert first.parts[2] is second.parts[2]
    site.board.post(FINE, site.seconds)
    assert decode_report(site.get("/health").body.decode()) == FINE


def test_an_old_or_missing_sample_is_told_as_unknown_with_its_true_age() -> None:
    site = Site(FINE)
    site.seconds += 61
    for age in (61.0, 61.5, 99.0):
        site.seconds = 100 + age
        answer = site.get("/health")
        report = decode_report(answer.body.decode())
        assert (answer.status, report.status, report.age_seconds) == (503, Status.UNKNOWN, age)
        assert report.findings[0].message == f"the last sample is {age:.0f} s old (limit 60 s)"
    metrics = json.loads(site.get("/metrics").body)
    assert (metrics["status"], metrics["metrics"], metrics["age_seconds"]) == ("UNKNOWN", [], 99.0)
    assert "Nobody knows" in site.get("/?format=html").body.decode()
    nothing = Site(None)
    assert nothing.get("/health").status == 503
    assert "has not looked yet" in nothing.get("/?format=html").body.decode()


def test_a_host_name_can_not_pose_as_the_age() -> None:
    report = replace(FINE, host='x","age_seconds":0.0,"y":"')
    assert decode_report(Site(report).get("/health").body.decode()) == report


def test_metrics_as_json_hold_numbers_and_the_agents_own() -> None:
    site = Site(DOWN)
    site.get("/metrics")
    site.own["samples"] = 4
    metrics = json.loads(site.get("/metrics").body)
    assert {"name": "health.service_active", "value": 0.0, "unit": "web.service"} in metrics["metrics"]
    assert (metrics["status"], metrics["agent"]) == ("CRITICAL", {"samples": 4})


def test_forms_by_name_and_by_accept() -> None:
    site = Site()
    kinds = {
        "/metrics": "application/json",
        "/metrics?format=json": "application/json",
        "/metrics?format=prometheus": "text/plain; version=0.0.4; charset=utf-8",
        "/metrics?format=openmetrics": "application/openmetrics-text; version=1.0.0; charset=utf-8",
        "/": "text/plain; charset=utf-8",
        "/?format=html": "text/html; charset=utf-8",
    }
    assert {target: site.get(target).content_type for target in kinds} == kinds
    assert site.get("/", {"accept": "text/html"}).content_type == "text/html; charset=utf-8"
    assert site.get("/metrics", {"accept": "text/plain"}).body.startswith(b"# HELP")
    refused = site.get("/metrics?format=xml")
    assert (refused.status, refused.body) == (400, b"format must be one of json, openmetrics, prometheus\n")
    assert [site.get(path).status for path in ("/etc/passwd", "/health/", "//health", "/a\0b")] == [404] * 4


def test_the_token_guards_all_but_health() -> None:
    site = Site(token=TOKEN)
    basic = base64.b64encode(f"anyone:{TOKEN}".encode()).decode()
    wrong = base64.b64encode(b"anyone:no").decode()
    for path in ("/", "/metrics", "/metrics?format=prometheus"):
        for allowed in (f"Bearer {TOKEN}", f"bearer  {TOKEN}", f"Basic {basic}"):
            assert site.get(path, {"authorization": allowed}).status == 200
        for refused in (
            "",
            TOKEN,
            "Bearer",
            f"Bearer {TOKEN}x",
            f"Digest {TOKEN}",
            f"Basic {wrong}",
            "Basic \xff",
        ):
            answer = site.get(path, {"authorization": refused})
            assert (answer.status, TOKEN in repr(answer)) == (401, False)
            assert [name for name, _ in answer.headers] == ["WWW-Authenticate"] * 2
    assert site.get("/health").status == 200
    assert site.get("/nowhere").status == 404


class Reader(HTMLParser):
    """Collects tags and attributes of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_everything_and_trusts_no_name() -> None:
    hostile, plain = Reader(web_page(a_full_report(), AGE)), Reader(web_page(a_full_report("x"), AGE))
    assert hostile.tags == plain.tags
    assert hostile.attributes == plain.attributes
    assert "<script>alert(1)</script>" in hostile.text
    assert not {"script", "img", "iframe", "form"} & set(hostile.tags)
    links = [value for name, value in plain.attributes if name in ("href", "src")]
    assert all(re.match(r"/|data:,$", link) for link in links)
    for shown in (
        "web.service",
        "failed/",
        "given up",
        "/data",
        "inodes 3.0 %",
        "1 d 1 h",
        "5 s old",
        "2 recent",
    ):
        assert shown in plain.text
    assert "http://10.0.0.4:8080/health" in plain.text


def test_the_page_is_known_to_browsers_by_its_style_alone() -> None:
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    assert f"sha256-{digest}" == STYLE_HASH
    headers = dict(Site().get("/?format=html").headers)
    assert headers["Content-Security-Policy"].startswith(f"default-src 'none'; style-src '{STYLE_HASH}'")
    assert f"<style>{STYLE}</style>" in web_page(FINE, AGE)


def test_every_form_of_a_hostile_report_is_valid_utf8() -> None:
    site = Site(a_full_report())
    for target in ("/health", "/", "/?format=html", "/metrics", "/metrics?format=prometheus"):
        answer = site.get(target)
        assert answer.body.decode("utf-8")
        assert answer.status in (200, 503)


def test_sizes_and_durations_as_people_say_them() -> None:
    assert [size(count) for count in (0, 1023, 1024, 3 * 2**30, 2**60)] == [
        *("0 B", "1023 B", "1.0 KiB", "3.0 GiB", "1024.0 PiB")
    ]
    assert [duration(seconds) for seconds in (0.9, 59, 61, 3_661, 90_061)] == [
        *("0 s", "59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h")
    ]
