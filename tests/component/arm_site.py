"""What the tests of the watchdog's ARM adapters share: clients, an agent that obeys, an ARM that does not."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from aiohttp import web
from azure.mgmt.compute.aio import ComputeManagementClient

from devcloud.calls import Call
from devcloud.listener import Listener
from tests.component.devcloud_site import Site
from vm_watchdog.adapters.compute_inventory import ComputeInventory
from vm_watchdog.ports import Target

GROUP = "rg-devcloud"
T = TypeVar("T")

AN_AGENT = """#!/bin/sh
echo "$@" > "$0.called"
echo "some chatter"
cat "$0.says"
exit "$(cat "$0.exit")"
"""


class OneClient:
    """Gives the test's client for every subscription: it trusts the local certificates."""

    def __init__(self, client: ComputeManagementClient) -> None:
        self._client = client

    async def get(self, _subscription: str) -> ComputeManagementClient:
        return self._client


class Agent:
    """``vm-agent`` on the PATH of the scripts: a real program that says what the test tells it to."""

    def __init__(self, directory: Path) -> None:
        self._program = directory / "vm-agent"
        self._program.write_text(AN_AGENT)
        self._program.chmod(0o755)
        self.answers('VM_AGENT_RESULT {"result":"restarted","unit":"web.service"}')

    def answers(self, output: str, exit_code: int = 0) -> None:
        """Say ``output`` from now on."""
        self._program.with_name("vm-agent.says").write_text(output + "\n")
        self._program.with_name("vm-agent.exit").write_text(str(exit_code))

    @property
    def called_with(self) -> str | None:
        """The arguments of the last call."""
        called = self._program.with_name("vm-agent.called")
        return called.read_text().strip() if called.exists() else None

    async def was_called(self) -> bool:
        """Tell whether it ran, to the end of its first line."""
        return bool(self.called_with)


class OddArm:
    """An ARM that answers every GET with ``body``, on two hosts; ``asked`` are the hosts' names.

    It knows no managed run commands; ``answer_posts_with`` says what becomes of actions.
    """

    def __init__(self, site: Site) -> None:
        self.body: object = {}
        self.asked: list[str] = []
        self.answer_posts_with: Callable[[web.Request], Awaitable[web.Response]] | None = None
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        app.router.add_post("/{path:.*}", self._accept)
        app.router.add_put("/{path:.*}", self._refuse)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(site.cloud.certificates.cert_file, site.cloud.certificates.key_file)
        self.listener = Listener(app, ["127.0.0.1", "127.0.0.2"], 0, tls)

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.url.host or "")
        if isinstance(self.body, str):
            return web.Response(text=self.body, content_type="application/json")
        return web.json_response(self.body)

    async def _refuse(self, _request: web.Request) -> web.Response:
        return web.json_response({"error": {"code": "NotFound", "message": "no such type"}}, status=404)

    async def _accept(self, request: web.Request) -> web.Response:
        assert self.answer_posts_with is not None
        return await self.answer_posts_with(request)


def id_of(site: Site, name: str) -> str:
    return site.vms[name].spec.vm_id.lower()


async def target_of(inventory: ComputeInventory, site: Site, name: str = "web-1") -> Target:
    target = await inventory.get_target(id_of(site, name))
    assert target is not None
    return target


async def clear_commands(site: Site) -> None:
    """Delete every run command of web-1."""
    commands = site.compute.virtual_machine_run_commands
    for name in await command_names(site):
        await (await commands.begin_delete(GROUP, "web-1", name)).result()


async def command_names(site: Site) -> list[str]:
    commands = site.compute.virtual_machine_run_commands
    return [str(one.name) async for one in commands.list_by_virtual_machine(GROUP, "web-1")]


async def until(look: Callable[[], Awaitable[T]]) -> T:
    """Look until there is something to see: ARM tells nobody when a script or a deletion has ended."""
    async with asyncio.timeout(5):
        while not (seen := await look()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return seen


async def nothing(look: Awaitable[object]) -> bool:
    """Tell whether there is nothing to see."""
    return not await look


def calls_of(site: Site, operation: str, since: int = 0) -> list[Call]:
    """The calls of exactly this operation, without the first ``since`` of them."""
    calls = site.cloud.calls.matching("arm", operation)
    return [call for call in calls if call.operation == operation][since:]
