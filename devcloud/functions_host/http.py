"""Serves HTTP functions under ``/<routePrefix>/<route>``: keys, requests in, the function's answer out.

Two answers follow Azure rather than the HTTP textbook: a known route with another method is 404
(azure-functions-host#10098), and 401 and 500 have no body.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable, Mapping

import azure.functions as func
from aiohttp import web

from .app import HostedFunction, HttpTrigger
from .errors import HostError
from .invocation import Invoker

# The key for functions of level "function", and the one that opens those and "admin" too.
FUNCTION_KEY_SETTING = "FUNCTIONS_KEY"
MASTER_KEY_SETTING = "FUNCTIONS_MASTER_KEY"

# 100 MB, the Functions host's own maxRequestLength.
_LARGEST_BODY_BYTES = 100 * 1024 * 1024


def make_http_app(
    functions: Mapping[HostedFunction, HttpTrigger],
    invoker: Invoker,
    route_prefix: str,
    environ: Mapping[str, str],
) -> web.Application:
    """One aiohttp application with a route for each function and method."""
    application = web.Application(
        client_max_size=_LARGEST_BODY_BYTES, middlewares=[_not_found_for_other_methods]
    )
    faults = []
    for function, trigger in functions.items():
        try:
            path = "/" + "/".join(part for part in (route_prefix, _aiohttp_route(trigger.route)) if part)
        except ValueError as error:
            faults.append(f"function {function.name}: {error}")
            continue
        handler = _handler(function, _keys_for(trigger.auth_level, environ), invoker)
        for method in trigger.methods or ("*",):
            application.router.add_route(method, path, handler)
    if faults:
        raise HostError(faults)
    return application


def _aiohttp_route(route: str) -> str:
    """ASP.NET's ``{name}``, ``{name:int}`` and ``{*rest}``; raises ``ValueError`` for what else it allows."""

    def part(match: re.Match[str]) -> str:
        text = match[1]
        if re.fullmatch(r"\w+", text):
            return "{" + text + "}"
        if re.fullmatch(r"\w+:int", text):
            return "{" + text.removesuffix(":int") + r":-?\d+}"
        if re.fullmatch(r"\*\w+", text):
            return "{" + text[1:] + ":.*}"
        raise ValueError(
            f"route {route!r}: this host knows {{name}}, {{name:int}} and {{*rest}}, not {{{text}}}"
        )

    return re.sub(r"\{([^}]*)\}", part, route)


def _keys_for(auth_level: str, environ: Mapping[str, str]) -> tuple[str, ...] | None:
    """The keys that open a function of this level; None where it needs none."""
    if auth_level == "anonymous":
        return None
    settings = [MASTER_KEY_SETTING] + ([FUNCTION_KEY_SETTING] if auth_level == "function" else [])
    return tuple(key for setting in settings if (key := environ.get(setting)))


def _handler(
    function: HostedFunction, keys: tuple[str, ...] | None, invoker: Invoker
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        if keys is not None and not _is_key(_key_of(request), keys):
            return web.Response(status=401)
        outcome = await invoker.invoke(function, await _to_function(request))
        if outcome.error is not None:
            return web.Response(status=500)
        return _from_function(outcome.value)

    return handle


def _key_of(request: web.Request) -> str:
    return request.headers.get("x-functions-key") or request.query.get("code") or ""


def _is_key(given: str, keys: tuple[str, ...]) -> bool:
    # Every key is compared, and in constant time: how long a refusal takes must not tell how close it was.
    return sum(hmac.compare_digest(given.encode(), key.encode()) for key in keys) > 0


async def _to_function(request: web.Request) -> func.HttpRequest:
    return func.HttpRequest(
        method=request.method,
        url=str(request.url),
        headers={name: ",".join(request.headers.getall(name)) for name in request.headers},
        params={name: ",".join(request.query.getall(name)) for name in request.query},
        route_params=dict(request.match_info),
        body=await request.read(),
    )


def _from_function(value: object) -> web.Response:
    if value is None:
        return web.Response(status=204)
    if isinstance(value, str):
        return web.Response(text=value)
    if not isinstance(value, func.HttpResponse):
        return web.Response(status=500)
    response = web.Response(status=value.status_code, body=value.get_body())
    response.headers.extend(value.headers.items())
    if "content-type" not in value.headers:
        text = value.mimetype.startswith("text/")
        response.headers["Content-Type"] = (
            f"{value.mimetype}; charset={value.charset}" if text else value.mimetype
        )
    return response


@web.middleware
async def _not_found_for_other_methods(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except (web.HTTPMethodNotAllowed, web.HTTPNotFound):
        return web.Response(status=404)
