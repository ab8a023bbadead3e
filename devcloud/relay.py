"""A stretch of network that can fail: passes TCP connections on to one place until it is cut.

Stands for a firewall in the way (packets vanish) and for a broken link (connections end). Looks into nothing.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import Enum

_CHUNK_BYTES = 65_536
_BACKLOG = 1_024


class Passage(Enum):
    """What becomes of a connection: it passes, it is taken and never answered, or it ends at once."""

    OPEN = "open"
    SILENT = "silent"
    BROKEN = "broken"


class Relay:
    """Listens on ``host``, on a free port, and passes on to ``target_host:target_port``."""

    def __init__(self, host: str, target_host: str, target_port: int) -> None:
        self.port = 0
        self._host = host
        self._target = (target_host, target_port)
        self._passage = Passage.OPEN
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._take, self._host, 0, backlog=_BACKLOG)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Listen no more and end every connection; safe to call twice."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        await self._end_connections()

    async def set_passage(self, passage: Passage) -> None:
        """Let connections pass or fail from now on; those that are there end where it changes."""
        if passage is not self._passage:
            self._passage = passage
            await self._end_connections()

    async def _end_connections(self) -> None:
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward: asyncio.StreamWriter | None = None
        try:
            if self._passage is Passage.OPEN:
                back, onward = await asyncio.open_connection(*self._target)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(_pass_on(reader, onward))
                    tasks.create_task(_pass_on(back, writer))
            elif self._passage is Passage.SILENT:
                while await reader.read(_CHUNK_BYTES):
                    pass
        except* OSError:
            pass  # either side has gone
        finally:
            for end in (writer, onward):
                if end is not None:
                    end.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    with suppress(OSError):
        writer.write_eof()
