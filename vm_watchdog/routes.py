"""The routes of the HTTP API as a table: what the bindings serve and the OpenAPI file says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from vm_watchdog.api_models import (
    FleetRows,
    FleetView,
    HistoryView,
    LiveView,
    NudgeView,
    RestartView,
    SilencesView,
    SilenceView,
    VmView,
)
from vm_watchdog.api_requests import (
    ByQuery,
    FleetQuery,
    HistoryQuery,
    Input,
    NoQuery,
    NudgeRequest,
    RestartRequest,
    SilenceRequest,
    ThawRequest,
    VmQuery,
)
from vm_watchdog.problems import (
    AMBIGUOUS_NAME,
    CHANGED_MEANWHILE,
    HELD,
    INTERNAL,
    INVALID_INPUT,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    REFUSED,
    TOO_LARGE,
    TOO_MANY_REQUESTS,
    UNAVAILABLE,
    UNSUPPORTED_MEDIA_TYPE,
    Kind,
)

_ALWAYS = (INVALID_INPUT, METHOD_NOT_ALLOWED, INTERNAL, REFUSED, UNAVAILABLE)
_BODY = (TOO_LARGE, UNSUPPORTED_MEDIA_TYPE)
_VM = (NOT_FOUND, AMBIGUOUS_NAME)


@dataclass(frozen=True, slots=True)
class Route:
    """One operation. ``path`` is below ``/api/``; ``answer`` None: it is no JSON model of ours.

    ``problems`` are those that only this route has; ``is_open``: no key is needed.
    """

    path: str
    summary: str
    methods: tuple[str, ...] = ("GET",)
    query: type[Input] = NoQuery
    body: type[Input] | None = None
    answer: type[BaseModel] | None = None
    success: int = 200
    own_problems: tuple[Kind, ...] = ()
    is_open: bool = False

    @property
    def problems(self) -> tuple[Kind, ...]:
        """Every kind of problem that may be the answer."""
        return (*_ALWAYS, *(_BODY if self.body else ()), *self.own_problems)


ROUTES: Mapping[str, Route] = {
    "status": Route("status", "How the fleet stands, and whether the watchdog may act", answer=FleetView),
    "vm": Route(
        "vms/{name}",
        "Everything that is remembered of a VM, and what applies to it",
        query=VmQuery,
        answer=VmView,
        own_problems=_VM,
    ),
    "vm_history": Route(
        "vms/{name}/history",
        "What happened to a VM and why, newest first; the name fleet stands for the fleet itself",
        query=HistoryQuery,
        answer=HistoryView,
        own_problems=_VM,
    ),
    "silences": Route("silences", "Silences in force and to come", answer=SilencesView),
    "add_silence": Route(
        "silences",
        "Keep alerts, action or both from some VMs for a time",
        ("POST",),
        body=SilenceRequest,
        answer=SilenceView,
        success=201,
        own_problems=(CHANGED_MEANWHILE,),
    ),
    "end_silence": Route(
        "silences/{id}",
        "End a silence now",
        ("DELETE",),
        query=ByQuery,
        answer=SilenceView,
        own_problems=(NOT_FOUND, CHANGED_MEANWHILE),
    ),
    "restart": Route(
        "vms/{name}/restart",
        "Restart a unit now, under the same safety as the watchdog's own restarts",
        ("POST",),
        body=RestartRequest,
        answer=RestartView,
        success=202,
        own_problems=(*_VM, HELD, CHANGED_MEANWHILE),
    ),
    "thaw": Route(
        "thaw",
        "Overrule every freeze for a time, a day at most",
        ("POST",),
        body=ThawRequest,
        answer=FleetView,
        own_problems=(CHANGED_MEANWHILE,),
    ),
    "nudge": Route(
        "nudge",
        "Look at a VM at once, because something changed on it",
        ("POST",),
        body=NudgeRequest,
        answer=NudgeView,
        success=202,
        own_problems=(TOO_MANY_REQUESTS,),
    ),
    "live": Route(
        "live",
        "Whether the watchdog itself ran lately: 200, or 503 and why not",
        ("GET", "HEAD"),
        answer=LiveView,
        is_open=True,
    ),
    "fleet": Route(
        "fleet", "The dashboard, or with format=json its rows", query=FleetQuery, answer=FleetRows
    ),
    "openapi": Route("openapi.json", "This description"),
}
