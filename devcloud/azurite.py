"""Starts and stops Azurite, Microsoft's own storage emulator, with TLS and bearer tokens.

Only runs it: the tables and queues in it are the product's affair.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from devcloud.app_process import end_with_parent
from devcloud.tls import Certificates

ACCOUNT = "devstoreaccount1"
_SERVICES = ("Blob", "Queue", "Table")
# Azurite takes port 0 and then says which port it got: no race for a free one.
_LISTENING = re.compile(r"Azurite (\w+) service is successfully listening at (https://\S+)")
_STOP_SECONDS = 5


class AzuriteError(Exception):
    """Azurite didn't start; the message ends with what it last said."""


class Azurite:
    """One Azurite process, in memory only. ``node_command`` runs Node, ``package`` is Azurite's directory.

    Tokens must be for ``https://storage.azure.com`` (a trailing slash is free) or for
    ``https://devstoreaccount1.table|queue.core.windows.net``, from an issuer under https://sts.windows.net/.
    """

    def __init__(
        self,
        directory: Path,
        certificates: Certificates,
        node_command: Sequence[str] = ("node",),
        host: str = "127.0.0.1",
        package: Path = Path(".tools/node_modules/azurite"),
    ) -> None:
        self._directory = directory
        self._certificates = certificates
        self._node_command = list(node_command)
        self._host = host
        self._script = package.absolute() / "dist" / "src" / "azurite.js"
        self._urls: dict[str, str] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._listening = asyncio.Event()
        self._said: deque[str] = deque(maxlen=20)

    @property
    def table_url(self) -> str:
        """The account's table endpoint."""
        return f"{self._urls['Table']}/{ACCOUNT}"

    @property
    def queue_url(self) -> str:
        """The account's queue endpoint."""
        return f"{self._urls['Queue']}/{ACCOUNT}"

    async def start(self, timeout_seconds: float = 30) -> None:
        """Start it and wait until all its ports answer; raises AzuriteError."""
        if not self._script.is_file():
            raise AzuriteError(f"azurite: {self._script} is not there; install the npm package first")
        self._directory.mkdir(parents=True, exist_ok=True)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command(),
                cwd=self._directory,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                # Its own session: Ctrl-C at a terminal must not end it before those who still use it.
                start_new_session=True,
                preexec_fn=end_with_parent,
                env={name: value for name, value in os.environ.items() if name != "AZURITE_ACCOUNTS"},
            )
        except OSError as problem:
            raise AzuriteError(f"azurite: {self._node_command[0]} can't be run: {problem}") from problem
        self._reader = asyncio.create_task(self._read(self._process))
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._listening.wait()
        except TimeoutError:
            await self.stop()
            raise AzuriteError(f"azurite: no answer within {timeout_seconds} s{self._tail()}") from None
        except BaseException:
            await self.stop()
            raise
        if len(self._urls) < len(_SERVICES):
            code = await self._process.wait()
            await self.stop()
            raise AzuriteError(f"azurite: ended with code {code} while starting{self._tail()}")

    async def stop(self) -> None:
        """End the process, by force where it doesn't end by itself; safe to call twice."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._reader is not None:
            await self._reader
            self._reader = None

    def _command(self) -> list[str]:
        hosts = [option for name in ("blob", "queue", "table") for option in (f"--{name}Host", self._host)]
        ports = [option for name in ("blob", "queue", "table") for option in (f"--{name}Port", "0")]
        files = ["--cert", str(self._certificates.cert_file.absolute())]
        files += ["--key", str(self._certificates.key_file.absolute())]
        modes = ["--oauth", "basic", "--skipApiVersionCheck", "--inMemoryPersistence"]
        return [
            *self._node_command,
            str(self._script),
            *hosts,
            *ports,
            *files,
            *modes,
            "--disableTelemetry",
            "--silent",
        ]

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Follow its output to the end: the ports it got, and its last words."""
        assert process.stdout is not None
        async for line in process.stdout:
            text = line.decode(errors="replace").rstrip()
            self._said.append(text)
            found = _LISTENING.search(text)
            if found:
                self._urls[found[1]] = found[2]
                if len(self._urls) == len(_SERVICES):
                    self._listening.set()
        self._listening.set()  # it ended: whoever waits must look

    def _tail(self) -> str:
        return "; it said:\n" + "\n".join(self._said) if self._said else "; it said nothing"
