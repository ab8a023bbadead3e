"""Telemetry from Log Analytics: the one fleet query, and reports decoded as the untrusted text they are."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from json import JSONDecodeError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vm_health.errors import TransientError, WireError
from vm_health.model import HealthReport, Snapshot
from vm_health.wire import decode_report
from vm_watchdog.azure_errors import translated
from vm_watchdog.ports import CANARY_ID, FleetTelemetry

if TYPE_CHECKING:
    from azure.monitor.query.aio import LogsQueryClient

log = logging.getLogger("vm_watchdog.telemetry")

FLEET_QUERY = Path(__file__).parent.parent / "queries" / "fleet.kql"
SNAPSHOT_NAME = "vm.health"
CANARY_NAME = "watchdog.canary"

# A report's text, by its hash, and what it was decoded to: a text of 48,000 characters a VM is not kept.
_Decoded = tuple[int, Snapshot]


class LogAnalyticsTelemetry:
    """Runs the fleet query in one workspace over the last ``window``; it may take ``timeout_seconds``."""

    def __init__(
        self, client: LogsQueryClient, workspace_id: str, window: timedelta, timeout_seconds: float = 30.0
    ) -> None:
        self._client = client
        self._workspace_id = workspace_id
        self._window = window
        self._timeout_seconds = timeout_seconds
        self._query = FLEET_QUERY.read_text(encoding="utf-8")
        self._decoded: dict[str, _Decoded] = {}

    async def newest_snapshots(self) -> FleetTelemetry:
        """Return the newest snapshot of every VM that reported within the window, and the canary's time.

        Raises:
            TransientError: no answer or a partial one; a partial answer is no evidence.
            PermanentError: the query or the permission is wrong.
        """
        try:
            with translated("the fleet query"):
                # The SDK alone would wait for minutes. No retry of refusals either: it would sleep for as
                # long as ``Retry-After`` says, and the whole tick with it. The next tick asks again.
                async with asyncio.timeout(self._timeout_seconds):
                    answer: Any = await self._client.query_workspace(
                        self._workspace_id,
                        self._query,
                        timespan=self._window,
                        server_timeout=math.ceil(self._timeout_seconds),
                        retry_status=0,
                    )
        except TimeoutError as error:
            raise TransientError(f"the fleet query: no answer within {self._timeout_seconds:g} s") from error
        except JSONDecodeError:
            # The SDK lets a 204 out as this: a workspace without any data yet. That is an answer.
            return FleetTelemetry()
        if getattr(answer, "partial_error", None) is not None:
            raise TransientError(f"the fleet query gave a partial result: {answer.partial_error}")
        return self._read(answer.tables[0].rows if answer.tables else [])

    def _read(self, rows: Iterable[Any]) -> FleetTelemetry:
        decoded: dict[str, _Decoded] = {}
        canary_at = None
        for row in rows:
            name, vm_id, text = str(row["Name"]), str(row["VmId"]), str(row["Report"])
            if name == CANARY_NAME and vm_id == CANARY_ID:
                canary_at = _moment(row["TakenAt"])
            elif name == SNAPSHOT_NAME:
                taken_at, received_at = _moment(row["TakenAt"]), _moment(row["ReceivedAt"])
                # Between two ticks, looks at single VMs ask again, and most reports are still the same.
                mark, known = hash((taken_at, received_at, text)), self._decoded.get(vm_id)
                if known is not None and known[0] == mark:
                    decoded[vm_id] = known
                elif (report := _report(vm_id, text)) is not None:
                    decoded[vm_id] = mark, Snapshot(report, taken_at, received_at)
        self._decoded = decoded
        return FleetTelemetry({vm_id: snapshot for vm_id, (_, snapshot) in decoded.items()}, canary_at)


def _report(vm_id: str, text: str) -> HealthReport | None:
    try:
        report = decode_report(text)
    except WireError as error:
        log.warning("unreadable snapshot", extra={"vm": vm_id[:200], "problem": str(error)[:300]})
        return None
    if report.vm_id != vm_id:
        log.warning("snapshot speaks for another VM", extra={"vm": vm_id[:200], "claims": report.vm_id})
        return None
    return report


def _moment(value: Any) -> datetime:
    found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
