"""The HTTP API: one handler a route, from a checked request to a model. No Azure and no page's markup here.

Loaded at the first HTTP request, with the library that checks; the timer and the queues never need it.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel

from vm_health.errors import WatchdogError
from vm_health.fields import load_object
from vm_watchdog.api_models import FrozenView, LiveView, NudgeView, SilencesView
from vm_watchdog.api_requests import (
    ByQuery,
    FieldFault,
    FleetQuery,
    HistoryQuery,
    Input,
    NoQuery,
    NudgeRequest,
    RestartRequest,
    SilenceRequest,
    ThawRequest,
    VmQuery,
    ahead,
    back,
)
from vm_watchdog.checks import InputError, checked
from vm_watchdog.http_message import Reply, Request
from vm_watchdog.lookup import name_of
from vm_watchdog.openapi import document_text
from vm_watchdog.operator import Operator
from vm_watchdog.page import render_fleet
from vm_watchdog.problems import (
    INVALID_INPUT,
    METHOD_NOT_ALLOWED,
    TOO_LARGE,
    TOO_MANY_REQUESTS,
    UNSUPPORTED_MEDIA_TYPE,
    HttpError,
    problem_reply,
)
from vm_watchdog.rate_limit import RateLimiter
from vm_watchdog.routes import ROUTES

log = logging.getLogger("vm_watchdog.http")

MAX_BODY_BYTES = 64 * 1024
MAX_QUERY_CHARS = 2_048
PRINCIPAL_HEADER = "x-ms-client-principal-name"
NOBODY = "api key"
_HOSTS_OWN = ("code", "clientid")  # the Functions host's key and its id: read and checked by the host alone
InputT = TypeVar("InputT", bound=Input)
Answer = BaseModel | Reply


@dataclass(frozen=True, slots=True)
class HttpApi:
    """Answers HTTP requests.

    Args:
        operator: does what is asked for.
        nudges: how often a VM may ask to be looked at.
        live_max_age_seconds: how old the last tick may be for the watchdog to count as live.
        has_sign_in: App Service authentication is on, so that its header can be believed: without it, anybody
            could send one.
    """

    operator: Operator
    nudges: RateLimiter
    live_max_age_seconds: float
    has_sign_in: bool = False
    _handlers: Mapping[str, Callable[[Request], Awaitable[Answer]]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        handlers = {name: getattr(self, f"_{name}") for name in ROUTES}
        object.__setattr__(self, "_handlers", handlers)

    async def answer(self, name: str, request: Request) -> Reply:
        """Answer a request for the route ``name``; whatever goes wrong becomes a problem document."""
        try:
            _check_method(ROUTES[name].methods, request.method)
            answer = await self._handlers[name](request)
        except Exception as error:  # noqa: BLE001 - callers get a problem document, the log the error
            return problem_reply(error, request.path)
        if isinstance(answer, Reply):
            return answer
        return Reply(ROUTES[name].success, answer.model_dump_json())

    async def _status(self, request: Request) -> Answer:
        _query(NoQuery, request)
        return await self.operator.status()

    async def _vm(self, request: Request) -> Answer:
        query = _query(VmQuery, request)
        return await self.operator.vm(_vm_name(request, query.vm_id), query.group)

    async def _vm_history(self, request: Request) -> Answer:
        query, now = _query(HistoryQuery, request), self.operator.options.clock()
        name = _vm_name(request, query.vm_id)
        since, until = _moment("since", query.since, now), _moment("until", query.until, now)
        return await self.operator.history(name, query.group, query.limit, since, until)

    async def _silences(self, request: Request) -> Answer:
        _query(NoQuery, request)
        return SilencesView(silences=await self.operator.silences())

    async def _add_silence(self, request: Request) -> Answer:
        _query(NoQuery, request)
        asked = _body(SilenceRequest, request)
        return await self.operator.add_silence(asked.model_copy(update={"by": self._by(request, asked.by)}))

    async def _end_silence(self, request: Request) -> Answer:
        query = _query(ByQuery, request)
        return await self.operator.end_silence(request.route["id"], self._by(request, query.by))

    async def _restart(self, request: Request) -> Answer:
        _query(NoQuery, request)
        asked = _body(RestartRequest, request)
        name = _vm_name(request, asked.vm_id)
        by = self._by(request, asked.by)
        return await self.operator.restart(name, asked.unit, by, asked.why, asked.group)

    async def _thaw(self, request: Request) -> Answer:
        _query(NoQuery, request)
        asked, now = _body(ThawRequest, request), self.operator.options.clock()
        until = ahead(asked.until, now)
        return await self.operator.thaw(until, self._by(request, asked.by), asked.why)

    async def _nudge(self, request: Request) -> Answer:
        """Take a VM's word that something changed: look at it at once, and believe nothing else."""
        vm_id = _body(NudgeRequest, request).vm_id
        wait = self.nudges.take(vm_id, self.operator.options.clock().timestamp())
        if wait > 0:
            retry = {"Retry-After": str(math.ceil(round(wait, 3)))}
            raise HttpError(TOO_MANY_REQUESTS, f"the next nudge is heard in {wait:.1f} s", retry)
        await self.operator.ports.queue.send_recheck(vm_id, 0.0)
        return NudgeView(queued=vm_id)

    async def _fleet(self, request: Request) -> Answer:
        query = _query(FleetQuery, request)
        view, rows = await self.operator.overview()
        if query.format == "json":
            return rows
        return Reply(200, render_fleet(view, rows.vms), "text/html; charset=utf-8")

    async def _openapi(self, request: Request) -> Answer:
        _query(NoQuery, request)
        return Reply(200, document_text())

    async def _live(self, request: Request) -> Answer:
        """Tell an outside monitor whether the watchdog itself ran lately. Frozen is live: it watches, and
        says so. Nothing of the query is read, so that no monitor's habit makes it fail."""
        view = await self._liveness()
        return Reply(200 if view.live else 503, view.model_dump_json())

    async def _liveness(self) -> LiveView:
        ports, now = self.operator.ports, self.operator.options.clock()
        try:
            record = await ports.store.load_tick()
        except WatchdogError as error:
            log.warning("live: the tick record is unreadable", extra={"problem": str(error)})
            return LiveView(live=False, reason="the state store can't be read")
        if record is None:
            return LiveView(live=False, reason="no tick has ended yet")
        age = (now - record.finished_at).total_seconds()
        is_live = age <= self.live_max_age_seconds
        frozen, thawed_until = None, None
        try:
            fleet, _ = await ports.fleet.load_fleet()
            frozen = [FrozenView(cause=one.cause, scope=one.scope, since=one.since) for one in fleet.freezes]
            thawed_until = fleet.thawed_until
        except WatchdogError as error:
            log.warning("live: the fleet's state is unreadable", extra={"problem": str(error)})
        return LiveView(
            live=is_live,
            last_tick_at=record.finished_at,
            last_tick_age_seconds=round(age, 1),
            frozen=frozen,
            thawed_until=thawed_until if thawed_until is not None and now < thawed_until else None,
            reason="" if is_live else f"the last tick ended more than {self.live_max_age_seconds:g} s ago",
        )

    def _by(self, request: Request, told: str) -> str:
        signed_in = request.headers.get(PRINCIPAL_HEADER, "") if self.has_sign_in else ""
        if signed_in:
            return checked(ByQuery, {"by": "".join(filter(str.isprintable, signed_in))[:100]}).by or NOBODY
        return told or NOBODY


def _check_method(methods: tuple[str, ...], method: str) -> None:
    """Hosts route by method themselves; one that does not still gets the right answer."""
    if method not in methods:
        allowed = ", ".join(methods)
        raise HttpError(METHOD_NOT_ALLOWED, f"use {allowed}", {"Allow": allowed})


def _query(model: type[InputT], request: Request) -> InputT:
    values = {name: text for name, text in request.query.items() if name.lower() not in _HOSTS_OWN}
    if sum(len(name) + len(text) for name, text in values.items()) > MAX_QUERY_CHARS:
        raise HttpError(INVALID_INPUT, f"the query must be at most {MAX_QUERY_CHARS} characters")
    return checked(model, values)


def _body(model: type[InputT], request: Request) -> InputT:
    if len(request.body) > MAX_BODY_BYTES:
        raise HttpError(TOO_LARGE, f"the body must be at most {MAX_BODY_BYTES} bytes")
    # A page of somebody else's can make a browser send a form, but not JSON without asking first.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HttpError(UNSUPPORTED_MEDIA_TYPE, "send Content-Type: application/json")
    try:
        text = request.body.decode()
    except UnicodeDecodeError:
        raise HttpError(INVALID_INPUT, "the body must be UTF-8") from None
    faults: list[str] = []
    values: dict[str, Any] = load_object(text, MAX_BODY_BYTES, faults)
    if faults:
        raise HttpError(INVALID_INPUT, f"the body {faults[0]}", errors=[FieldFault("", faults[0])])
    return checked(model, values)


def _vm_name(request: Request, vm_id: str) -> str:
    """Return the VM that is meant: the path's name, or the full id that must then be of that name.

    The id can't stand in the path: Azure decodes %2F before it routes (azure-functions-host#5619).
    """
    name = request.route["name"]
    if vm_id and name_of(vm_id) != name.lower():
        raise InputError([FieldFault("vm_id", f"must be of a VM named {name[:64]!r}", json.dumps(vm_id))])
    return vm_id or name


def _moment(name: str, when: Any, now: Any) -> Any:
    try:
        return back(when, now)
    except OverflowError:
        raise InputError([FieldFault(name, "must be a moment of this era", str(when))]) from None
