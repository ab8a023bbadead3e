"""Azure Functions bindings of the watchdog, and nothing else: one line of work each.

The app is wired at its first trigger, not at import, so that the host indexes it fast and a fault in the
settings is an error of every trigger rather than an app without functions.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import azure.functions as func

if TYPE_CHECKING:
    from vm_watchdog.app import Watchdog
    from vm_watchdog.http_message import Reply, Request

app = func.FunctionApp()

STORAGE = "AzureWebJobsStorage"


@cache
def watchdog() -> Watchdog:
    """Wire the watchdog once a process."""
    from vm_watchdog import bootstrap, settings  # noqa: PLC0415

    return bootstrap.build(settings.from_environment())


@app.timer_trigger(schedule="%WATCHDOG_SCHEDULE%", arg_name="timer", use_monitor=True)
async def watchdog_tick(timer: func.TimerRequest) -> None:
    """Look at the whole fleet, on schedule."""
    await watchdog().tick()


@app.queue_trigger(arg_name="message", queue_name="watchdog-recheck", connection=STORAGE)
async def recheck_vm(message: func.QueueMessage) -> None:
    """Look at one VM: a backoff has run out, a restart wants verifying, or the VM has nudged."""
    await watchdog().recheck(message.get_body().decode())


@app.queue_trigger(arg_name="message", queue_name="watchdog-shards", connection=STORAGE)
async def evaluate_shard(message: func.QueueMessage) -> None:
    """Look at one part of a large fleet."""
    await watchdog().evaluate_shard(message.get_body().decode())


@app.queue_trigger(arg_name="message", queue_name="watchdog-alerts", connection=STORAGE)
async def send_alert(message: func.QueueMessage) -> None:
    """Deliver one alert; the host retries what fails."""
    await watchdog().send_alert(message.get_body().decode())


@app.route(route="live", methods=["GET", "HEAD"], auth_level=func.AuthLevel.ANONYMOUS)
async def live(req: func.HttpRequest) -> func.HttpResponse:
    """Tell an outside monitor whether the watchdog itself ran lately."""
    return await _answer("live", req)


@app.route(route="nudge", methods=["POST"], auth_level=func.AuthLevel.FUNCTION)
async def nudge(req: func.HttpRequest) -> func.HttpResponse:
    """Take an agent's word that something changed on its VM."""
    return await _answer("nudge", req)


@app.route(route="fleet", methods=["GET"], auth_level=func.AuthLevel.FUNCTION)
async def fleet(req: func.HttpRequest) -> func.HttpResponse:
    """Show the fleet: the dashboard, or JSON with ``?format=json``."""
    return await _answer("fleet", req)


@app.route(route="status", methods=["GET"], auth_level=func.AuthLevel.FUNCTION)
async def status(req: func.HttpRequest) -> func.HttpResponse:
    """Tell how the fleet stands, and whether the watchdog may act."""
    return await _answer("status", req)


@app.route(route="vms/{name}", methods=["GET"], auth_level=func.AuthLevel.FUNCTION)
async def vm(req: func.HttpRequest) -> func.HttpResponse:
    """Tell everything that is remembered of a VM."""
    return await _answer("vm", req)


@app.route(route="vms/{name}/history", methods=["GET"], auth_level=func.AuthLevel.FUNCTION)
async def vm_history(req: func.HttpRequest) -> func.HttpResponse:
    """Tell what happened to a VM, and why."""
    return await _answer("vm_history", req)


@app.route(route="vms/{name}/restart", methods=["POST"], auth_level=func.AuthLevel.FUNCTION)
async def restart(req: func.HttpRequest) -> func.HttpResponse:
    """Restart a unit because a person wants it."""
    return await _answer("restart", req)


@app.route(route="silences", methods=["GET"], auth_level=func.AuthLevel.FUNCTION)
async def silences(req: func.HttpRequest) -> func.HttpResponse:
    """List silences in force and to come."""
    return await _answer("silences", req)


@app.route(route="silences", methods=["POST"], auth_level=func.AuthLevel.FUNCTION)
async def add_silence(req: func.HttpRequest) -> func.HttpResponse:
    """Keep alerts, action or both from some VMs for a time."""
    return await _answer("add_silence", req)


@app.route(route="silences/{id}", methods=["DELETE"], auth_level=func.AuthLevel.FUNCTION)
async def end_silence(req: func.HttpRequest) -> func.HttpResponse:
    """End a silence now."""
    return await _answer("end_silence", req)


@app.route(route="thaw", methods=["POST"], auth_level=func.AuthLevel.FUNCTION)
async def thaw(req: func.HttpRequest) -> func.HttpResponse:
    """Overrule every freeze for a time."""
    return await _answer("thaw", req)


@app.route(route="openapi.json", methods=["GET"], auth_level=func.AuthLevel.FUNCTION)
async def openapi(req: func.HttpRequest) -> func.HttpResponse:
    """Describe these routes."""
    return await _answer("openapi", req)


async def _answer(route: str, req: func.HttpRequest) -> func.HttpResponse:
    return _response(await watchdog().answer(route, _request(req)))


def _request(req: func.HttpRequest) -> Request:
    from vm_watchdog.http_message import Request  # noqa: PLC0415

    return Request(
        method=req.method.upper(),
        path=urlsplit(req.url).path,
        route=req.route_params,
        query=req.params,
        headers={name.lower(): value for name, value in req.headers.items()},
        body=req.get_body(),
    )


def _response(reply: Reply) -> func.HttpResponse:
    headers = {
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        **reply.headers,
    }
    return func.HttpResponse(
        reply.body, status_code=reply.status, headers=headers, mimetype=reply.content_type
    )
