"""What the triggers' texts do and what HTTP answers, for good bodies and hostile ones."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.builders import NOW, VM_ID, a_report, a_unit, at
from tests.fakes import World, a_watched_vm
from vm_health.errors import TransientError, WireError
from vm_health.model import Status
from vm_health.policy import Policy
from vm_watchdog.app import Reply
from vm_watchdog.page import render_fleet
from vm_watchdog.ports import TickRecord

HOSTILE_BODIES = [
    "",
    "null",
    "[]",
    "{}",
    "{",
    '{"vm_id": null}',
    '{"vm_id": 7}',
    '{"vm_id": ""}',
    '{"vm_id": "web-1"}',
    '{"vm_id": ["' + VM_ID + '"]}',
    json.dumps({"vm_id": VM_ID + "/../../x"}),
    json.dumps({"vm_id": VM_ID + "\n"}),
    json.dumps({"vm_id": VM_ID + "'; drop table vmstate"}),
    json.dumps({"vm_id": VM_ID, "padding": "x" * 5_000}),
    "[" * 3_000,
    '{"vm_id": "\\ud800"}',
]


def body(reply: Reply) -> Any:
    assert reply.content_type == "application/json"
    return json.loads(reply.body)


# --- nudge and recheck -----------------------------------------------------------------------------------


@pytest.mark.parametrize("vm_id", [VM_ID, VM_ID.upper()])
async def test_a_nudge_queues_a_look_at_once(vm_id: str) -> None:
    world = World()
    reply = await world.watchdog.nudge(json.dumps({"vm_id": vm_id, "status": "CRITICAL"}))
    assert (reply.status, body(reply)) == (202, {"queued": VM_ID})
    assert world.queue.rechecks == [(VM_ID, 0.0)]


@pytest.mark.parametrize("text", HOSTILE_BODIES, ids=lambda text: text[:40])
async def test_a_nudge_that_is_none_is_400_and_queues_nothing(text: str) -> None:
    world = World()
    reply = await world.watchdog.nudge(text)
    assert reply.status == 400
    assert body(reply)["faults"]
    assert world.queue.rechecks == []


@pytest.mark.parametrize("text", HOSTILE_BODIES, ids=lambda text: text[:40])
async def test_a_recheck_message_that_is_none_is_refused(text: str) -> None:
    world = await a_watched_vm()
    with pytest.raises(WireError):
        await world.watchdog.recheck(text)
    assert world.journal.take() == []


async def test_a_recheck_message_looks_at_its_vm() -> None:
    world = await a_watched_vm()
    world.is_down()
    world.clock.now = at(0)
    await world.watchdog.recheck(json.dumps({"vm_id": VM_ID}))
    assert (await world.state()).status is Status.CRITICAL


# --- shards ----------------------------------------------------------------------------------------------


async def test_a_shard_message_looks_at_its_vms() -> None:
    world = World()
    world.add_vm()
    world.is_down()
    for shard in range(4):
        await world.watchdog.evaluate_shard(json.dumps({"shard": shard, "shard_count": 4}))
    assert len(world.queue.alerts) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1, 2]",
        '{"shard": 0}',
        '{"shard": 0, "shard_count": 0}',
        '{"shard": 0, "shard_count": 3}',
        '{"shard": 0, "shard_count": 32}',
        '{"shard": 4, "shard_count": 4}',
        '{"shard": -1, "shard_count": 4}',
        '{"shard": "0", "shard_count": 4}',
        '{"shard": true, "shard_count": 4}',
    ],
)
async def test_a_shard_message_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(WireError):
        await World().watchdog.evaluate_shard(text)


@pytest.mark.parametrize("text", ["", "{}", '{"kind": "fired"}', "[" * 30_000])
async def test_an_alert_message_that_is_none_is_refused(text: str) -> None:
    world = World()
    with pytest.raises(WireError):
        await world.watchdog.send_alert(text)
    assert world.alerts.sent == []


# --- live ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("age", "status"), [(0, 200), (180, 200), (180.5, 503), (9_999, 503)])
async def test_live_tells_the_age_of_the_last_tick(age: float, status: int) -> None:
    world = await a_watched_vm()
    world.clock.now = at(age - 60)
    reply = await world.watchdog.live()
    assert reply.status == status
    assert body(reply)["live"] is (status == 200)
    assert body(reply)["last_tick_age_seconds"] == age
    assert ("reason" in body(reply)) is (status == 503)


async def test_live_before_the_first_tick() -> None:
    reply = await World().watchdog.live()
    assert (reply.status, body(reply)["reason"]) == (503, "no tick has ended yet")


async def test_live_with_a_broken_store_says_so_and_no_more() -> None:
    world = await a_watched_vm()
    world.store.error = TransientError("reading: https://acc.table.core.windows.net 503")
    reply = await world.watchdog.live()
    assert (reply.status, body(reply)) == (503, {"live": False, "reason": "the state store can't be read"})


# --- fleet -----------------------------------------------------------------------------------------------


async def test_the_fleet_as_json_has_the_worst_first() -> None:
    world = World()
    for name in ("b-fine", "a-fine", "z-down"):
        world.add_vm(name)
        world.all_is_fine(name)
    world.is_down("z-down")
    for moment in (0, 10):
        await world.tick(moment)
    value = body(await world.watchdog.fleet(wants_json=True))
    assert [row["name"] for row in value["vms"]] == ["z-down", "a-fine", "b-fine"]
    assert value["last_tick"] == at(10).isoformat()
    row = value["vms"][0]
    assert (row["status"], row["cause"]) == ("CRITICAL", "service_down")
    assert row["units"] == [
        {
            "name": "web.service",
            "attempts": 1,
            "not_before": at(30).isoformat(),
            "last_attempt_at": at(10).isoformat(),
            "circuit_open": False,
        }
    ]


async def test_the_fleet_as_a_page() -> None:
    world = await a_watched_vm()
    world.is_down()
    for moment in (0, 10):
        await world.tick(moment)
    world.clock.now = at(15)
    reply = await world.watchdog.fleet(wants_json=False)
    assert (reply.status, reply.content_type) == (200, "text/html; charset=utf-8")
    for text in (
        "1 of 1 need you",
        "web-1",
        "web.service is down",
        "Last looked 5 s ago",
        "not before 12:00:30",
    ):
        assert text in reply.body


async def test_an_empty_fleet_has_a_page_before_the_first_tick() -> None:
    reply = await World().watchdog.fleet(wants_json=False)
    assert "No tick has ended yet" in reply.body
    assert "All 0 are fine" in reply.body


HOSTILE_NAME = "<script>alert('x')</script>\"'&{{7*7}}"


def test_the_page_escapes_whatever_a_vm_may_say() -> None:
    row = {
        "name": HOSTILE_NAME,
        "status": "CRITICAL",
        "severity": 3,
        "reason": HOSTILE_NAME,
        "since": HOSTILE_NAME,
        "units": [{"name": HOSTILE_NAME, "attempts": 1, "circuit_open": False, "not_before": HOSTILE_NAME}],
    }
    page = render_fleet([row], TickRecord(NOW, NOW, 1, troubles=(HOSTILE_NAME,)), NOW)
    assert page.count("&lt;script&gt;") >= 4
    assert "<script" not in page
    assert "{{7*7}}" in page


async def test_hostile_text_from_a_vm_reaches_the_page_as_text() -> None:
    world = World(Policy(confirm_down=1))
    world.add_vm()
    world.serve("web-1", a_report(units=[a_unit(down=True, sub_state="<img src=x onerror=alert(1)>")]))
    await world.tick(0)
    reply = await world.watchdog.fleet(wants_json=False)
    assert "&lt;img src=x" in reply.body
    assert "<img" not in reply.body
