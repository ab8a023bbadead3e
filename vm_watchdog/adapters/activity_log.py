"""Who stopped a VM, from Azure's activity log. Only ever a note to people: what can't be read is empty.

GET .../providers/Microsoft.Insights/eventtypes/management/values, 2015-04-01 (Azure Monitor REST reference);
needs ``Microsoft.Insights/eventtypes/values/read``. Goes through the compute client: one SDK less.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from azure.core.exceptions import AzureError

from vm_health.names import is_vm_id
from vm_watchdog.arm_calls import ONCE, pages, within
from vm_watchdog.azure_errors import short
from vm_watchdog.ports import Target

if TYPE_CHECKING:
    from vm_watchdog.compute_clients import ComputeClients

_log = logging.getLogger(__name__)

_API_VERSION = "2015-04-01"
_WINDOW = timedelta(days=1)
_SECONDS = 10.0
_MOST_PAGES = 3  # a day of one VM; what lies further back is not worth more calls
_MAX_CALLER_CHARS = 120
_OPERATIONS = {
    "microsoft.compute/virtualmachines/deallocate/action": "deallocate",
    "microsoft.compute/virtualmachines/poweroff/action": "powerOff",
    "microsoft.compute/virtualmachines/start/action": "start",
}
_DONE = frozenset({"succeeded", "accepted"})


class AzureActivityLog:
    """Reads the activity log of one VM."""

    def __init__(self, clients: ComputeClients, *, call_seconds: float = _SECONDS) -> None:
        self._clients = clients
        self._seconds = call_seconds

    async def who_stopped(self, target: Target, now: datetime) -> str:
        """Return who stopped or deallocated the VM last, within a day; empty where nothing tells.

        A VM that was started again since was stopped by nobody who can be seen here.
        """
        if not is_vm_id(target.vm_id):  # it goes into a filter, between quotes
            return ""
        newest: tuple[datetime, str, str] | None = None
        try:
            async with within(self._seconds):
                async for event in self._events(target, now):
                    told = _told_by(event)
                    if told is not None and (newest is None or told[0] > newest[0]):
                        newest = told
        except AzureError as error:
            _log.warning("The activity log can't be read", extra={"vm": target.name, "why": short(error)})
            return ""
        if newest is None or newest[1] == "start" or not newest[2]:
            return ""
        at, verb, caller = newest
        return f"{caller} at {at:%H:%M} UTC ({verb})"

    async def _events(self, target: Target, now: datetime) -> AsyncIterator[Mapping[str, Any]]:
        client = await self._clients.get(target.subscription_id)
        since, until = (_stamp(moment) for moment in (now - _WINDOW, now + timedelta(minutes=5)))
        parameters = {
            "api-version": _API_VERSION,
            "$filter": f"eventTimestamp ge '{since}' and eventTimestamp le '{until}'"
            f" and resourceUri eq '{target.vm_id}'",
            "$select": "caller,operationName,eventTimestamp,status",
        }
        path = (
            f"/subscriptions/{quote(target.subscription_id, safe='')}"
            "/providers/Microsoft.Insights/eventtypes/management/values"
        )
        async for events in pages(client, path, parameters, most=_MOST_PAGES, seconds=self._seconds, **ONCE):
            for event in events:
                yield event


def _told_by(event: Mapping[str, Any]) -> tuple[datetime, str, str] | None:
    """Return when what was done by whom, None where the event is not about power or did not happen."""
    verb = _OPERATIONS.get(_value(event, "operationName"))
    if verb is None or _value(event, "status") not in _DONE:
        return None
    try:
        at = datetime.fromisoformat(str(event.get("eventTimestamp")))
    except ValueError:
        return None
    caller = event.get("caller")
    named = "".join(filter(str.isprintable, caller)) if isinstance(caller, str) else ""
    return at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC), verb, named[:_MAX_CALLER_CHARS].strip()


def _value(event: Mapping[str, Any], name: str) -> str:
    found = event.get(name)
    return str(found.get("value") or "").lower() if isinstance(found, dict) else ""


def _stamp(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
