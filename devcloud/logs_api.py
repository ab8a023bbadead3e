"""The Log Analytics query API, ``POST /v1/workspaces/{id}/query``, over the local tables.

Shapes answers and errors as the service does. Knows no query.
"""

from __future__ import annotations

import asyncio
import json
import math
import uuid
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any

from aiohttp import web

from devcloud.calls import FAULT
from devcloud.kql import KqlEngine, KqlRefused, Result
from devcloud.tokens import TokenRefused, Tokens

AUDIENCES = ("https://api.loganalytics.io", "https://api.loganalytics.azure.com")


def logs_error(_status: int, code: str, message: str) -> dict[str, Any]:
    """The error body of the query API."""
    return {"error": {"message": message, "code": code, "correlationId": str(uuid.uuid4())}}


class LogsApi:
    """One workspace. ``audiences`` gives what tokens may be for, beside Azure's own audiences."""

    def __init__(
        self,
        engine: KqlEngine,
        tokens: Tokens,
        workspace_id: str,
        audiences: Callable[[], Collection[str]],
    ) -> None:
        self._engine = engine
        self._tokens = tokens
        self._workspace_id = workspace_id
        self._audiences = audiences

    def add_routes(self, app: web.Application) -> None:
        """Serve the query path, and 404 elsewhere as the service words it."""
        app.router.add_post("/v1/workspaces/{workspace}/query", self.query)
        app.router.add_route("*", "/{rest:.*}", self.not_found)

    async def not_found(self, _request: web.Request) -> web.Response:
        """Any other path."""
        return _error(404, "PathNotFoundError", "The requested path does not exist")

    async def query(self, request: web.Request) -> web.Response:
        """Run the KQL of the body and answer with its table."""
        try:
            self._tokens.verify(request.headers.get("Authorization"), [*AUDIENCES, *self._audiences()])
        except TokenRefused as refused:
            return _auth_error(refused)
        if request.match_info["workspace"].lower() != self._workspace_id.lower():
            return _error(404, "PathNotFoundError", "The requested path does not exist")
        fault = request.get(FAULT)
        if fault is not None and fault.mode == "no_content":
            return web.Response(status=204)
        try:
            kql, timespan = _read(await request.json())
            result = await asyncio.to_thread(self._engine.query, kql, timespan)
        except json.JSONDecodeError:
            return _error(400, "BadArgumentError", "The request body is not JSON")
        except KqlRefused as refused:
            return web.json_response(_refused(refused), status=400)
        body = _body(result)
        if fault is not None and fault.mode == "partial":
            body |= _partial_error()
        return web.json_response(body)


def _read(body: Any) -> tuple[str, str | None]:
    query = body.get("query") if isinstance(body, dict) else None
    if not isinstance(query, str) or not query.strip():
        raise KqlRefused("BadArgumentError", "query: missing or empty, must be KQL text")
    timespan = body.get("timespan")
    if timespan is not None and not isinstance(timespan, str):
        raise KqlRefused("BadArgumentError", f"timespan: got {timespan!r}, must be ISO 8601 text")
    return query, timespan


def _body(result: Result) -> dict[str, Any]:
    columns = [{"name": name, "type": kind} for name, kind in result.columns]
    rows = [[_json_value(value) for value in row] for row in result.rows]
    return {"tables": [{"name": "PrimaryResult", "columns": columns, "rows": rows}]}


def _json_value(value: Any) -> Any:
    if isinstance(value, datetime):
        text = value.replace(tzinfo=None).isoformat()
        return (text.rstrip("0") if "." in text else text) + "Z"
    if isinstance(value, timedelta):
        return _timespan(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def _timespan(value: timedelta) -> str:
    sign = "-" if value < timedelta(0) else ""
    value = abs(value)
    hours, rest = divmod(value.seconds, 3600)
    clock = f"{hours:02}:{rest // 60:02}:{rest % 60:02}"
    fraction = f".{value.microseconds:06}0" if value.microseconds else ""
    return f"{sign}{f'{value.days}.' if value.days else ''}{clock}{fraction}"


def _refused(refused: KqlRefused) -> dict[str, Any]:
    message = str(refused)
    if refused.code == "BadArgumentError":
        return logs_error(400, "BadArgumentError", message)
    body = logs_error(400, "BadArgumentError", "The request had some invalid properties")
    detail: dict[str, Any] = {"code": "SYN0002" if refused.code == "SyntaxError" else "SEM0100"}
    detail |= {"message": message, "line": refused.line, "pos": refused.position}
    what = "syntax" if refused.code == "SyntaxError" else "semantic"
    body["error"]["innererror"] = {
        "code": refused.code,
        "message": f"A {what} error occurred.",
        "innererror": detail,
    }
    return body


def _partial_error() -> dict[str, Any]:
    message = "Query result set has exceeded the internal data set size limit"
    inner = {"code": "-2133196797", "message": message}
    return {
        "error": {
            "code": "PartialError",
            "message": "There were some errors when processing your query.",
            "details": [{"code": "EngineError", "message": "Partial query failure", "innererror": inner}],
        }
    }


def _auth_error(refused: TokenRefused) -> web.Response:
    if refused.wrong_audience:
        return _error(403, "InsufficientAccessError", f"The provided credentials don't suffice: {refused}")
    response = _error(401, "AuthorizationRequiredError", f"Valid authentication was not provided: {refused}")
    # No `resource` hint: azure-core would treat it as a challenge to answer, which the service doesn't send.
    response.headers["WWW-Authenticate"] = 'Bearer error="invalid_token"'
    return response


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response(logs_error(status, code, message), status=status)
