"""What the watchdog does when it is called: one method a trigger, text in and a reply out. No Azure here."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from vm_health.errors import WatchdogError, WireError
from vm_health.fields import Fields, load_object
from vm_health.names import is_vm_id
from vm_health.state_codec import decode_notice
from vm_watchdog.look import Ports
from vm_watchdog.page import render_fleet
from vm_watchdog.ports import Stored, TickRecord
from vm_watchdog.tick import PARTITIONS, TickOptions, run_recheck, run_shard, run_tick

log = logging.getLogger("vm_watchdog.app")

MAX_BODY_CHARS = 4_096


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer."""

    status: int
    body: str
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Watchdog:
    """The wired watchdog; ``close`` releases what the adapters hold."""

    ports: Ports
    options: TickOptions
    live_max_age_seconds: float
    close: Callable[[], Awaitable[None]] = field(repr=False)

    async def tick(self) -> TickRecord:
        """Look at the fleet."""
        return await run_tick(self.ports, self.options)

    async def evaluate_shard(self, text: str) -> None:
        """Look at one shard of the fleet, as a message on the shard queue asks.

        Raises:
            WireError: the message is not one of ours.
        """
        faults: list[str] = []
        message = Fields(load_object(text, MAX_BODY_CHARS, faults), "", faults)
        shard, count = message.whole("shard"), message.whole("shard_count")
        if count not in (1, 2, 4, 8, PARTITIONS) or shard >= count:
            message.fault("shard", "a shard below a shard_count of 1, 2, 4, 8 or 16")
        if faults:
            raise WireError(faults)
        await run_shard(self.ports, self.options, shard, count)

    async def recheck(self, text: str) -> None:
        """Look at one VM, as a message on the recheck queue asks.

        Raises:
            WireError: the message is not one of ours.
        """
        await run_recheck(self.ports, self.options, _read_vm_id(text))

    async def send_alert(self, text: str) -> None:
        """Deliver one notice from the alert queue; an error makes the queue try again."""
        await self.ports.alerts.send(decode_notice(text))

    async def nudge(self, text: str) -> Reply:
        """Take a VM's word that something changed: look at it at once, and believe nothing else."""
        try:
            vm_id = _read_vm_id(text)
        except WireError as error:
            return _json_reply(400, {"error": str(error), "faults": list(error.faults)})
        await self.ports.queue.send_recheck(vm_id, 0.0)
        return _json_reply(202, {"queued": vm_id})

    async def live(self) -> Reply:
        """Tell an outside monitor whether the watchdog itself ran lately: 200 or 503."""
        try:
            record = await self.ports.store.load_tick()
        except WatchdogError as error:
            log.warning("live: the tick record is unreadable", extra={"problem": str(error)})
            return _json_reply(503, {"live": False, "reason": "the state store can't be read"})
        if record is None:
            return _json_reply(503, {"live": False, "reason": "no tick has ended yet"})
        age = (self.options.clock() - record.finished_at).total_seconds()
        alive = age <= self.live_max_age_seconds
        body: dict[str, Any] = {"live": alive, "last_tick_age_seconds": round(age, 1)}
        if not alive:
            body["reason"] = f"the last tick ended more than {self.live_max_age_seconds:g} s ago"
        return _json_reply(200 if alive else 503, body)

    async def fleet(self, wants_json: bool) -> Reply:
        """Show every VM, the worst first, as a page or as JSON."""
        states, record = await self.ports.store.load(0, 1), await self.ports.store.load_tick()
        now = self.options.clock()
        rows = sorted((_fleet_row(vm_id, stored) for vm_id, stored in states.items()), key=_worst_first)
        if wants_json:
            tick = None if record is None else record.finished_at.isoformat()
            return _json_reply(200, {"last_tick": tick, "vms": rows})
        return Reply(200, render_fleet(rows, record, now), "text/html; charset=utf-8")


def _fleet_row(vm_id: str, stored: Stored) -> dict[str, Any]:
    state = stored.state
    return {
        "vm_id": vm_id,
        "name": vm_id.rsplit("/", 1)[-1],
        "status": state.status,
        "severity": state.status.severity,
        "cause": state.cause,
        "reason": state.reason,
        "since": _iso(state.since),
        "incident": None if state.incident is None else state.incident.id,
        "units": [
            {
                "name": name,
                "attempts": unit.attempts,
                "not_before": _iso(unit.not_before),
                "last_attempt_at": _iso(unit.last_attempt_at),
                "circuit_open": unit.circuit_open,
            }
            for name, unit in sorted(state.units.items())
        ],
    }


def _worst_first(row: dict[str, Any]) -> tuple[int, str]:
    return -row["severity"], row["name"]


def _read_vm_id(text: str) -> str:
    faults: list[str] = []
    message = Fields(load_object(text, MAX_BODY_CHARS, faults), "", faults)
    vm_id = message.text("vm_id").lower() if not faults else ""
    if not faults and not is_vm_id(vm_id):
        message.fault("vm_id", "the ARM id of a virtual machine")
    if faults:
        raise WireError(faults)
    return vm_id


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _json_reply(status: int, value: object) -> Reply:
    return Reply(status, json.dumps(value, default=str))
