"""A running stack as the tests see it: records, alerts, tables, pages, VMs. Waits for what happens.

Nothing here reaches into the product: it reads what an operator could read, and breaks what could break.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from azure.data.tables.aio import TableServiceClient
from azure.storage.queue.aio import QueueClient

from devcloud.app_process import Record
from devcloud.calls import Call
from devcloud.stack import Stack, unit_of
from devcloud.vms.machine import Machine
from devcloud.webhook_sink import Received
from vm_health.names import vm_key

PATIENCE_SECONDS = 30.0
Row = Mapping[str, Any]


@dataclass(slots=True)
class Site:
    """The shared stack and clients of its storage. ``begin`` marks where a test starts."""

    stack: Stack
    http: aiohttp.ClientSession
    tables: TableServiceClient
    rechecks: QueueClient
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

    async def healthy(self) -> None:
        """Wait until every VM is healthy, no backoff is remembered and all alerts have arrived."""
        for name in self.stack.vms:
            await self.until(
                name,
                lambda row: row["status"] == "HEALTHY" and not row["units"] and row["incident"] is None,
            )
        await eventually(lambda: not self._open_incidents(), "every incident was told to be resolved")

    async def history(self, vm: str, *kinds: str) -> list[Row]:
        """The VM's events, oldest first, details decoded; of all kinds where none is named."""
        key = vm_key(self.stack.vms[vm].spec.vm_id)
        rows = self.tables.get_table_client("events").query_entities(
            "PartitionKey eq @key", parameters={"key": key}
        )
        found = [dict(row) async for row in rows]
        found.sort(key=lambda row: row["RowKey"], reverse=True)
        return [
            {**row, "Detail": json.loads(row["Detail"])} for row in found if not kinds or row["Kind"] in kinds
        ]

    def _open_incidents(self) -> set[str]:
        told = self.stack.sink.accepted()
        resolved = {alert.body["incident_id"] for alert in told if alert.body["kind"] == "resolved"}
        return {alert.body["incident_id"] for alert in told} - resolved

    def _story(self) -> str:
        lines = [f"{record.time[11:23]} {record.message} {record.extra}" for record in self.records[-20:]]
        return "\n".join(["the last records:", *lines])


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
