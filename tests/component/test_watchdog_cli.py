"""The watchdog's command line as people run it: processes against the local Azure, and what they leave."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from azure.data.tables.aio import TableServiceClient
from azure.storage.queue import TextBase64EncodePolicy
from azure.storage.queue.aio import QueueServiceClient

from devcloud.azurite import Azurite
from devcloud.faults import Fault
from devcloud.webhook_sink import WebhookSink
from tests.builders import SUBSCRIPTION
from tests.component.devcloud_site import ROOT, Site

pytest_plugins = ["tests.component.devcloud_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="session")

PATIENCE_SECONDS = 60


@dataclass
class Done:
    """An ended process."""

    code: int
    out: str
    err: str

    def checks(self) -> dict[str, dict[str, Any]]:
        """Doctor's checks by name."""
        return {check["name"]: check for check in json.loads(self.out)["checks"]}


@dataclass
class Shell:
    """Runs commands with the settings of the local Azure."""

    environment: dict[str, str]
    sink: WebhookSink
    tables: TableServiceClient
    queues: QueueServiceClient
    site: Site

    async def start(self, *argv: str, **settings: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "vm_watchdog", *argv),
            cwd=ROOT,
            env={**self.environment, **settings},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *argv: str, **settings: str) -> Done:
        process = await self.start(*argv, **settings)
        async with asyncio.timeout(PATIENCE_SECONDS):
            out, err = await process.communicate()
        assert process.returncode is not None
        return Done(process.returncode, out.decode(), err.decode())


@pytest_asyncio.fixture(loop_scope="session")
async def shell(site: Site, azurite: Azurite) -> AsyncIterator[Shell]:
    """A shell at an installation that has never run."""
    cloud, sink = site.cloud, WebhookSink()
    await sink.start()
    options = {"credential": site.credential, "connection_verify": str(cloud.ca_file)}
    async with (
        TableServiceClient(azurite.table_url, **options) as tables,
        QueueServiceClient(azurite.queue_url, **options) as queues,
    ):
        for table in [found.name async for found in tables.list_tables()]:
            await tables.delete_table(table)
        for queue in [found.name async for found in queues.list_queues()]:
            await queues.delete_queue(queue)
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            **cloud.environment(),
            "LOGNAME": "jane",
            "WATCHDOG_SUBSCRIPTIONS": SUBSCRIPTION,
            "WATCHDOG_WORKSPACE_ID": cloud.workspace_id,
            "WATCHDOG_TABLE_ENDPOINT": azurite.table_url,
            "WATCHDOG_QUEUE_ENDPOINT": azurite.queue_url,
            "WATCHDOG_ARM_ENDPOINT": cloud.arm_url,
            "WATCHDOG_LOGS_ENDPOINT": cloud.logs_url,
            "WATCHDOG_ALERT_WEBHOOK_URL": sink.hook_url("alerts"),
            "APPLICATIONINSIGHTS_CONNECTION_STRING": cloud.connection_string,
        }
        yield Shell(environment, sink, tables, queues, site)
    await sink.stop()


# --- doctor ----------------------------------------------------------------------------------------------


async def test_doctor_proves_everything_and_leaves_nothing_behind(shell: Shell) -> None:
    done = await shell.run("doctor", "--vm", "WEB-1", "--alert", "--json")
    checks = done.checks()
    failed = {name: check for name, check in checks.items() if check["verdict"] == "fail"}
    assert failed == {}
    assert done.code == 1, done.out  # nobody reports yet, no tick has ended, there is no dead-man URL
    assert {name for name, check in checks.items() if check["verdict"] == "ok"} >= {
        "identity: Azure Resource Manager",
        "identity: Log Analytics",
        "identity: storage",
        "clock",
        f"VMs of subscription {SUBSCRIPTION}",
        "instance view",
        "run commands, reading",
        "tables",
        "queues",
        "own telemetry",
        "way out",
        "test alert",
        "policy",
    }
    assert "2 of them opted in" in checks[f"VMs of subscription {SUBSCRIPTION}"]["found"]
    assert "the script ran on web-1" in checks["run commands, running"]["found"]
    assert checks["fleet query"]["found"].startswith("the query works")
    assert checks["last tick"]["advice"]
    assert "object id" in checks["identity: storage"]["found"]
    [alert] = shell.sink.received
    assert "This is a test by vm-watchdog doctor" in json.dumps(alert.body)
    assert [table.name async for table in shell.tables.list_tables() if "doctor" in table.name] == []
    assert [queue.name async for queue in shell.queues.list_queues() if "doctor" in str(queue.name)] == []
    commands = shell.site.cloud.calls.matching("arm", "run_commands_delete", "web-1")
    assert any("watchdog-doctor-" in call.path for call in commands)
    token = shell.site.cloud.tokens.mint("https://storage.azure.com").text
    assert token.split(".")[0] not in done.out + done.err


async def test_without_being_asked_doctor_runs_nothing_and_alerts_nobody(shell: Shell) -> None:
    calls = len(shell.site.cloud.calls.matching("arm", "run_command", "*"))
    checks = (await shell.run("doctor", "--json")).checks()
    assert checks["run commands, running"]["verdict"] == "skip"
    assert checks["test alert"]["verdict"] == "skip"
    assert len(shell.site.cloud.calls.matching("arm", "run_command", "*")) == calls
    assert shell.sink.received == []


async def test_doctor_names_the_role_that_is_missing_and_goes_on(shell: Shell) -> None:
    faults = shell.site.cloud.faults
    faults.add(Fault("arm", "list", status=403, error_code="AuthorizationFailed", times=0))
    faults.add(Fault("logs", "*", status=403, error_code="InsufficientAccessError", times=0))
    done = await shell.run("doctor", "--json")
    assert done.code == 2
    checks = done.checks()
    listing = checks[f"VMs of subscription {SUBSCRIPTION}"]
    assert listing["verdict"] == "fail"
    assert "object id" in listing["advice"]
    assert "Reader, or the watchdog's custom role" in listing["advice"]
    assert f"/subscriptions/{SUBSCRIPTION}" in listing["advice"]
    query = checks["fleet query"]
    assert query["verdict"] == "fail"
    assert "Log Analytics Reader" in query["advice"]
    assert shell.site.cloud.workspace_id in query["advice"]
    assert checks["tables"]["verdict"] == checks["queues"]["verdict"] == "ok"
    people = await shell.run("doctor")
    assert "\x1b" not in people.out
    assert any(line.startswith("fail  ") for line in people.out.splitlines())
    assert any(line.strip().startswith("-> ") for line in people.out.splitlines())


async def test_a_refused_run_command_names_the_custom_role(shell: Shell) -> None:
    shell.site.cloud.faults.add(
        Fault("arm", "run_command_put", "web-1", status=403, error_code="AuthorizationFailed", times=0)
    )
    checks = (await shell.run("doctor", "--vm", "web-1", "--json")).checks()
    check = checks["run commands, running"]
    assert check["verdict"] == "fail"
    assert "the watchdog's custom role" in check["advice"]
    assert checks["run commands, reading"]["verdict"] == "ok"


async def test_what_cannot_be_reached_is_said_and_stops_no_other_check(shell: Shell) -> None:
    nowhere = "https://127.0.0.1:9/devstoreaccount1"
    settings = {"WATCHDOG_TABLE_ENDPOINT": nowhere, "WATCHDOG_DEADMAN_URL": "http://127.0.0.1:9/ping"}
    done = await shell.run("doctor", "--json", "--timeout", "20", **settings)
    assert done.code == 2
    checks = done.checks()
    assert checks["tables"]["verdict"] == "fail"
    assert checks["dead-man ping"]["verdict"] == "fail"
    assert "WATCHDOG_DEADMAN_URL" in checks["dead-man ping"]["advice"]
    assert checks["queues"]["verdict"] == "ok"
    assert checks["clock"]["verdict"] == "ok"


# --- one call --------------------------------------------------------------------------------------------


async def test_a_tick_is_seen_by_status_and_an_operators_wish_by_history(
    shell: Shell, tmp_path: Path
) -> None:
    record = tmp_path / "ticks.jsonl"
    ticked = await shell.run("tick", "--json", "--record", str(record))
    assert json.loads(ticked.out)["targets"] == 2, ticked.err
    assert len(record.read_text().splitlines()) == 2
    status = json.loads((await shell.run("status", "--json")).out)
    assert (status["vms"], status["last_tick"]["targets"]) == (2, 2)
    silenced = await shell.run("silence", "add", "--vm", "web-1", "--for", "1h", "--why", "drill", "--json")
    assert silenced.code == 0, silenced.err
    history = json.loads((await shell.run("history", "web-1", "--json")).out)
    assert [event["kind"] for event in history["events"]][:1] == ["silenced"]
    listed = await shell.run("silence", "list")
    assert "alerts of vm web-1 until " in listed.out
    replayed = await shell.run("replay", str(record), "--json")
    assert {vm["name"] for vm in json.loads(replayed.out)["vms"]} == {"web-1", "web-2"}


async def test_a_reader_that_has_seen_enough_is_no_error_on_the_screen(shell: Shell) -> None:
    process = await asyncio.create_subprocess_shell(
        f"{sys.executable} -m vm_watchdog cost --vms 10 | head -1",
        cwd=ROOT,
        env=shell.environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (out.count(b"\n"), err) == (1, b"")


# --- run -------------------------------------------------------------------------------------------------


@dataclass
class Hosted:
    """A running ``vm-watchdog run`` and its log."""

    process: asyncio.subprocess.Process
    records: list[dict[str, Any]] = field(default_factory=list)

    async def says(self, message: str, times: int = 1) -> dict[str, Any]:
        """Wait until its log has held ``message`` so often; returns that record."""
        assert self.process.stderr is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(found := [one for one in self.records if one["message"] == message]) < times:
                line = await self.process.stderr.readline()
                assert line, f"it ended; it said {self.records}"
                self.records.append(json.loads(line))
        return found[times - 1]

    async def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode


@asynccontextmanager
async def hosted(shell: Shell, *argv: str) -> AsyncIterator[Hosted]:
    process = await shell.start("run", "--json", *argv)
    try:
        yield Hosted(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def a_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_run_ticks_serves_live_and_ends_when_told(shell: Shell, number: int) -> None:
    port = a_free_port()
    async with hosted(shell, "--every", "0.5", "--listen", f"127.0.0.1:{port}") as host:
        tick = await host.says("tick", times=3)
        assert tick["extra"]["targets"] == 2
        async with aiohttp.ClientSession() as http:
            async with http.get(f"http://127.0.0.1:{port}/api/live") as response:
                assert (response.status, (await response.json())["live"]) == (200, True)
            async with http.get(f"http://127.0.0.1:{port}/api/fleet") as response:
                assert response.status == 404
        assert await host.end(number) == 0


async def test_run_works_off_its_queues_and_poisons_what_nobody_understands(shell: Shell) -> None:
    vm_id = shell.site.vms["web-1"].spec.vm_id.lower()
    async with hosted(shell, "--every", "3600", "--poll", "0.1") as host:
        await host.says("tick")
        rechecks = shell.queues.get_queue_client(
            "watchdog-recheck", message_encode_policy=TextBase64EncodePolicy()
        )
        alerts = shell.queues.get_queue_client(
            "watchdog-alerts", message_encode_policy=TextBase64EncodePolicy()
        )
        gone = vm_id.replace("web-1", "gone")
        await rechecks.send_message(json.dumps({"vm_id": gone}))
        said = await host.says("recheck of a VM that is gone or not opted in")
        assert said["extra"]["vm"] == gone
        await alerts.send_message("{}")
        said = await host.says("message poisoned")
        assert said["extra"]["queue"] == "watchdog-alerts"
        assert await host.end() == 0
    poisoned = shell.queues.get_queue_client("watchdog-alerts-poison")
    assert (await poisoned.get_queue_properties()).approximate_message_count == 1
    assert (await rechecks.get_queue_properties()).approximate_message_count == 0


async def test_run_refuses_an_address_that_is_taken(shell: Shell) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = await shell.run("run", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert done.code == 78
    assert "must be an address to listen on" in done.err


async def test_a_failing_tick_is_logged_and_the_next_one_works(shell: Shell) -> None:
    shell.site.cloud.faults.add(Fault("arm", "list", status=503, times=6))
    async with hosted(shell, "--every", "0.5") as host:
        await host.says("tick failed")
        await host.says("tick")
        assert await host.end() == 0
