"""One aiohttp application on several addresses of this machine, all with the same port number."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from aiohttp import web


class Listener:
    """Serves ``app`` on ``hosts``; port 0 finds one that is free on all of them."""

    def __init__(
        self, app: web.Application, hosts: Sequence[str], port: int, tls: ssl.SSLContext | None = None
    ) -> None:
        self._app = app
        self._hosts = list(dict.fromkeys(hosts))
        self._tls = tls
        self._runner: web.AppRunner | None = None
        self.port = port

    @property
    def origins(self) -> list[str]:
        """``scheme://host:port`` of every address, in the order given."""
        scheme = "https" if self._tls else "http"
        return [f"{scheme}://{host}:{self.port}" for host in self._hosts]

    async def start(self) -> None:
        """Bind everything; raises OSError that names the address that can't be bound."""
        self._runner = web.AppRunner(self._app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        wanted = self.port
        for attempt in range(1, 11):
            try:
                await self._bind(self._runner, wanted)
            except OSError:
                for site in list(self._runner.sites):
                    await site.stop()
                # The port that was free on the first address may be taken on the next one.
                if wanted or len(self._hosts) == 1 or attempt == 10:
                    await self.stop()
                    raise
            else:
                return

    async def _bind(self, runner: web.AppRunner, port: int) -> None:
        for host in self._hosts:
            site = web.TCPSite(runner, host, port, ssl_context=self._tls)
            await site.start()
            port = port or int(runner.addresses[-1][1])
        self.port = port

    async def stop(self) -> None:
        """Close all connections and stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
