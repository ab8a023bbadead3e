"""Azure's activity log of the simulated VMs: who did what to them through ARM, and the API that lists it.

Knows the one filter that asks for a resource within a time; keeps the newest entries only.
"""

from __future__ import annotations

import re
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from aiohttp import web

from devcloud.arm import CALLER, ArmError
from devcloud.log_tables import utc_now
from devcloud.vms.base import VmSpec

_ROUTE = "/subscriptions/{subscription}/providers/Microsoft.Insights/eventtypes/management/values"
_FILTER = re.compile(
    r"eventTimestamp ge '(?P<since>[^']+)'(?: and eventTimestamp le '(?P<until>[^']+)')?"
    r"(?: and resourceUri eq '(?P<resource>[^']+)')?"
)


@dataclass(frozen=True, slots=True)
class Activity:
    """One entry: ``operation`` such as ``Microsoft.Compute/virtualMachines/deallocate/action``."""

    resource: str
    operation: str
    caller: str
    status: str
    at: datetime
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


class ActivityLog:
    """The entries of a run, newest last. Tests may record what no call did."""

    def __init__(self, keep: int = 10_000, page_size: int = 50) -> None:
        self.page_size = page_size
        self._entries: deque[Activity] = deque(maxlen=keep)

    def add_routes(self, app: web.Application) -> None:
        """Serve the list."""
        app.router.add_get(_ROUTE, self.activity_log)

    def record(
        self, spec: VmSpec, verb: str, caller: str, *, status: str = "Succeeded", at: datetime | None = None
    ) -> None:
        """Write down that ``caller`` did ``verb`` (deallocate, powerOff, start…) to a VM."""
        operation = f"Microsoft.Compute/virtualMachines/{verb}/action"
        self._entries.append(Activity(spec.vm_id, operation, caller, status, at or utc_now()))

    async def activity_log(self, request: web.Request) -> web.Response:
        """The entries that ``$filter`` asks for, newest first, with the properties of ``$select``."""
        found = self._matching(request)
        skip = request.query.get("$skipToken", "0")
        if not skip.isdigit():
            raise ArmError(400, "BadRequest", f"$skipToken: got {skip!r}, must come from a nextLink")
        end = int(skip) + self.page_size
        names = [name for name in request.query.get("$select", "").split(",") if name]
        body: dict[str, Any] = {"value": [_selected(_body(one), names) for one in found[int(skip) : end]]}
        if end < len(found):
            address = request.url.origin().join(request.rel_url)
            body["nextLink"] = str(address.update_query({"$skipToken": str(end)}))
        return web.json_response(body)

    def _matching(self, request: web.Request) -> list[Activity]:
        match = _FILTER.fullmatch(request.query.get("$filter", ""))
        if match is None:
            message = "The $filter query parameter must name eventTimestamp, then resourceUri at most."
            raise ArmError(400, "BadRequest", message)
        since, until = _time(match["since"]), _time(match["until"]) if match["until"] else None
        prefix = f"/subscriptions/{request.match_info['subscription']}/".lower()
        resource = (match["resource"] or "").lower()
        found = [
            one
            for one in self._entries
            if one.resource.lower().startswith(prefix)
            and since <= one.at
            and (until is None or one.at <= until)
            and resource in ("", one.resource.lower())
        ]
        return sorted(found, key=lambda one: one.at, reverse=True)


def caller_of(request: web.Request) -> str:
    """Who calls: the token's user name, else its object id, as the activity log has it."""
    claims: Mapping[str, Any] = request.get(CALLER, {})
    return str(claims.get("upn") or claims.get("oid") or "")


def _body(entry: Activity) -> dict[str, Any]:
    return {
        "caller": entry.caller,
        "eventDataId": entry.id,
        "operationName": {"value": entry.operation, "localizedValue": entry.operation},
        "status": {"value": entry.status, "localizedValue": entry.status},
        "eventTimestamp": entry.at.isoformat(timespec="microseconds").replace("+00:00", "0Z"),
        "resourceId": entry.resource,
    }


def _selected(body: dict[str, Any], names: list[str]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if not names or name in names}


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as problem:
        raise ArmError(400, "BadRequest", f"eventTimestamp: got {text!r}, must be a time") from problem
    return found if found.tzinfo else found.replace(tzinfo=utc_now().tzinfo)
