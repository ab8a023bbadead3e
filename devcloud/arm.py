"""What every Azure Resource Manager call shares: errors, tokens, and operations that take a while.

Polling follows ARM's asynchronous pattern: 202 or 201 with Location, Azure-AsyncOperation and Retry-After.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from devcloud.calls import Handler
from devcloud.tokens import TENANT_ID, TokenRefused, Tokens
from devcloud.vms.base import VmSpec

CALLER = web.RequestKey("caller", dict)  # the claims of the token
AUDIENCES = (
    "https://management.azure.com",
    "https://management.core.windows.net",
)
_KEPT = 2_000  # operations that can still be polled; ARM keeps them for a day
COMPUTE = "/subscriptions/{subscription}/providers/Microsoft.Compute"


class ArmError(Exception):
    """An error as ARM answers it: HTTP status, code and message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def arm_error(_status: int, code: str, message: str) -> dict[str, Any]:
    """ARM's error body."""
    return {"error": {"code": code, "message": message}}


def arm_guard(
    tokens: Tokens, audiences: Callable[[], Collection[str]], check: Callable[[web.Request], None]
) -> Any:
    """The middleware that demands a token, an api-version and what ``check`` does; words ArmError as ARM."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            claims = tokens.verify(request.headers.get("Authorization"), [*AUDIENCES, *audiences()])
            request[CALLER] = dict(claims)
        except TokenRefused as refused:
            return _unauthorized(refused)
        if not request.query.get("api-version"):
            message = "The api-version query parameter (?api-version=) is required for all requests."
            return _respond(ArmError(400, "MissingApiVersionParameter", message))
        try:
            check(request)
            return await handler(request)
        except ArmError as error:
            return _respond(error)
        except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
            message = f"No route of the local Azure for {request.method} {request.path}."
            return _respond(ArmError(error.status, "InvalidResourceType", message))

    return middleware


def _respond(error: ArmError) -> web.Response:
    return web.json_response(arm_error(error.status, error.code, str(error)), status=error.status)


def _unauthorized(refused: TokenRefused) -> web.Response:
    reason = str(refused)
    code = "InvalidAuthenticationTokenAudience" if refused.wrong_audience else "InvalidAuthenticationToken"
    if "missing" in reason:
        code = "AuthenticationFailed"
    elif "expired" in reason:
        code = "ExpiredAuthenticationToken"
    response = _respond(ArmError(401, code, f"Authentication failed: {reason}."))
    response.headers["WWW-Authenticate"] = (
        f'Bearer authorization_uri="https://login.windows.net/{TENANT_ID}", '
        f'error="invalid_token", error_description="{code}"'
    )
    return response


@dataclass(slots=True)
class Operation:
    """Work that was accepted: its result is a body (or None), or an ArmError."""

    task: asyncio.Task[dict[str, Any] | None]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended_at: datetime | None = None

    @property
    def error(self) -> ArmError | None:
        """Why it failed; None while it runs and after success."""
        if not self.task.done():
            return None
        if self.task.cancelled():
            return ArmError(409, "OperationPreempted", "The operation was preempted by a later one.")
        failure = self.task.exception()
        if failure is None or isinstance(failure, ArmError):
            return failure
        return ArmError(500, "InternalExecutionError", f"An internal execution error occurred: {failure!r}")

    @property
    def status(self) -> str:
        """ARM's word for where it stands."""
        if not self.task.done():
            return "InProgress"
        if self.task.cancelled():
            return "Canceled"
        return "Failed" if self.error else "Succeeded"


class Operations:
    """All operations of a run, and the two ways to poll them."""

    def __init__(self, retry_after_seconds: float = 1) -> None:
        if retry_after_seconds <= 0:
            # azure-core takes 0 for "not said" and then waits 30 s.
            raise ValueError(f"retry_after_seconds: got {retry_after_seconds}, must be more than 0")
        self.retry_after_seconds = retry_after_seconds
        self._operations: dict[str, Operation] = {}
        self._changing: Counter[str] = Counter()  # by lower-case name of the VM

    def add_routes(self, app: web.Application) -> None:
        """Serve the polling address."""
        app.router.add_get(COMPUTE + "/locations/{location}/operations/{operation}", self.poll)

    def is_changing(self, vm_name: str) -> bool:
        """Whether an operation that changes the VM is under way: its provisioning state is Updating then."""
        return self._changing[vm_name.lower()] > 0

    def start(self, work: Coroutine[Any, Any, dict[str, Any] | None], *, changes: str = "") -> Operation:
        """Begin ``work`` in the background; ``changes`` names the VM that is being changed by it."""
        operation = Operation(asyncio.create_task(work))
        self._changing[changes.lower()] += 1

        def ended(task: asyncio.Task[Any]) -> None:
            self._changing[changes.lower()] -= 1
            operation.ended_at = datetime.now(UTC)
            if not task.cancelled():
                task.exception()  # read here, so that a failure nobody polls isn't reported as lost

        operation.task.add_done_callback(ended)
        self._operations[operation.id] = operation
        if len(self._operations) > _KEPT:
            self._forget_oldest()
        return operation

    def _forget_oldest(self) -> None:
        ended = [operation.id for operation in self._operations.values() if operation.task.done()]
        for operation_id in ended[: len(self._operations) - _KEPT]:
            del self._operations[operation_id]

    async def close(self) -> None:
        """End everything that still runs."""
        tasks = [operation.task for operation in self._operations.values() if not operation.task.done()]
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)

    def accepted(
        self,
        request: web.Request,
        operation: Operation,
        spec: VmSpec,
        *,
        status: int = 202,
        body: dict[str, Any] | None = None,
    ) -> web.Response:
        """The answer that says where to poll."""
        base = f"{request.url.origin()}{COMPUTE.format(subscription=spec.subscription_id)}"
        version = request.query["api-version"]
        address = f"{base}/locations/{spec.location}/operations/{operation.id}?api-version={version}"
        headers = {
            "Azure-AsyncOperation": address,
            # Whole seconds: azure-mgmt-compute reads this one as an int, the ones of polls as a float.
            "Retry-After": str(math.ceil(self.retry_after_seconds)),
        }
        if status == 202:
            headers["Location"] = address + "&monitor=true"
        if body is None:
            return web.Response(status=status, headers=headers)
        return web.json_response(body, status=status, headers=headers)

    async def poll(self, request: web.Request) -> web.Response:
        """Azure-AsyncOperation: always 200 with a status. Location (monitor=true): 202, then the result."""
        operation = self._operations.get(request.match_info["operation"])
        if operation is None:
            name = request.match_info["operation"]
            raise ArmError(404, "NotFound", f"The entity was not found. Operation id: {name}")
        running = not operation.task.done()
        headers = {"Retry-After": f"{self.retry_after_seconds:g}"} if running else {}
        if request.query.get("monitor") != "true":
            return web.json_response(_status_body(operation), headers=headers)
        if running:
            return web.Response(status=202, headers=headers | {"Location": str(request.url)})
        if operation.error is not None:
            raise operation.error
        result = operation.task.result()
        return web.Response(status=200) if result is None else web.json_response(result)


def _status_body(operation: Operation) -> dict[str, Any]:
    body: dict[str, Any] = {
        "startTime": operation.started_at.isoformat(),
        "status": operation.status,
        "name": operation.id,
    }
    if operation.ended_at is not None:
        body["endTime"] = operation.ended_at.isoformat()
    error = operation.error
    if error is not None:
        body |= arm_error(error.status, error.code, str(error))
    elif operation.task.done() and operation.task.result() is not None:
        body["properties"] = {"output": operation.task.result()}
    return body
