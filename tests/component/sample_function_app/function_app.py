"""The product's function shapes without the product: what the local Functions host is tested with.

Each call is appended as one JSON line to the file that SAMPLE_CALLS names, so that a test in another process
can see what a function really received.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from datetime import UTC, datetime

import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)
log = logging.getLogger("sample")


def _record(function: str, **seen: object) -> None:
    line = json.dumps({"function": function, "at": datetime.now(UTC).isoformat(), **seen})
    with open(os.environ["SAMPLE_CALLS"], "a", encoding="utf-8") as calls:
        calls.write(line + "\n")


@app.timer_trigger(arg_name="timer", schedule="%SAMPLE_SCHEDULE%", run_on_startup=False)
async def watchdog_tick(timer: func.TimerRequest) -> None:
    _record("watchdog_tick", phase="begin", past_due=timer.past_due)
    await asyncio.sleep(float(os.environ.get("SAMPLE_TICK_SECONDS", "0")))
    _record("watchdog_tick", phase="end")


@app.queue_trigger(arg_name="message", queue_name="sample-recheck", connection="AzureWebJobsStorage")
async def recheck_vm(message: func.QueueMessage, context: func.Context) -> None:
    """Async, with the context: fails until the attempt that the message asks for."""
    body = message.get_json()
    _record(
        "recheck_vm",
        id=message.id,
        body=body,
        dequeue_count=message.dequeue_count,
        inserted=str(message.insertion_time),
        invocation_id=context.invocation_id,
    )
    log.info("looked at a VM", extra={"vm": body.get("vm"), "attempt": message.dequeue_count})
    if (message.dequeue_count or 0) < body.get("succeed_on", 1):
        raise RuntimeError("asked to fail")


@app.queue_trigger(arg_name="message", queue_name="%SAMPLE_SHARDS_QUEUE%", connection="AzureWebJobsStorage")
def evaluate_shard(message: func.QueueMessage) -> None:
    """Not async: runs on a worker thread."""
    _record(
        "evaluate_shard",
        body=message.get_body().decode(),
        main_thread=threading.current_thread() is threading.main_thread(),
    )


@app.route(route="live", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
async def live(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(
        json.dumps({"ok": True, "params": dict(req.params)}),
        status_code=int(req.params.get("status", "200")),
        mimetype="application/json",
        headers={"X-Sample": "yes"},
    )


@app.route(route="nudge", methods=["POST"])
def nudge(req: func.HttpRequest) -> func.HttpResponse:
    log.info("nudged")
    return func.HttpResponse(req.get_body(), status_code=202)


@app.route(methods=["GET"])
async def fleet(req: func.HttpRequest) -> str:
    if "fail" in req.params:
        raise RuntimeError("asked to fail")
    return "<p>fleet</p>"


@app.route(route="vm/{name}", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def vm(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(req.route_params["name"])
