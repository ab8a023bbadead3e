"""The local Functions host behaves as Azure's does, over a real queue service (Azurite) and real HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import azure.functions as func
import pytest

from devcloud.functions_host import FunctionsHost
from tests.component.functions_host_fixtures import (
    SAMPLE_APP,
    Calls,
    hosted,
    left_in,
    queues,
    send,
    settings,
)

pytest_plugins = ["tests.component.functions_host_fixtures"]

# --- queues


async def test_a_message_is_handed_over_whole_and_deleted_when_the_function_succeeds(
    queue_storage: str, sample_calls: Calls
) -> None:
    async with queues(queue_storage, "sample-recheck") as service:
        async with hosted(settings(queue_storage)):
            before = datetime.now(UTC) - timedelta(seconds=2)
            message_id = await send(service, "sample-recheck", {"vm": "web-1"})
            call = await sample_calls.next("recheck_vm")
        assert call["id"] == message_id
        assert call["body"] == {"vm": "web-1"}
        assert call["dequeue_count"] == 1
        assert before <= datetime.fromisoformat(call["inserted"]) <= datetime.now(UTC) + timedelta(seconds=2)
        assert call["invocation_id"]
        assert await left_in(service, "sample-recheck") == 0


async def test_a_failed_message_is_tried_again_with_a_higher_count(
    queue_storage: str, sample_calls: Calls
) -> None:
    async with queues(queue_storage, "sample-recheck") as service:
        async with hosted(settings(queue_storage)):
            await send(service, "sample-recheck", {"succeed_on": 3})
            counts = [(await sample_calls.next("recheck_vm"))["dequeue_count"] for _ in range(3)]
        assert counts == [1, 2, 3]
        assert sample_calls.none_left
        assert await left_in(service, "sample-recheck") == 0


async def test_a_message_that_fails_every_time_goes_to_the_poison_queue_unchanged(
    queue_storage: str, sample_calls: Calls
) -> None:
    async with queues(queue_storage, "sample-recheck", "sample-recheck-poison") as service:
        async with hosted(settings(queue_storage)):
            await send(service, "sample-recheck", {"succeed_on": 99})
            counts = [(await sample_calls.next("recheck_vm"))["dequeue_count"] for _ in range(3)]
        assert counts == [1, 2, 3]
        assert await left_in(service, "sample-recheck") == 0
        poison = service.get_queue_client("sample-recheck-poison")
        contents = [message.content for message in await poison.peek_messages(max_messages=5)]
        assert [json.loads(base64.b64decode(content)) for content in contents] == [{"succeed_on": 99}]


async def test_a_message_that_is_not_base64_is_poison_at_once_and_does_not_block_the_others(
    queue_storage: str, sample_calls: Calls
) -> None:
    async with queues(queue_storage, "sample-recheck", "sample-recheck-poison") as service:
        async with hosted(settings(queue_storage)):
            await service.get_queue_client("sample-recheck").send_message("{not base64}")
            await send(service, "sample-recheck", {"vm": "behind it"})
            assert (await sample_calls.next("recheck_vm"))["body"] == {"vm": "behind it"}
        assert await left_in(service, "sample-recheck") == 0
        assert await left_in(service, "sample-recheck-poison") == 1


async def test_a_queue_named_by_a_setting_is_made_and_a_plain_function_runs_on_a_thread(
    queue_storage: str, sample_calls: Calls
) -> None:
    async with (
        hosted(settings(queue_storage, SAMPLE_SHARDS_QUEUE="Sample-Named")),
        queues(queue_storage) as service,
    ):
        while "sample-named" not in {queue.name async for queue in service.list_queues()}:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await send(service, "sample-named", {"shard": 7})
        call = await sample_calls.next("evaluate_shard")
    assert json.loads(call["body"]) == {"shard": 7}
    assert call["main_thread"] is False


# --- timers


async def test_a_timer_never_overlaps_and_makes_up_for_missed_times_with_one_late_run(
    queue_storage: str, sample_calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMPLE_TICK_SECONDS", "2.2")
    begun = datetime.now(UTC)
    async with hosted(settings(queue_storage, SAMPLE_SCHEDULE="* * * * * *")):
        seen = [await sample_calls.next("watchdog_tick") for _ in range(3)]
    seen.append(await sample_calls.next("watchdog_tick"))  # stopping waited for the second run
    assert [call["phase"] for call in seen] == ["begin", "end", "begin", "end"]
    assert seen[0]["past_due"] is False
    assert seen[2]["past_due"] is True
    assert sample_calls.none_left
    assert datetime.fromisoformat(seen[0]["at"]) >= begun.replace(microsecond=0) + timedelta(seconds=1)


# --- HTTP


async def test_http_answers_keys_routes_and_errors_as_azure_does(
    queue_storage: str, sample_calls: Calls
) -> None:
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(hosted(settings(queue_storage, FUNCTIONS_MASTER_KEY="master")))
        http = await stack.enter_async_context(aiohttp.ClientSession(host.url))

        async def ask(method: str, path: str, **options: Any) -> tuple[int, str]:
            async with http.request(method, path, **options) as answer:
                return answer.status, await answer.text()

        async with http.get("/api/live?a=1&status=503") as answer:
            assert answer.status == 503
            assert answer.content_type == "application/json"
            assert answer.headers["X-Sample"] == "yes"
            assert (await answer.json())["params"] == {"a": "1", "status": "503"}
        assert await ask("POST", "/api/nudge", data=b"x") == (401, "")
        assert await ask("POST", "/api/nudge?code=wrong", data=b"x") == (401, "")
        assert await ask("POST", "/api/nudge?code=open-sesame", data=b"x") == (202, "x")
        for key in ("open-sesame", "master"):
            assert await ask("GET", "/api/fleet", headers={"x-functions-key": key}) == (200, "<p>fleet</p>")
        assert await ask("GET", "/api/fleet?fail&code=open-sesame") == (500, "")
        assert await ask("GET", "/api/vm/web-1") == (200, "web-1")
        assert await ask("GET", "/api/nothing") == (404, "")
        # Azure answers 404 where HTTP would have 405: azure-functions-host#10098.
        assert await ask("GET", "/api/nudge?code=open-sesame") == (404, "")
    assert sample_calls.none_left


async def test_without_a_key_setting_a_locked_function_stays_locked(
    queue_storage: str, sample_calls: Calls
) -> None:
    environ = settings(queue_storage, FUNCTIONS_KEY="")
    async with hosted(environ) as host, aiohttp.ClientSession(host.url) as http:
        async with http.get("/api/fleet?code=") as answer:
            assert answer.status == 401
        async with http.get("/api/live") as answer:
            assert answer.status == 200
    assert sample_calls.none_left


# --- calling functions from a test


async def test_a_function_can_be_invoked_by_name(queue_storage: str, sample_calls: Calls) -> None:
    async with hosted(settings(queue_storage)) as host:
        await host.invoke("watchdog_tick")
        assert (await sample_calls.next("watchdog_tick"))["phase"] == "begin"
        assert (await sample_calls.next("watchdog_tick"))["phase"] == "end"
        await host.invoke("recheck_vm", '{"vm": "web-1"}')
        assert (await sample_calls.next("recheck_vm"))["body"] == {"vm": "web-1"}
        request = func.HttpRequest("GET", f"{host.url}/api/live", body=b"")
        assert (await host.invoke("live", request)).status_code == 200
        with pytest.raises(RuntimeError, match="asked to fail"):
            await host.invoke("recheck_vm", '{"succeed_on": 2}')


async def test_a_function_that_outlasts_the_grace_is_cancelled_and_reported(
    queue_storage: str, sample_calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMPLE_TICK_SECONDS", "60")
    host = FunctionsHost(SAMPLE_APP, settings(queue_storage))
    await host.start()
    running = asyncio.create_task(host.invoke("watchdog_tick"))
    assert (await sample_calls.next("watchdog_tick"))["phase"] == "begin"
    assert await host.stop(grace_seconds=0.1) is False
    with pytest.raises(asyncio.CancelledError):
        await running
    assert sample_calls.none_left
