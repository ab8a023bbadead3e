"""A client of the HTTP API in the test's process: finds the route as a host does, and holds every answer
against the OpenAPI description."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from jsonschema import Draft202012Validator

from tests.fakes import World
from vm_watchdog.app import Watchdog
from vm_watchdog.http_message import Reply, Request
from vm_watchdog.openapi import document
from vm_watchdog.problems import CONTENT_TYPE
from vm_watchdog.routes import ROUTES

DESCRIPTION = document()


@dataclass(frozen=True)
class Answer:
    """What came back: the reply, and its body where that is JSON."""

    reply: Reply
    body: Any

    @property
    def status(self) -> int:
        return self.reply.status

    @property
    def faults(self) -> dict[str, str]:
        """A problem's faults: field -> what it must be."""
        assert self.reply.content_type == CONTENT_TYPE
        return {error["field"]: error["problem"] for error in self.body["errors"]}

    @property
    def kind(self) -> str:
        """A problem's kind."""
        return str(self.body["type"]).rsplit(":", 1)[-1]


@dataclass
class Client:
    """Calls one watchdog of ``world``, so that what it remembers between requests counts."""

    world: World
    watchdog: Watchdog = field(init=False)

    def __post_init__(self) -> None:
        self.watchdog = self.world.watchdog

    def with_sign_in(self) -> None:
        """From here on, App Service authentication is on."""
        self.watchdog = replace(self.watchdog, has_sign_in=True)

    def observing(self) -> None:
        """From here on, the watchdog only observes."""
        self.watchdog = replace(self.watchdog, options=replace(self.watchdog.options, may_act=False))

    async def get(self, url: str, **headers: str) -> Answer:
        return await self.call("GET", url, headers=headers)

    async def post(self, url: str, body: object, **headers: str) -> Answer:
        sent = {"content-type": "application/json", **_named(headers)}
        return await self.call("POST", url, json.dumps(body).encode(), sent)

    async def delete(self, url: str, **headers: str) -> Answer:
        return await self.call("DELETE", url, headers=headers)

    async def call(
        self, method: str, url: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send anything at all."""
        parts = urlsplit(url)
        name, route = find_route(method, parts.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        request = Request(method, parts.path, route, query, _named(headers or {}), body)
        reply = await self.watchdog.answer(name, request)
        return checked(name, method, reply)


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def find_route(method: str, path: str) -> tuple[str, dict[str, str]]:
    """The route of a path; of several, the one that knows the method, else one that will refuse it."""
    found = []
    for name, route in ROUTES.items():
        pattern = re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", route.path.replace(".", r"\."))
        match = re.fullmatch(f"/api/{pattern}", path)
        if match:
            values = {key: unquote(value) for key, value in match.groupdict().items()}
            found.append((method not in route.methods, name, values))
    assert found, f"no route for {path}"
    _, name, values = min(found, key=lambda one: one[0])
    return name, values


def checked(name: str, method: str, reply: Reply) -> Answer:
    """Hold a reply against the description of its operation."""
    if method not in ROUTES[name].methods:
        method = ROUTES[name].methods[0]
    operation = DESCRIPTION["paths"][f"/api/{ROUTES[name].path}"][method.lower()]
    content = operation["responses"][str(reply.status)]["content"]
    schema = content[reply.content_type.partition(";")[0]]["schema"]
    if "json" not in reply.content_type:
        return Answer(reply, None)
    body = json.loads(reply.body)
    validate(body, schema)
    return Answer(reply, body)


def validate(value: object, schema: Mapping[str, Any]) -> None:
    """Hold a value against a schema of the description; fields that it does not know are faults too."""
    Draft202012Validator({**schema, "components": CLOSED["components"]}).validate(value)


def _closed(schema: Any) -> Any:
    """The same schemas, but without room for fields that are not described."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(item) for key, item in schema.items()}
    if "properties" in closed and closed.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


CLOSED = _closed(DESCRIPTION)
