"""The demo's scenario: two services die, one comes back, one keeps crashing. Says what it saw, proves it.

Looks at the system only from outside: worker processes, the alerts that arrive, the rows in Table Storage.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from azure.core.credentials import AccessToken
from azure.data.tables.aio import TableServiceClient

from devcloud.app_process import Record
from devcloud.stack import Stack, crash_file_of, unit_of
from devcloud.vms.machine import Machine
from devcloud.webhook_sink import Received

SLACK_SECONDS = 45.0  # beyond the backoff, for a tick, a queue and a slow machine
NEVER_EARLY_SECONDS = 0.1  # clocks are read at two places
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that had to be seen, and whether it was."""

    text: str
    seen: bool


async def play(stack: Stack, write: Callable[[str], None]) -> list[Check]:
    """Play the scenario on a running stack and return what was seen of it, in order."""
    killed, crashing = list(stack.vms.values())[:2]
    tables = _Tables(stack)
    try:
        await _all_healthy(stack)
        write(f"\n— all {len(stack.vms)} VMs are healthy; killing {unit_of(killed.spec.name)} —\n")
        checks = await _play_kill(stack, tables, killed)
        write(f"\n— {unit_of(crashing.spec.name)} now ends as soon as it starts —\n")
        return checks + await _play_crash_loop(stack, tables, crashing)
    finally:
        await tables.close()


async def _all_healthy(stack: Stack) -> None:
    def healthy(record: Record) -> bool:
        return record.message == "tick" and record.extra["statuses"] == {"HEALTHY": len(stack.vms)}

    await stack.app.wait_for(healthy, timeout_seconds=120)


async def _play_kill(stack: Stack, tables: _Tables, vm: Machine) -> list[Check]:
    unit, first_wait = unit_of(vm.spec.name), stack.options.backoff_seconds[0]
    old_pid = await vm.kill_unit(unit)
    fired = await _alert(stack, vm, "fired", SLACK_SECONDS)
    resolved = await _alert(stack, vm, "resolved", first_wait + SLACK_SECONDS)
    new_pid = await vm.main_pid(unit)
    events = await tables.events(vm)
    planned, tried = _first(events, "backoff"), _first(events, "restart")
    done = _first(events, "restart_done")
    waited = (tried["At"] - planned["At"]).total_seconds() if planned and tried else -1.0
    return [
        Check(f"{unit} was killed (pid {old_pid}) and a 'fired' alert arrived", fired is not None),
        Check(
            f"it was restarted through Run Command after {first_wait:g} s (waited {waited:.1f} s)",
            _on_time(waited, first_wait) and done is not None,
        ),
        Check(f"the worker lives again, as pid {new_pid}", new_pid not in (0, old_pid)),
        Check("a 'resolved' alert of the same incident arrived", _same_incident(fired, resolved)),
    ]


async def _play_crash_loop(stack: Stack, tables: _Tables, vm: Machine) -> list[Check]:
    unit, waits = unit_of(vm.spec.name), stack.options.backoff_seconds[:ATTEMPTS]
    start = len(stack.app.records)
    vm.write_file(crash_file_of(vm.spec.name), "")
    await vm.kill_unit(unit)

    def sent() -> int:
        records = stack.app.records[start:]
        return sum(1 for record in records if _is_sent(record, vm))

    with suppress(TimeoutError):  # what is missing is told by the checks
        await stack.app.wait_for(
            lambda record: _is_sent(record, vm) and sent() >= ATTEMPTS,
            sum(waits) + SLACK_SECONDS * ATTEMPTS,
            start,
        )
    events = await tables.events(vm)
    tries = [event for event in events if event["Kind"] == "restart"]
    planned = _first(events, "backoff")
    moments = [event["At"] for event in ([planned] if planned else []) + tries]
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(moments)]
    on_time = len(gaps) == ATTEMPTS and all(map(_on_time, gaps, waits))
    state = await tables.unit_state(vm, unit)
    attempts, due = state.get("attempts"), state.get("not_before")
    shown = ", ".join(f"{gap:.1f}" for gap in gaps)
    expected = ", ".join(f"{wait:g}" for wait in waits)
    return [
        Check(f"{unit} kept crashing: attempts after {expected} s (were {shown} s)", on_time),
        Check(
            f"backoff read back from Table Storage: {attempts} attempts, the next not before {due}",
            attempts == ATTEMPTS and due is not None,
        ),
    ]


def _is_sent(record: Record, vm: Machine) -> bool:
    return record.message == "restart_sent" and record.extra.get("vm") == vm.spec.name


def _on_time(waited: float, wanted: float) -> bool:
    return wanted - NEVER_EARLY_SECONDS <= waited <= wanted + SLACK_SECONDS


def _first(events: list[Mapping[str, Any]], kind: str) -> Mapping[str, Any] | None:
    return next((event for event in events if event["Kind"] == kind), None)


async def _alert(stack: Stack, vm: Machine, kind: str, timeout_seconds: float) -> Mapping[str, Any] | None:
    def wanted(received: Received) -> bool:
        body = received.body
        return bool(body.get("kind") == kind and body["vm"]["name"].lower() == vm.spec.name)

    try:
        found = await stack.sink.wait_until(wanted, timeout_seconds)
    except TimeoutError:
        return None
    body: Mapping[str, Any] = found.body
    return body


def _same_incident(fired: Mapping[str, Any] | None, resolved: Mapping[str, Any] | None) -> bool:
    return bool(fired and resolved and fired["incident_id"] == resolved["incident_id"])


class _Token:
    """Tokens for the demo's own look into Table Storage."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    async def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        audience = scopes[0].removesuffix("/.default")
        minted = self._stack.cloud.tokens.mint(audience)
        return AccessToken(minted.text, int(time.time()) + 3_600)

    async def close(self) -> None:
        """Nothing is held."""

    async def __aenter__(self) -> _Token:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None


class _Tables:
    """Reads the watchdog's tables as anybody with the role could: by their documented columns."""

    def __init__(self, stack: Stack) -> None:
        self._service = TableServiceClient(
            stack.azurite.table_url, credential=_Token(stack), connection_verify=str(stack.cloud.ca_file)
        )

    async def close(self) -> None:
        await self._service.close()

    async def events(self, vm: Machine) -> list[Mapping[str, Any]]:
        """A VM's history, oldest first."""
        rows = await self._rows("events", vm)
        return sorted(rows, key=lambda row: str(row["RowKey"]), reverse=True)

    async def unit_state(self, vm: Machine, unit: str) -> Mapping[str, Any]:
        """What is remembered of a unit's remediation; empty where nothing is."""
        for row in await self._rows("vmstate", vm):
            for state in json.loads(str(row["State"]))["units"]:
                if state["name"] == unit:
                    found: Mapping[str, Any] = state
                    return found
        return {}

    async def _rows(self, table: str, vm: Machine) -> list[Mapping[str, Any]]:
        client = self._service.get_table_client(table)
        found = client.query_entities("VmId eq @id", parameters={"id": vm.spec.vm_id.lower()})
        return [row async for row in found]
