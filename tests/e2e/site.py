"""A running stack as the tests see it: records, alerts, tables, pages, VMs. Waits for what happens.

Nothing here reaches into the product: it reads what an operator could read, and breaks what could break.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import aiohttp
import pytest
from azure.data.tables.aio import TableServiceClient
from azure.identity.aio import ManagedIdentityCredential
from azure.storage.queue import TextBase64EncodePolicy
from azure.storage.queue.aio import QueueClient

from devcloud.app_process import Record
from devcloud.calls import Call
from devcloud.stack import Stack, StackOptions, unit_of
from devcloud.vms.machine import Machine
from devcloud.webhook_sink import Received
from vm_health.names import vm_key
from vm_health.state import FLEET_ID

PATIENCE_SECONDS = 30.0
Row = Mapping[str, Any]


@dataclass(slots=True)
class Site:
    """The shared stack and clients of its storage. ``begin`` marks where a test starts."""

    stack: Stack
    http: aiohttp.ClientSession
    tables: TableServiceClient
    rechecks: QueueClient
    tls: ssl.SSLContext
    _records: int = 0
    _alerts: int = 0

    def begin(self) -> None:
        """Count records and alerts from here on."""
        self._records = len(self.stack.app.records)
        self._alerts = len(self.stack.sink.received)

    @property
    def records(self) -> list[Record]:
        """What the function app has logged since ``begin``."""
        return self.stack.app.records[self._records :]

    @property
    def alerts(self) -> list[Received]:
        """The alerts that arrived since ``begin``."""
        return self.stack.sink.received[self._alerts :]

    def vm(self, name: str) -> tuple[Machine, str]:
        """A VM and its worker's unit."""
        return self.stack.vms[name], unit_of(name)

    def commands(self, vm: str = "*") -> list[Call]:
        """Every Run Command that was asked for, refused ones too."""
        return self.stack.cloud.calls.matching("arm", "run_command", vm)

    async def record(
        self, message: str, wanted: Callable[[Row], bool] = lambda _: True, start: int | None = None
    ) -> Record:
        """The first record ``message`` since ``begin`` (or from ``start`` on) whose fields are ``wanted``."""

        def fits(record: Record) -> bool:
            return record.message == message and wanted(record.extra)

        position = self._records if start is None else start
        try:
            return await self.stack.app.wait_for(fits, PATIENCE_SECONDS, position)
        except TimeoutError:
            raise AssertionError(f"no such record {message!r}; {self._story()}") from None

    async def decision(self, vm: str, event: str) -> str:
        """Wait for an event of ``vm`` that holds ``event``; returns its whole text."""

        def told(extra: Row) -> str:
            found = (text for text in extra["events"] if event in text)
            return next(found, "") if extra["vm"] == vm else ""

        return told((await self.record("decision", lambda extra: bool(told(extra)))).extra)

    async def alert(self, vm: str, kind: str) -> Row:
        """Wait for an alert since ``begin``; returns its body."""

        def wanted(alert: Received) -> bool:
            return alert in self.alerts and (alert.body["vm"]["name"], alert.body["kind"]) == (vm, kind)

        try:
            found = await self.stack.sink.wait_until(wanted, PATIENCE_SECONDS)
        except TimeoutError:
            raise AssertionError(f"no alert {kind!r} of {vm}; {self._story()}") from None
        body: Row = found.body
        return body

    async def look(self, vm: str) -> Row:
        """The VM's row of the dashboard's JSON; empty before the first look."""
        async with self.http.get(self.stack.dashboard_url + "&format=json") as response:
            rows = (await response.json())["vms"]
        return next((row for row in rows if row["name"] == vm), {})

    async def until(self, vm: str, wanted: Callable[[Row], bool]) -> Row:
        """Wait until the VM's row is ``wanted``; looks whenever the app has logged something."""
        position = len(self.stack.app.records)
        async with asyncio.timeout(PATIENCE_SECONDS * 2):
            while not (row := await self.look(vm)) or not wanted(row):
                await self.stack.app.wait_for(lambda _: True, PATIENCE_SECONDS, position)
                position = len(self.stack.app.records)
        return row

    async def healthy(self, names: Iterable[str] | None = None) -> None:
        """Wait until all VMs, or those, are healthy, no backoff is remembered and all alerts are there."""
        meant = set(self.stack.vms if names is None else names)
        for name in meant:
            await self.until(
                name,
                lambda row: row["status"] == "HEALTHY" and not row["units"] and row["incident"] is None,
            )
        meant.add(FLEET_ID)
        await eventually(lambda: not self._open_incidents(meant), "every incident was told to be resolved")

    async def history(self, vm: str, *kinds: str, since: datetime | None = None) -> list[Row]:
        """The events of a VM or the fleet, oldest first, details decoded; all where no kind is named."""
        key = vm_key(FLEET_ID if vm == FLEET_ID else self.stack.vms[vm].spec.vm_id)
        condition, values = "PartitionKey eq @key", dict[str, Any](key=key)
        if since is not None:
            condition, values = f"{condition} and At ge @since", {**values, "since": since}
        rows = self.tables.get_table_client("events").query_entities(condition, parameters=values)
        found = [dict(row) async for row in rows]
        found.sort(key=lambda row: row["RowKey"], reverse=True)
        return [
            {**row, "Detail": json.loads(row["Detail"])} for row in found if not kinds or row["Kind"] in kinds
        ]

    def _open_incidents(self, names: set[str]) -> set[str]:
        told = [alert for alert in self.stack.sink.accepted() if alert.body["vm"]["name"].lower() in names]
        over = ("resolved", "thawed")
        resolved = {alert.body["incident_id"] for alert in told if alert.body["kind"] in over}
        return {alert.body["incident_id"] for alert in told} - resolved

    def _story(self) -> str:
        lines = [f"{record.time[11:23]} {record.message} {record.extra}" for record in self.records[-20:]]
        return "\n".join(["the last records:", *lines])


@asynccontextmanager
async def opened_site(options: StackOptions) -> AsyncIterator[Site]:
    """Start a stack, and clients of its storage with the identity that the function app has."""
    async with Stack(options, lambda _: None) as stack:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in stack.cloud.environment().items():
                patch.setenv(name, value)
            credential = ManagedIdentityCredential()
        ca_file = str(stack.cloud.ca_file)
        tables = TableServiceClient(stack.azurite.table_url, credential=credential, connection_verify=ca_file)
        rechecks = QueueClient(
            stack.azurite.queue_url,
            "watchdog-recheck",
            credential=credential,
            connection_verify=ca_file,
            message_encode_policy=TextBase64EncodePolicy(),
        )
        async with aiohttp.ClientSession() as http, credential, tables, rechecks:
            yield Site(stack, http, tables, rechecks, ssl.create_default_context(cafile=ca_file))


@contextmanager
def changed_file(vm: Machine, path: str, text: str) -> Iterator[None]:
    """Have ``text`` in a file of a VM for as long as the block runs; its old text, or no file, afterwards."""
    place = vm.outside(path)
    before = place.read_text() if place.exists() else None
    mode = place.stat().st_mode & 0o777 if before is not None else 0o644
    vm.write_file(path, text, mode)
    try:
        yield
    finally:
        if before is None:
            vm.remove_file(path)
        else:
            vm.write_file(path, before, mode)


async def eventually(holds: Callable[[], Awaitable[bool] | bool], what: str) -> None:
    """Look until it holds; for what nobody announces."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                answer = holds()
                if answer if isinstance(answer, bool) else await answer:
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"not within {PATIENCE_SECONDS:g} s: {what}")
