"""A receiver for alert webhooks: keeps what arrives, and can be told to fail. Understands no alert."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiohttp import web


@dataclass(frozen=True, slots=True)
class Received:
    """One request to ``/hook/NAME``; ``status`` is what it was answered."""

    name: str
    at: datetime
    headers: dict[str, str]
    body: Any
    status: int


class WebhookSink:
    """An HTTP server on ``host``; port 0 takes a free one."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.url = ""
        self._host = host
        self._port = port
        self._received: list[Received] = []
        self._refusals: list[tuple[int, dict[str, str]]] = []
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None

    def hook_url(self, name: str) -> str:
        """The address that a channel is pointed at."""
        return f"{self.url}/hook/{name}"

    @property
    def received(self) -> list[Received]:
        """All requests, refused ones too, oldest first."""
        return list(self._received)

    def accepted(self, name: str = "") -> list[Received]:
        """The requests that were answered 200, of one hook or of all."""
        return [entry for entry in self._received if entry.status == 200 and name in ("", entry.name)]

    def refuse_next(self, times: int, status: int, headers: dict[str, str] | None = None) -> None:
        """Answer the next ``times`` requests with ``status``."""
        self._refusals += [(status, headers or {})] * times

    async def wait_for(self, count: int, name: str = "", timeout_seconds: float = 10) -> list[Received]:
        """Wait until ``count`` requests were accepted; raises TimeoutError."""
        async with asyncio.timeout(timeout_seconds), self._changed:
            await self._changed.wait_for(lambda: len(self.accepted(name)) >= count)
            return self.accepted(name)

    async def wait_until(self, wanted: Callable[[Received], bool], timeout_seconds: float) -> Received:
        """Wait for an accepted request that is ``wanted``; raises TimeoutError."""

        def found() -> Received | None:
            return next((entry for entry in self.accepted() if wanted(entry)), None)

        async with asyncio.timeout(timeout_seconds), self._changed:
            await self._changed.wait_for(lambda: found() is not None)
            entry = found()
            assert entry is not None
            return entry

    async def start(self) -> None:
        """Listen."""
        app = web.Application()
        app.router.add_post("/hook/{name}", self._hook)
        app.router.add_get("/received", self._list)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def stop(self) -> None:
        """Stop listening; what was received stays."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _hook(self, request: web.Request) -> web.Response:
        try:
            body: Any = await request.json()
        except ValueError:
            return web.json_response({"error": "the body must be JSON"}, status=400)
        status, headers = self._refusals.pop(0) if self._refusals else (200, {})
        name = request.match_info["name"]
        async with self._changed:
            self._received.append(Received(name, datetime.now(UTC), dict(request.headers), body, status))
            self._changed.notify_all()
        return web.json_response({"ok": status == 200}, status=status, headers=headers)

    async def _list(self, _request: web.Request) -> web.Response:
        entries = [
            {"name": entry.name, "at": entry.at.isoformat(), "status": entry.status, "body": entry.body}
            for entry in self._received
        ]
        return web.json_response(entries)
