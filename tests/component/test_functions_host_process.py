"""The local Functions host as a process: its log, its end, its identity."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from azure.core.credentials import AccessToken
from azure.storage.queue.aio import QueueServiceClient

from devcloud.azurite import Azurite
from devcloud.cloud import LocalCloud
from tests.component.functions_host_fixtures import (
    AZURITE,
    ROOT,
    WAIT_SECONDS,
    Calls,
    find_node,
    log_lines,
    process,
    queues,
    send,
    settings,
)

pytest_plugins = ["tests.component.functions_host_fixtures"]


class TokenOf:
    """A credential whose tokens come straight from the local Azure's own issuer."""

    def __init__(self, cloud: LocalCloud) -> None:
        self._cloud = cloud

    async def get_token(self, *scopes: str, **_options: Any) -> AccessToken:
        minted = self._cloud.tokens.mint(scopes[0].removesuffix("/.default"))
        return AccessToken(minted.text, minted.expires_on)

    async def close(self) -> None:
        return

    async def __aenter__(self) -> TokenOf:
        return self

    async def __aexit__(self, *_: object) -> None:
        return


async def test_the_process_logs_json_survives_failures_and_lets_a_run_finish_on_sigterm(
    queue_storage: str, sample_calls: Calls
) -> None:
    environ = settings(queue_storage, SAMPLE_TICK_SECONDS="1.5", SAMPLE_SCHEDULE="*/2 * * * * *")
    async with queues(queue_storage, "sample-recheck") as service, process(environ) as host:
        lines = log_lines(host)
        started = await anext(lines)
        assert started["message"] == "functions host started"
        assert "nudge" in started["extra"]["functions"]
        await send(service, "sample-recheck", {"vm": "web-1", "succeed_on": 2})
        logged = [await anext(lines) for _ in range(3)]
        while (await sample_calls.next())["function"] != "watchdog_tick":
            pass
        host.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(host.wait(), WAIT_SECONDS) == 0
        assert [line async for line in lines] == []
    look, failure, second_look = logged
    assert (look["logger"], look["level"], look["message"]) == ("sample", "INFO", "looked at a VM")
    assert look["extra"] == {"vm": "web-1", "attempt": 1}
    assert look["function"] == failure["function"] == "recheck_vm"
    assert look["invocation_id"] == failure["invocation_id"] != second_look["invocation_id"]
    assert failure["level"] == "ERROR"
    assert "RuntimeError: asked to fail" in failure["exception"]
    assert second_look["extra"]["attempt"] == 2
    phases = []
    while not sample_calls.none_left:
        phases.append((await sample_calls.next("watchdog_tick"))["phase"])
    assert phases[-1:] == ["end"], "the run that was under way finished"


async def test_a_managed_identity_opens_the_queues_where_the_connection_is_only_an_address(
    tmp_path: Path, sample_calls: Calls
) -> None:
    node = find_node()
    async with AsyncExitStack() as stack:
        cloud = LocalCloud(tmp_path / "cloud", [])
        await cloud.start()
        stack.push_async_callback(cloud.stop)
        azurite = Azurite(tmp_path / "azurite", cloud.certificates, [node], package=AZURITE.parents[3])
        await azurite.start()
        stack.push_async_callback(azurite.stop)
        environ = settings("") | {
            "AzureWebJobsStorage__queueServiceUri": azurite.queue_url,
            "AzureWebJobsStorage__credential": "managedidentity",
            "IDENTITY_ENDPOINT": cloud.identity_url,
            "IDENTITY_HEADER": cloud.identity_header,
            "SSL_CERT_FILE": str(cloud.ca_file),
        }
        host = await stack.enter_async_context(process(environ))
        service = await stack.enter_async_context(
            QueueServiceClient(
                azurite.queue_url, credential=TokenOf(cloud), connection_verify=str(cloud.ca_file)
            )
        )
        started = await anext(log_lines(host))
        assert started["message"] == "functions host started"
        await service.create_queue("sample-recheck")
        await send(service, "sample-recheck", {"vm": "web-1"})
        assert (await sample_calls.next("recheck_vm"))["body"] == {"vm": "web-1"}


def test_the_process_names_every_fault_and_ends_with_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "devcloud.functions_host", "--app", str(tmp_path), "--port", "0"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert "host.json" in ended.stderr
    assert "Traceback" not in ended.stderr
