"""What the texts of timer and queues do, good ones and hostile ones, and what they must not load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import VM_ID, at
from tests.fakes import World, a_watched_vm
from vm_health.errors import WireError
from vm_health.model import Status

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


# --- recheck ---------------------------------------------------------------------------------------------


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


# --- cold start ------------------------------------------------------------------------------------------


def test_timer_and_queues_load_nothing_that_only_http_needs() -> None:
    """Checking and describing HTTP takes a library of its own; the timer's cold start does not pay for it."""
    code = (
        "import sys, vm_watchdog.app, vm_watchdog.http_message, vm_watchdog.bootstrap; "
        "print([name for name in ('pydantic', 'jinja2', 'vm_watchdog.http_api') if name in sys.modules])"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env={}, capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "[]"
