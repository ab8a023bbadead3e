"""The record of every call to the local Azure, and the middleware that keeps it and applies faults.

An operation's name is the name of its handler function (``run_command``, ``track``, ``query``), and its VM
is the route's ``vm`` part: faults and records are addressed by those two.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from devcloud.faults import PATH, Fault, Faults, is_operation

FAULT = web.RequestKey("fault", Fault)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
# (status, code, message) -> the service's own error body
ErrorBody = Callable[[int, str, str], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Call:
    """One request as the local Azure saw it; ``status`` 0 where it got no answer."""

    at: datetime
    service: str
    operation: str
    vm: str
    method: str
    path: str
    status: int


class CallLog:
    """The newest calls, and a way to wait for the next ones without polling."""

    def __init__(self, keep: int = 20_000) -> None:
        self._calls: deque[Call] = deque(maxlen=keep)
        self._changed = asyncio.Condition()

    async def add(self, call: Call) -> None:
        """Record ``call`` and wake whoever waits."""
        async with self._changed:
            self._calls.append(call)
            self._changed.notify_all()

    def matching(self, service: str = "*", operation: str = "*", vm: str = "*") -> list[Call]:
        """The recorded calls that match, oldest first."""
        return [
            call
            for call in self._calls
            if service in ("*", call.service)
            and is_operation(call.operation, operation)
            and (vm == "*" or vm.lower() == call.vm.lower())
        ]

    async def wait_for(
        self, service: str, operation: str, *, vm: str = "*", count: int = 1, timeout_seconds: float = 10
    ) -> list[Call]:
        """Wait until ``count`` matching calls were recorded; raises TimeoutError."""
        async with asyncio.timeout(timeout_seconds), self._changed:
            await self._changed.wait_for(lambda: len(self.matching(service, operation, vm)) >= count)
            return self.matching(service, operation, vm)


def observed(service: str, faults: Faults, calls: CallLog, error_body: ErrorBody) -> Any:
    """The middleware of every service: request id, fault instead of the answer, record."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path == PATH:
            return await handler(request)
        operation = getattr(request.match_info.handler, "__name__", "unknown")
        vm = request.match_info.get("vm", "")
        status = 0
        try:
            response = await _answer(request, handler, operation, vm)
        except web.HTTPException as refusal:
            status = refusal.status
            raise
        else:
            gone = request.transport is None or request.transport.is_closing()
            status = 0 if gone else response.status
            return response
        finally:
            at = datetime.now(UTC)
            await calls.add(Call(at, service, operation, vm, request.method, request.path_qs, status))

    async def _answer(request: web.Request, handler: Handler, operation: str, vm: str) -> web.StreamResponse:
        fault = faults.take(service, operation, vm)
        if fault is None:
            return _with_id(await handler(request))
        if fault.delay_seconds:
            await asyncio.sleep(fault.delay_seconds)
        if fault.mode in ("disconnect", "answer_lost"):
            if fault.mode == "answer_lost":
                await handler(request)
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)  # reaches nobody
        if fault.status and fault.mode != "partial":
            code = fault.error_code or f"Fault{fault.status}"
            body = error_body(fault.status, code, f"{code}: a fault that was asked for")
            return _with_id(web.json_response(body, status=fault.status, headers=fault.headers))
        request[FAULT] = fault
        return _with_id(await handler(request))

    return middleware


def _with_id(response: web.StreamResponse) -> web.StreamResponse:
    response.headers.setdefault("x-ms-request-id", str(uuid.uuid4()))
    return response
