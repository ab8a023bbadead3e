"""The host itself: loads the app, starts its listeners and its HTTP server, stops them in order."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import azure.functions.timer as timer_binding
from aiohttp import web

from .app import (
    MODULE_NAME,
    HostedFunction,
    HttpTrigger,
    QueueTrigger,
    TimerTrigger,
    load_module,
    read_functions,
)
from .connections import QueueConnection, connect
from .errors import HostError
from .host_json import HostSettings, read_host_json
from .http import FUNCTION_KEY_SETTING, make_http_app
from .invocation import Invoker
from .queues import QueueListener, function_message
from .timers import TimerListener

log = logging.getLogger("devcloud.functions_host")


class _Listener(Protocol):
    async def run(self) -> None: ...

    def stop(self) -> None: ...


class FunctionsHost:
    """Hosts the app in ``app_directory``.

    ``environ`` holds the app settings that the host itself reads (connections, keys, %NAME%). The functions
    read the process's environment as they do in Azure, so a process that hosts one app gives ``os.environ``.
    """

    def __init__(
        self,
        app_directory: Path,
        environ: Mapping[str, str],
        *,
        addresses: Sequence[str] = ("127.0.0.1",),
        port: int = 0,
        max_polling_interval_seconds: float | None = None,
    ) -> None:
        self._directory = app_directory.resolve()
        self._environ = environ
        self._addresses = tuple(addresses)
        self._port = port
        self._max_polling_interval_seconds = max_polling_interval_seconds
        self._functions: dict[str, HostedFunction] = {}
        self._invoker = Invoker(self._directory)
        self._connections: dict[str, QueueConnection] = {}
        self._listeners: list[_Listener] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None
        self._module: ModuleType | None = None  # kept until the process ends: see __main__.py
        self._replaced_module: ModuleType | None = None

    @property
    def functions(self) -> Mapping[str, HostedFunction]:
        """The app's functions by name, once started."""
        return self._functions

    @property
    def url(self) -> str:
        """Where the HTTP functions are served first, once started."""
        return f"http://{self._addresses[0]}:{self._port}"

    async def start(self) -> None:
        """Load the app and listen; raises ``HostError`` with every fault, or what the app's import raises."""
        settings = self._read_settings()
        self._replaced_module = sys.modules.get(MODULE_NAME)
        try:
            self._module = load_module(self._directory)
            found = read_functions(self._module, self._environ)
            self._functions = {function.name: function for function in found}
            self._make_listeners(settings)
            await self._serve_http(settings)
        except BaseException:
            await self.stop()
            raise
        self._tasks = [asyncio.create_task(listener.run()) for listener in self._listeners]
        log.info("functions host started", extra={"url": self.url, "functions": sorted(self._functions)})

    async def stop(self, grace_seconds: float = 10.0) -> bool:
        """Take no more triggers, let running functions finish; answers whether all of them did in time."""
        for listener in self._listeners:
            listener.stop()
        if self._runner is not None:
            for site in list(self._runner.sites):
                await site.stop()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_seconds
        if self._tasks:
            # A listener ends when the messages it took are settled, or its timer's run is over.
            await asyncio.wait(self._tasks, timeout=grace_seconds)
        finished = await self._invoker.drain(max(0.0, deadline - loop.time()))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
        for connection in self._connections.values():
            await connection.close()
        self._forget_module()
        return finished

    async def invoke(self, name: str, value: Any = None) -> Any:
        """Run one function now and answer its value, or raise its error.

        ``value`` is the message's body (text or bytes) for a queue function, an ``HttpRequest`` for an HTTP
        one, and nothing for a timer.
        """
        function = self._functions[name]
        argument = value
        if isinstance(function.trigger, TimerTrigger):
            argument = timer_binding.TimerRequest(past_due=False)
        elif isinstance(function.trigger, QueueTrigger):
            argument = function_message(id="invoked", body=value, dequeue_count=1)
        outcome = await self._invoker.invoke(function, argument)
        if outcome.error is not None:
            raise outcome.error
        return outcome.value

    def _read_settings(self) -> HostSettings:
        settings = read_host_json(self._directory / "host.json")
        if self._max_polling_interval_seconds is not None:
            queues = replace(
                settings.queues, max_polling_interval_seconds=max(0.1, self._max_polling_interval_seconds)
            )
            settings = replace(settings, queues=queues)
        return settings

    def _make_listeners(self, settings: HostSettings) -> None:
        faults: list[str] = []
        for function in self._functions.values():
            trigger = function.trigger
            if isinstance(trigger, TimerTrigger):
                self._listeners.append(TimerListener(function, trigger, self._invoker))
            elif isinstance(trigger, QueueTrigger):
                try:
                    connection = self._connection(trigger.connection)
                except HostError as error:
                    faults.extend(f"function {function.name}: {fault}" for fault in error.faults)
                    continue
                self._listeners.append(
                    QueueListener(
                        function, trigger.queue_name, connection.service, settings.queues, self._invoker
                    )
                )
        if faults:
            raise HostError(faults)

    def _connection(self, prefix: str) -> QueueConnection:
        if prefix not in self._connections:
            self._connections[prefix] = connect(prefix, self._environ)
        return self._connections[prefix]

    async def _serve_http(self, settings: HostSettings) -> None:
        triggers = {
            function: function.trigger
            for function in self._functions.values()
            if isinstance(function.trigger, HttpTrigger)
        }
        locked = [function.name for function, trigger in triggers.items() if trigger.auth_level == "function"]
        if locked and not self._environ.get(FUNCTION_KEY_SETTING):
            log.warning(
                "no function key is set, so these functions refuse every request",
                extra={"setting": FUNCTION_KEY_SETTING, "functions": locked},
            )
        application = make_http_app(triggers, self._invoker, settings.route_prefix, self._environ)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        for address in self._addresses:
            await web.TCPSite(self._runner, address, self._port).start()
            self._port = self._runner.addresses[0][1]  # port 0 is chosen once, then the same everywhere

    def _forget_module(self) -> None:
        if str(self._directory) in sys.path:
            sys.path.remove(str(self._directory))
        sys.modules.pop(MODULE_NAME, None)
        if self._replaced_module is not None:
            sys.modules[MODULE_NAME] = self._replaced_module
