"""Indexes a function app and invokes its functions; run as a program, by another Python where need be.

``functions_engine_driver.py ENGINE APP_DIRECTORY < plan.json`` prints one line of JSON: what was indexed and
how each invocation ended. ENGINE is ``runtime``, Microsoft's own execution engine (azure-functions-runtime,
Python >= 3.13), or ``direct``, ``get_user_function()`` of azure-functions. The plan names functions and their
triggers' payloads: ``{"tick": {}, "recheck_vm": {"body": "text"}, "live": {"method": "GET", "url": "..."}}``.

Needs nothing of this repository, because that other Python can't be expected to have it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

Plan = dict[str, dict[str, Any]]


class Message(SimpleNamespace):
    """Stands for a protobuf message: named fields, and which one of a group was set."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)

    def WhichOneof(self, group: str) -> str | None:
        # TypedData's group is "data", ParameterBinding's is "rpc_data": the one field that was given is it.
        fields = [name for name in vars(self) if group == "data" or name != "name"]
        return fields[0] if fields else None


class StatusResult(Message):
    Failure, Success = 0, 1


class BindingInfo(Message):
    out, inout, undefined = 1, 2, 0


class Protos:
    """The message module that the engine is given; in Azure it is generated from the gRPC contract."""

    StatusResult = StatusResult
    BindingInfo = BindingInfo

    def __getattr__(self, name: str) -> type[Message]:
        return Message


def _request(kind: str, protos: Protos, **fields: Any) -> Message:
    return Message(
        request=Message(**{kind: Message(**fields)}), properties={"protos": protos, "host": "127.0.0.1"}
    )


def _trigger(bindings: list[dict[str, Any]]) -> dict[str, Any]:
    return next(binding for binding in bindings if binding["type"].endswith("Trigger"))


def _payload(trigger: dict[str, Any], given: dict[str, Any]) -> tuple[Message, dict[str, Message]]:
    """The trigger's data and metadata, as the Functions host sends them to the Python worker."""
    match trigger["type"]:
        case "timerTrigger":
            moments = dict.fromkeys(("Last", "Next", "LastUpdated"), "2026-11-24T10:00:00Z")
            timer = {"IsPastDue": given.get("past_due", False), "ScheduleStatus": moments, "Schedule": {}}
            return Message(json=json.dumps(timer)), {}
        case "queueTrigger":
            return Message(string=given["body"]), {
                "Id": Message(string="5f2d1a3c-0000-4000-8000-000000000000"),
                "DequeueCount": Message(json="2"),
                "ExpirationTime": Message(json='"2026-12-01T10:00:00+00:00"'),
                "InsertionTime": Message(json='"2026-11-24T10:00:00+00:00"'),
                "NextVisibleTime": Message(json='"2026-11-24T10:10:00+00:00"'),
                "PopReceipt": Message(string="receipt"),
            }
        case "httpTrigger":
            http = Message(
                method=given["method"],
                url=given["url"],
                headers=given.get("headers", {}),
                query=given.get("query", {}),
                params=given.get("params", {}),
                body=Message(bytes=given.get("body", "").encode()),
            )
            return Message(http=http), {}
    raise ValueError(f"no payload is known for {trigger['type']}")


async def run_with_runtime(directory: Path, plan: Plan) -> dict[str, Any]:
    """Index and invoke as the Python worker does it in Azure, but with messages made here, without gRPC."""
    import azure_functions_runtime as runtime  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

    protos = Protos()
    sys.path.insert(0, str(directory))
    started = await runtime.worker_init_request(
        _request("worker_init_request", protos, capabilities={}, function_app_directory=str(directory))
    )
    if started.result.status != StatusResult.Success:
        raise RuntimeError(f"the engine could not index the app: {started.result.exception}")
    indexed = (await runtime.functions_metadata_request(None)).function_metadata_results
    runtime.start_threadpool_executor()
    try:
        results = {}
        for function in indexed:
            if function.name in plan:
                trigger = _trigger([json.loads(raw) for raw in function.raw_bindings])
                request = _invocation(function, trigger, plan[function.name], protos)
                results[function.name] = _outcome(await runtime.invocation_request(request))
    finally:
        runtime.stop_threadpool_executor()
    functions = {function.name: [json.loads(raw) for raw in function.raw_bindings] for function in indexed}
    engine = f"azure-functions-runtime {version('azure-functions-runtime')}"
    return {"engine": engine, "functions": functions, "results": results}


def _invocation(function: Any, trigger: dict[str, Any], given: dict[str, Any], protos: Protos) -> Message:
    data, metadata = _payload(trigger, given)
    return _request(
        "invocation_request",
        protos,
        invocation_id="0f1e2d3c",
        function_id=function.function_id,
        input_data=[Message(name=trigger["name"], data=data)],
        trigger_metadata=metadata,
        trace_context=Message(trace_parent="", trace_state="", attributes={}),
        retry_context=Message(retry_count=0, max_retry_count=0, exception=None),
    )


def _outcome(response: Any) -> dict[str, Any]:
    if response.result.status != StatusResult.Success:
        return {"ok": False, "error": response.result.exception.message}
    returned = response.return_value
    if returned is None:
        return {"ok": True}
    if returned.WhichOneof("data") == "string":
        return {"ok": True, "status": 200, "headers": {}, "body": returned.string}
    http = returned.http
    return {
        "ok": True,
        "status": int(http.status_code),
        "headers": {name.lower(): value for name, value in http.headers.items()},
        "body": http.body.bytes.decode(),
    }


async def run_directly(directory: Path, plan: Plan) -> dict[str, Any]:
    """Index and invoke through azure-functions alone, with its own converters for payloads and answers."""
    import azure.functions as func  # noqa: PLC0415

    sys.path.insert(0, str(directory))
    module = __import__("function_app")
    app = next(value for value in vars(module).values() if isinstance(value, func.FunctionRegister))
    functions: dict[str, Any] = {str(each.get_function_name()): each for each in app.get_functions()}
    bindings = {
        name: [json.loads(raw) for raw in function.get_raw_bindings()] for name, function in functions.items()
    }
    results = {}
    for name, given in plan.items():
        if name in functions:
            call = functions[name].get_user_function()
            results[name] = await _call_directly(call, _trigger(bindings[name]), given)
    engine = f"get_user_function() of azure-functions {version('azure-functions')}"
    return {"engine": engine, "functions": bindings, "results": results}


async def _call_directly(call: Any, trigger: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    import inspect  # noqa: PLC0415

    data, metadata = _payload(trigger, given)
    arguments = {trigger["name"]: _decode(trigger["type"], data, metadata)}
    if "context" in inspect.signature(call).parameters:
        arguments["context"] = SimpleNamespace(invocation_id="0f1e2d3c")
    try:
        value = await call(**arguments) if inspect.iscoroutinefunction(call) else call(**arguments)
    except Exception as error:  # noqa: BLE001 - reported, as the engine does it
        return {"ok": False, "error": f"{type(error).__name__}: {error}"}
    if value is None:
        return {"ok": True}
    if isinstance(value, str):
        return {"ok": True, "status": 200, "headers": {}, "body": value}
    from azure.functions.http import HttpResponseConverter  # noqa: PLC0415

    answer = HttpResponseConverter.encode(value, expected_type=None).value
    return {
        "ok": True,
        "status": int(answer["status_code"].value),
        "headers": {name.lower(): header.value for name, header in answer["headers"].items()},
        "body": answer["body"].value.decode(),
    }


def _decode(trigger_type: str, data: Message, metadata: dict[str, Message]) -> Any:
    from azure.functions.http import HttpRequestConverter  # noqa: PLC0415
    from azure.functions.meta import Datum  # noqa: PLC0415
    from azure.functions.queue import QueueMessageInConverter  # noqa: PLC0415
    from azure.functions.timer import TimerRequestConverter  # noqa: PLC0415

    def datum(message: Message) -> Any:
        kind = message.WhichOneof("data")
        return Datum(getattr(message, str(kind)), kind)

    if trigger_type == "timerTrigger":
        return TimerRequestConverter.decode(datum(data), trigger_metadata=None)
    if trigger_type == "queueTrigger":
        shown = {name: datum(value) for name, value in metadata.items()}
        return QueueMessageInConverter.decode(datum(data), trigger_metadata=shown)
    http = data.http
    texts = {"headers": http.headers, "query": http.query, "params": http.params}
    value: dict[str, Any] = {
        name: {key: Datum(text, "string") for key, text in pairs.items()} for name, pairs in texts.items()
    }
    value |= {"method": Datum(http.method, "string"), "url": Datum(http.url, "string")}
    value["body"] = Datum(http.body.bytes, "bytes")
    return HttpRequestConverter.decode(Datum(value, "http"), trigger_metadata=None)


def main() -> None:
    """Read the plan, run it, print the document."""
    engine, directory = sys.argv[1], Path(sys.argv[2]).resolve()
    run = {"runtime": run_with_runtime, "direct": run_directly}[engine]
    document = asyncio.run(run(directory, json.load(sys.stdin)))
    document["python"] = ".".join(map(str, sys.version_info[:3]))
    print(json.dumps(document))  # noqa: T201 - this program's answer


if __name__ == "__main__":
    main()
