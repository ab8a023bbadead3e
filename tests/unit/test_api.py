"""The HTTP API: what each route answers, and what it says to bad input. Every answer is also held against the
OpenAPI description by the client."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import NOW, VM_ID, a_report, a_unit, a_vm_id, at
from tests.fakes import World, a_watched_vm
from tests.unit.api_client import Client
from tests.unit.test_operator import a_down_vm, another_web_1, freeze
from vm_health.errors import NotFoundError, PermanentError, TransientError
from vm_health.policy import Policy
from vm_health.state import FLEET_ID, Event
from vm_watchdog.http_message import Request

SILENCE = {"vm": "web-1", "until": "2h", "why": "deploy"}
RESTART = {"unit": "web.service", "why": "it leaks"}
SECRET = "https://acc.table.core.windows.net/vmstate?sig=abc"


async def a_client() -> Client:
    return Client(await a_watched_vm())


# --- each route, as it should be used --------------------------------------------------------------------


async def test_status() -> None:
    answer = await Client(await a_down_vm()).get("/api/status")
    assert answer.status == 200
    assert answer.body["statuses"] == {"CRITICAL": 1}
    assert answer.body["needing"][0]["units"][0]["attempts"] == 1


async def test_a_vm() -> None:
    answer = await Client(await a_down_vm()).get("/api/vms/WEB-1")
    assert (answer.status, answer.body["status"], answer.body["cause"]) == (200, "CRITICAL", "service_down")


async def test_a_vms_history() -> None:
    answer = await Client(await a_down_vm()).get(
        "/api/vms/web-1/history?limit=2&since=1m&code=key&clientId=x"
    )
    assert answer.status == 200
    assert [event["kind"] for event in answer.body["events"]] == ["restart_sent", "restart"]
    assert answer.body["has_more"] is True
    assert answer.body["since"] == "2026-11-24T11:59:15Z"


async def test_the_history_of_a_vm_that_is_gone() -> None:
    """By its full id, which can't stand in the path: Azure takes %2F there for a slash."""
    client = await a_client()
    gone = a_vm_id("old-1")
    await client.world.store.append_events(gone, [Event("gone", "the VM is gone", NOW)])
    assert (await client.get("/api/vms/old-1/history")).status == 404
    answer = await client.get(f"/api/vms/old-1/history?vm_id={gone}")
    assert [event["kind"] for event in answer.body["events"]] == ["gone"]
    answer = await client.get(f"/api/vms/web-1/history?vm_id={gone}")
    assert (answer.status, answer.faults) == (400, {"vm_id": "must be of a VM named 'web-1'"})


@pytest.mark.parametrize("offset", ["Z", "%2B00:00", "+00:00", " 00:00"])
async def test_times_in_a_query_with_any_offset(offset: str) -> None:
    """An unescaped plus is a space by the time it arrives."""
    answer = await (await a_client()).get(f"/api/vms/web-1/history?since=2026-11-24T11:00:00{offset}")
    assert (answer.status, answer.body["since"]) == (200, "2026-11-24T11:00:00Z")


async def test_a_silence_from_its_beginning_to_its_end() -> None:
    client = await a_client()
    added = await client.post("/api/silences", {**SILENCE, "stops": "action", "by": "ann"})
    assert added.status == 201
    listed = await client.get("/api/silences")
    assert listed.body == {"silences": [added.body]}
    client.world.clock.now += timedelta(minutes=1)
    ended = await client.delete(f"/api/silences/{added.body['id']}?by=bob")
    assert (ended.status, ended.body["is_active"]) == (200, False)
    assert (await client.get("/api/silences")).body == {"silences": []}
    again = await client.delete(f"/api/silences/{added.body['id']}")
    assert (again.status, again.kind) == (404, "not-found")


async def test_a_restart() -> None:
    client = await a_client()
    answer = await client.post("/api/vms/web-1/restart", {**RESTART, "by": "ann"})
    ((vm_id, restart),) = client.world.runner.restarts
    assert (answer.status, answer.body["token"], vm_id) == (202, restart.token, VM_ID)


async def test_a_restart_that_is_held() -> None:
    client = await a_client()
    await freeze(client.world)
    answer = await client.post("/api/vms/web-1/restart", RESTART)
    assert (answer.status, answer.kind) == (409, "held")
    assert "5 of 9 VMs turned bad at once" in answer.body["detail"]
    assert client.world.runner.restarts == []


async def test_of_two_vms_with_one_name_the_group_or_the_id_tells() -> None:
    client = await a_client()
    other = another_web_1(client.world)
    answer = await client.post("/api/vms/web-1/restart", RESTART)
    assert (answer.status, answer.kind) == (409, "ambiguous-name")
    assert "rg-other, rg-web" in answer.body["detail"]
    assert (await client.get("/api/vms/web-1?group=rg-web")).body["vm_id"] == VM_ID
    assert (await client.get(f"/api/vms/web-1?vm_id={other}")).body["vm_id"] == other
    answer = await client.post("/api/vms/web-1/restart", {**RESTART, "vm_id": VM_ID})
    assert answer.status == 202


async def test_a_thaw() -> None:
    client = await a_client()
    await freeze(client.world)
    assert (await client.get("/api/status")).body["frozen"] != ""
    answer = await client.post("/api/thaw", {"until": "1h", "why": "known", "by": "ann"})
    assert (answer.status, answer.body["frozen"], answer.body["thawed_by"]) == (200, "", "ann")


async def test_the_description_describes_itself() -> None:
    client = await a_client()
    answer = await client.get("/api/openapi.json")
    assert answer.body["openapi"] == "3.1.0"
    assert "/api/openapi.json" in answer.body["paths"]


# --- who asks --------------------------------------------------------------------------------------------


async def who_silenced(client: Client, **headers: str) -> str:
    answer = await client.post("/api/silences", {**SILENCE, "by": "ann"}, **headers)
    return str(answer.body["created_by"])


async def test_who_asks_is_what_the_body_says_for_a_header_could_be_anybodys() -> None:
    assert await who_silenced(await a_client(), x_ms_client_principal_name="root") == "ann"


async def test_who_asks_is_who_signed_in_where_app_service_checks_that() -> None:
    client = await a_client()
    client.with_sign_in()
    assert await who_silenced(client, x_ms_client_principal_name="eve@example.com") == "eve@example.com"
    assert await who_silenced(client) == "ann"
    assert await who_silenced(client, x_ms_client_principal_name="e\x1b[0m" + "v" * 500) == "e[0m" + "v" * 96


async def test_nobody_said_who_asks() -> None:
    client = await a_client()
    assert (await client.post("/api/silences", SILENCE)).body["created_by"] == "api key"
    await freeze(client.world)
    await client.post("/api/thaw", {"until": "1h", "why": "known"})
    event = (await client.world.store.read_events(FLEET_ID, 1))[0]
    assert event.detail["by"] == "api key"


# --- bad input -------------------------------------------------------------------------------------------


async def test_every_fault_is_told_at_once_with_its_field_and_what_it_was() -> None:
    client = await a_client()
    answer = await client.post(
        "/api/silences",
        {
            "vm": "a b",
            "all": "yes",
            "tag": "x",
            "starts_at": "noon",
            "until": "2026-11-24T13:00:00",
            "stops": "everything",
            "by": "\ud800",
            "why": "two\nlines",
            "colour": "s3cret",
        },
    )
    assert (answer.status, answer.kind) == (400, "invalid-input")
    assert set(answer.faults) == {
        "vm", "all", "tag", "starts_at", "until", "stops", "by", "why", "colour"
    }  # fmt: skip
    was = {error["field"]: error["was"] for error in answer.body["errors"]}
    assert was["vm"] == '"a b"'
    assert was["colour"] is None
    assert "s3cret" not in answer.reply.body
    assert answer.body["instance"] == "/api/silences"
    assert await client.world.silences.list_silences() == []


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "vm"),
        ({"vm": "*"}, "vm"),
        ({"vm": "", "group": "**"}, "vm"),
        ({"vm": "web-1", "all": True}, "all"),
        ({"vm": "web-[12]"}, "vm"),
        ({"tag": "=x"}, "tag"),
        ({"vm": "w" * 65}, "vm"),
    ],
)
async def test_every_vm_is_silenced_only_where_that_is_said(fields: dict[str, Any], field: str) -> None:
    client = await a_client()
    answer = await client.post("/api/silences", {"until": "1h", "why": "x", **fields})
    assert (answer.status, set(answer.faults)) == (400, {field})


@pytest.mark.parametrize(
    "fields",
    [{"all": True}, {"vm": "web-?"}, {"group": "rg-*"}, {"tag": "env=*"}, {"vm": "*", "group": "rg-a"}],
)
async def test_silences_that_say_whom_they_mean(fields: dict[str, Any]) -> None:
    client = await a_client()
    answer = await client.post("/api/silences", {"until": "1h", "why": "x", **fields})
    assert answer.status == 201
    assert {name: answer.body[name] for name in fields} == fields


HOSTILE_BODIES = [
    (b"", "must be JSON"),
    (b"null", "must be a JSON object, is null"),
    (b"[]", "must be a JSON object, is a list"),
    (b"{", "must be JSON"),
    (b'{"unit": NaN}', "must be JSON"),
    (b"[" * 30_000, "must be JSON"),
    (b"\xff\xfe", "must be UTF-8"),
    (b"a=b", "must be JSON"),
]


@pytest.mark.parametrize("url", ["/api/silences", "/api/vms/web-1/restart", "/api/thaw", "/api/nudge"])
@pytest.mark.parametrize(("body", "told"), HOSTILE_BODIES, ids=[str(body[:12]) for body, _ in HOSTILE_BODIES])
async def test_a_body_that_is_no_json_object(url: str, body: bytes, told: str) -> None:
    client = await a_client()
    answer = await client.call("POST", url, body, {"content-type": "application/json; charset=utf-8"})
    assert (answer.status, answer.kind) == (400, "invalid-input")
    assert told in answer.body["detail"]
    assert client.world.journal.take() == []


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "json"])
async def test_a_body_of_another_type(content_type: str) -> None:
    client = await a_client()
    headers = {"content-type": content_type} if content_type else {}
    answer = await client.call("POST", "/api/vms/web-1/restart", json.dumps(RESTART).encode(), headers)
    assert (answer.status, answer.kind) == (415, "unsupported-media-type")
    assert client.world.runner.restarts == []


async def test_a_body_that_is_too_large() -> None:
    client = await a_client()
    body = json.dumps({**RESTART, "why": "x" * 70_000}).encode()
    answer = await client.call("POST", "/api/vms/web-1/restart", body, {"content-type": "application/json"})
    assert (answer.status, answer.kind) == (413, "too-large")


@pytest.mark.parametrize(
    ("method", "url", "allowed"),
    [
        ("DELETE", "/api/status", "GET"),
        ("PUT", "/api/silences", "GET"),
        ("GET", "/api/nudge", "POST"),
        ("GET", "/api/vms/web-1/restart", "POST"),
        ("POST", "/api/live", "GET, HEAD"),
    ],
)
async def test_another_method(method: str, url: str, allowed: str) -> None:
    answer = await (await a_client()).call(method, url)
    assert (answer.status, answer.kind, answer.reply.headers["Allow"]) == (405, "method-not-allowed", allowed)


@pytest.mark.parametrize(
    ("url", "field"),
    [
        ("/api/status?x=1", "x"),
        ("/api/vms/web-1/history?limit=0", "limit"),
        ("/api/vms/web-1/history?limit=1001", "limit"),
        ("/api/vms/web-1/history?limit=ten", "limit"),
        ("/api/vms/web-1/history?since=yesterday", "since"),
        ("/api/vms/web-1/history?since=2026-11-24T12:00:00", "since"),
        ("/api/vms/web-1/history?since=1h&until=2h", "since"),
        ("/api/vms/web-1/history?vm_id=web-1", "vm_id"),
        ("/api/vms/web-1?group=%0a", "group"),
        ("/api/fleet?format=xml", "format"),
    ],
)
async def test_a_query_that_makes_no_sense(url: str, field: str) -> None:
    answer = await (await a_client()).get(url)
    assert (answer.status, set(answer.faults)) == (400, {field})


@pytest.mark.parametrize("since", ["9999d", "0001-01-01T00:00:00%2B10:00", "9999-12-31T23:59:59-10:00"])
async def test_times_at_the_end_of_all_time(since: str) -> None:
    """Whatever can be computed is answered; what can't be is the asker's fault, never ours."""
    assert (await (await a_client()).get(f"/api/vms/web-1/history?since={since}")).status in (200, 400)


async def test_a_query_that_is_too_long() -> None:
    answer = await (await a_client()).get("/api/vms/web-1?group=" + "x" * 3_000)
    assert (answer.status, answer.kind) == (400, "invalid-input")


async def test_a_problem_names_the_path_without_query_and_key() -> None:
    answer = await (await a_client()).get("/api/vms/no%20such/history?code=the-key&group=x")
    assert (answer.status, answer.body["instance"]) == (404, "/api/vms/no%20such/history")
    assert "the-key" not in answer.reply.body


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (TransientError(SECRET, 12.2), 503, "unavailable"),
        (PermanentError(SECRET), 502, "refused"),
        (NotFoundError(SECRET), 502, "refused"),
    ],
)
async def test_what_azure_says_is_logged_and_not_told(
    error: Exception, status: int, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = await a_client()
    client.world.store.error = error  # type: ignore[assignment]
    answer = await client.get("/api/status")
    assert (answer.status, answer.kind) == (status, kind)
    assert "acc.table" not in answer.reply.body
    assert any(record.exc_info for record in caplog.records)
    assert answer.reply.headers.get("Retry-After") == ("13" if status == 503 else None)


async def test_a_fault_of_our_own_is_a_problem_without_its_trace() -> None:
    client = await a_client()
    client.world.inventory.error = RuntimeError(SECRET)
    answer = await client.get("/api/vms/web-1")
    assert (answer.status, answer.kind) == (500, "internal")
    assert "acc.table" not in answer.reply.body


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    ["vm", "group", "tag", "all", "until", "starts_at", "stops", "by", "why", "unit", "vm_id", "x"]
)


@given(
    body=st.dictionaries(FIELDS, JSON, max_size=6), url=st.sampled_from(["silences", "vms/x/restart", "thaw"])
)
async def test_no_json_object_is_more_than_a_problem(body: dict[str, Any], url: str) -> None:
    """Whatever stands in the fields: a described answer below 500, and the world is as it was."""
    client = Client(World())
    answer = await client.post(f"/api/{url}", body)
    assert answer.status < 500
    assert client.world.runner.restarts == []


# --- nudge -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vm_id", [VM_ID, VM_ID.upper()])
async def test_a_nudge_queues_a_look_at_once(vm_id: str) -> None:
    client = Client(World())
    answer = await client.post("/api/nudge", {"vm_id": vm_id, "status": "CRITICAL"})
    assert (answer.status, answer.body) == (202, {"queued": VM_ID})
    assert client.world.queue.rechecks == [(VM_ID, 0.0)]


@pytest.mark.parametrize(
    "vm_id",
    [None, 7, "", "web-1", [VM_ID], VM_ID + "/../../x", VM_ID + "\n", VM_ID + "'; drop", "\ud800", "x" * 500],
)
async def test_a_nudge_of_no_vm_is_refused_and_queues_nothing(vm_id: object) -> None:
    client = Client(World())
    answer = await client.post("/api/nudge", {"vm_id": vm_id})
    assert (answer.status, set(answer.faults)) == (400, {"vm_id"})
    assert client.world.queue.rechecks == []


async def test_a_vm_that_nudges_all_the_time_is_heard_now_and_then() -> None:
    client = Client(World())
    answers = [await client.post("/api/nudge", {"vm_id": VM_ID}) for _ in range(5)]
    assert [answer.status for answer in answers] == [202, 202, 202, 429, 429]
    assert (answers[-1].kind, answers[-1].reply.headers["Retry-After"]) == ("too-many-requests", "5")
    assert (await client.post("/api/nudge", {"vm_id": a_vm_id("web-2")})).status == 202
    client.world.clock.now += timedelta(seconds=5)
    assert (await client.post("/api/nudge", {"vm_id": VM_ID})).status == 202
    assert len(client.world.queue.rechecks) == 5


async def test_many_vms_that_nudge_at_once_are_heard_up_to_a_limit() -> None:
    client = Client(World())
    answers = [await client.post("/api/nudge", {"vm_id": a_vm_id(f"web-{number}")}) for number in range(210)]
    assert sum(answer.status == 202 for answer in answers) == 200
    assert answers[-1].reply.headers["Retry-After"] == "1"


# --- live ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("age", "status"), [(0, 200), (180, 200), (180.5, 503), (9_999, 503)])
async def test_live_tells_of_the_last_tick(age: float, status: int) -> None:
    client = await a_client()
    client.world.clock.now = at(age - 60)
    answer = await client.get("/api/live")
    assert answer.status == status
    assert answer.body["live"] is (status == 200)
    assert answer.body["last_tick_age_seconds"] == age
    assert answer.body["last_tick_at"] == "2026-11-24T11:59:00Z"
    assert bool(answer.body["reason"]) is (status == 503)


async def test_live_before_the_first_tick() -> None:
    answer = await Client(World()).get("/api/live")
    assert (answer.status, answer.body["reason"]) == (503, "no tick has ended yet")


async def test_frozen_is_live_and_tells_the_cause_but_no_names() -> None:
    client = await a_client()
    await freeze(client.world)
    answer = await client.get("/api/live?a=b")
    assert answer.status == 200
    assert answer.body["frozen"] == [
        {"cause": "mass_failure", "scope": "fleet", "since": "2026-11-24T12:00:00Z"}
    ]
    assert "5 of 9" not in answer.reply.body


async def test_live_with_a_broken_store_says_so_and_no_more() -> None:
    client = await a_client()
    client.world.store.error = TransientError(SECRET)
    answer = await client.get("/api/live")
    assert (answer.status, answer.body["reason"]) == (503, "the state store can't be read")
    assert "acc.table" not in answer.reply.body


async def test_live_without_the_fleets_state_is_live_and_does_not_claim_to_be_free() -> None:
    client = await a_client()
    client.world.fleet.error = TransientError(SECRET)
    answer = await client.get("/api/live")
    assert (answer.status, answer.body["frozen"]) == (200, None)


# --- the dashboard ---------------------------------------------------------------------------------------


async def test_the_fleet_as_json_has_the_worst_first() -> None:
    world = World()
    for name in ("b-fine", "a-fine", "z-down"):
        world.add_vm(name)
        world.all_is_fine(name)
    world.is_down("z-down")
    for moment in (0, 10):
        await world.tick(moment)
    answer = await Client(world).get("/api/fleet?format=json")
    assert [row["name"] for row in answer.body["vms"]] == ["z-down", "a-fine", "b-fine"]
    assert answer.body["last_tick"] == "2026-11-24T12:00:10Z"
    row = answer.body["vms"][0]
    assert (row["status"], row["cause"]) == ("CRITICAL", "service_down")
    assert (
        row["units"][0].items()
        >= {
            "name": "web.service",
            "attempts": 1,
            "not_before": "2026-11-24T12:00:30Z",
            "last_attempt_at": "2026-11-24T12:00:10Z",
            "circuit_open": False,
        }.items()
    )


async def page(client: Client) -> str:
    answer = await client.get("/api/fleet")
    assert (answer.status, answer.reply.content_type) == (200, "text/html; charset=utf-8")
    return answer.reply.body


async def test_the_fleet_as_a_page() -> None:
    shown = await page(Client(await a_down_vm()))
    for text in (
        "1 of 1 need you",
        "web-1",
        "web.service is down",
        "Last looked 5 s ago",
        "not before 12:00:30",
    ):
        assert text in shown
    for text in ("Frozen", "Silenced", "observing"):
        assert text not in shown


async def test_an_empty_fleet_has_a_page_before_the_first_tick() -> None:
    shown = await page(Client(World()))
    assert "No tick has ended yet" in shown
    assert "All 0 are fine" in shown


async def test_the_page_says_what_keeps_the_watchdog_from_acting() -> None:
    client = await a_client()
    await freeze(client.world)
    await client.post("/api/silences", {"tag": "env=test", "group": "rg-*", "until": "1h", "why": "a move"})
    client.observing()
    shown = await page(client)
    for text in (
        "Only observing: nothing is restarted.",
        "Frozen, nothing is restarted: 5 of 9 VMs turned bad at once (since 2026-11-24 12:00 UTC, fleet)",
        "Silenced (alerts): group rg-*, tag env=test, until 2026-11-24 12:59 UTC by api key: a move",
    ):
        assert text in shown
    await client.post("/api/thaw", {"until": "1h", "why": "known", "by": "ann"})
    shown = await page(client)
    assert "Would be frozen: 5 of 9 VMs" in shown
    assert "ann overrules freezes until 2026-11-24 12:59 UTC." in shown


HOSTILE_NAME = "<script>alert('x')</script>\"'&{{7*7}}"


async def test_the_page_escapes_whatever_people_and_vms_may_say() -> None:
    world = World(Policy(confirm_down=1))
    world.add_vm()
    world.serve("web-1", a_report(units=[a_unit(down=True, sub_state="<img src=x onerror=alert(1)>")]))
    await world.tick(0)
    client = Client(world)
    await client.post("/api/silences", {"vm": "x", "until": "1h", "why": HOSTILE_NAME, "by": HOSTILE_NAME})
    await freeze(world)
    await client.post("/api/thaw", {"until": "1h", "why": "x", "by": HOSTILE_NAME})
    shown = await page(client)
    assert shown.count("&lt;script&gt;") == 3
    assert "&lt;img src=x" in shown
    assert "<script" not in shown
    assert "<img" not in shown
    assert "{{7*7}}" in shown


async def test_a_reply_never_fails_on_what_a_host_may_send() -> None:
    """Header and query names in odd cases, an empty body on a GET: the host's ways, not the asker's fault."""
    client = await a_client()
    request = Request("GET", "/api/status", {}, {"Code": "k", "CLIENTID": "x"}, {"content-type": ""}, b"")
    assert (await client.watchdog.answer("status", request)).status == 200
