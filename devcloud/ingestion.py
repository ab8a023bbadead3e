"""Application Insights' track endpoint: checks telemetry items and turns them into rows of the tables.

Answers item by item as the service does (200, 206, 400). Samples nothing; refuses what the service would cut.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from aiohttp import web

from devcloud.calls import FAULT
from devcloud.log_tables import LogTables, utc_now
from devcloud.telemetry_items import ItemRefused, row_of
from devcloud.tokens import TokenRefused, Tokens

AUDIENCES = ("https://monitor.azure.com",)
MAX_ITEMS = 64_000


def ingestion_error(status: int, _code: str, message: str) -> dict[str, Any]:
    """The body of an answer that takes nothing in."""
    errors = [{"index": 0, "statusCode": status, "message": message}]
    return {"itemsReceived": 0, "itemsAccepted": 0, "errors": errors}


class Ingestion:
    """The endpoint of one Application Insights resource."""

    def __init__(
        self,
        tables: LogTables,
        tokens: Tokens,
        *,
        instrumentation_key: str,
        tenant_columns: dict[str, str],
        require_entra: bool = False,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.require_entra = require_entra
        self._tables = tables
        self._tokens = tokens
        self._instrumentation_key = instrumentation_key
        self._tenant_columns = tenant_columns
        self._now = now

    def add_routes(self, app: web.Application) -> None:
        """Serve both versions of the path."""
        app.router.add_post("/v2.1/track", self.track)
        app.router.add_post("/v2/track", self.track)

    async def track(self, request: web.Request) -> web.Response:
        """Take a batch in: JSON array, single object or one object a line; gzip is undone by aiohttp."""
        authorization = request.headers.get("Authorization")
        if self.require_entra or authorization is not None:
            try:
                self._tokens.verify(authorization, AUDIENCES)
            except TokenRefused as refused:
                status = 403 if refused.wrong_audience else 401
                return web.json_response(ingestion_error(status, "", str(refused)), status=status)
        try:
            items = _items(await request.text(), request.content_type)
        except ValueError as problem:
            return web.json_response(ingestion_error(400, "", f"the body is not JSON: {problem}"), status=400)
        if not items or len(items) > MAX_ITEMS:
            message = f"got {len(items)} items, must be 1 to {MAX_ITEMS}"
            return web.json_response(ingestion_error(400, "", message), status=400)
        fault = request.get(FAULT)
        refuse_odd = (fault.status or 429) if fault is not None and fault.mode == "partial" else 0
        errors = self._take_in(items, refuse_odd)
        body = {
            "itemsReceived": len(items),
            "itemsAccepted": len(items) - len(errors),
            "appId": None,
            "errors": errors,
        }
        status = 200 if not errors else (206 if len(errors) < len(items) else errors[0]["statusCode"])
        return web.json_response(body, status=status)

    def _take_in(self, items: list[Any], refuse_odd: int) -> list[dict[str, Any]]:
        now = self._now()
        errors: list[dict[str, Any]] = []
        rows: dict[str, list[dict[str, Any]]] = {}
        for index, item in enumerate(items):
            if refuse_odd and index % 2:
                message = "a fault that was asked for"
                errors.append({"index": index, "statusCode": refuse_odd, "message": message})
                continue
            try:
                table, row = row_of(item, self._instrumentation_key, now)
            except ItemRefused as refused:
                errors.append({"index": index, "statusCode": refused.status, "message": str(refused)})
                continue
            rows.setdefault(table, []).append(row | self._tenant_columns)
        for table, batch in rows.items():
            self._tables.add(table, batch)
        return errors


def _items(text: str, content_type: str) -> list[Any]:
    if content_type == "application/x-json-stream":
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    body = json.loads(text)
    return body if isinstance(body, list) else [body]
