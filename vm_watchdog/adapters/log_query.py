"""Telemetry from Log Analytics: the one fleet query, and reports decoded as the untrusted text they are."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from json import JSONDecodeError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vm_health.errors import TransientError, WireError
from vm_health.model import Snapshot
from vm_health.wire import decode_report
from vm_watchdog.azure_errors import translated

if TYPE_CHECKING:
    from azure.monitor.query.aio import LogsQueryClient

log = logging.getLogger("vm_watchdog.telemetry")

FLEET_QUERY = Path(__file__).parent.parent / "queries" / "fleet.kql"


class LogAnalyticsTelemetry:
    """Runs the fleet query in one workspace over the last ``window``."""

    def __init__(self, client: LogsQueryClient, workspace_id: str, window: timedelta) -> None:
        self._client = client
        self._workspace_id = workspace_id
        self._window = window
        self._query = FLEET_QUERY.read_text(encoding="utf-8")

    async def newest_snapshots(self) -> Mapping[str, Snapshot]:
        """Return the newest snapshot of every VM that reported within the window.

        Raises:
            TransientError: no answer or a partial one; a partial answer is no evidence.
            PermanentError: the query or the permission is wrong.
        """
        try:
            with translated("the fleet query"):
                # No retry of refusals: the SDK would sleep for as long as ``Retry-After`` says, and the whole
                # tick with it. The next tick asks again.
                answer: Any = await self._client.query_workspace(
                    self._workspace_id, self._query, timespan=self._window, server_timeout=30, retry_status=0
                )
        except JSONDecodeError:
            # The SDK lets a 204 out as this: a workspace without any data yet. That is an answer.
            return {}
        if getattr(answer, "partial_error", None) is not None:
            raise TransientError(f"the fleet query gave a partial result: {answer.partial_error}")
        rows = answer.tables[0].rows if answer.tables else []
        return dict(found for row in rows if (found := _snapshot(row)) is not None)


def _snapshot(row: Any) -> tuple[str, Snapshot] | None:
    vm_id, text = str(row["VmId"]), str(row["Report"])
    try:
        report = decode_report(text)
    except WireError as error:
        log.warning("unreadable snapshot", extra={"vm": vm_id[:200], "problem": str(error)[:300]})
        return None
    if report.vm_id != vm_id:
        log.warning("snapshot speaks for another VM", extra={"vm": vm_id[:200], "claims": report.vm_id})
        return None
    return vm_id, Snapshot(report, _moment(row["TakenAt"]), _moment(row["ReceivedAt"]))


def _moment(value: Any) -> datetime:
    found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
