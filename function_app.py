"""Azure Functions bindings of the watchdog, and nothing else: one line of work each.

The app is wired at its first trigger, not at import, so that the host indexes it fast and a fault in the
settings is an error of every trigger rather than an app without functions.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import azure.functions as func

if TYPE_CHECKING:
    from vm_watchdog.app import Reply, Watchdog

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
    return _response(await watchdog().live())


@app.route(route="nudge", methods=["POST"], auth_level=func.AuthLevel.FUNCTION)
async def nudge(req: func.HttpRequest) -> func.HttpResponse:
    """Take an agent's word that something changed on its VM."""
    return _response(await watchdog().nudge(req.get_body().decode(errors="replace")))


@app.route(route="fleet", methods=["GET"], auth_level=func.AuthLevel.FUNCTION)
async def fleet(req: func.HttpRequest) -> func.HttpResponse:
    """Show the fleet: the dashboard, or JSON with ``?format=json``."""
    return _response(await watchdog().fleet(req.params.get("format") == "json"))


def _response(reply: Reply) -> func.HttpResponse:
    headers = {
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    }
    return func.HttpResponse(
        reply.body, status_code=reply.status, headers=headers, mimetype=reply.content_type
    )
