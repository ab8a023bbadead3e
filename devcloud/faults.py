"""Faults on request: what the local Azure answers instead of its normal answer.

Holds the queue of faults and the small HTTP interface to it. Never decides what a normal answer is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from aiohttp import web

PATH = "/_devcloud/faults"
SERVICES = ("arm", "ingestion", "logs", "identity")
MODES = ("", "disconnect", "answer_lost", "partial", "no_content", "stuck", "forbidden", "arm64")
_KINDS: dict[str, tuple[type, ...]] = {
    "service": (str,),
    "operation": (str,),
    "vm": (str,),
    "status": (int,),
    "error_code": (str,),
    "headers": (dict,),
    "delay_seconds": (int, float),
    "times": (int,),
    "mode": (str,),
}


def is_operation(operation: str, wanted: str) -> bool:
    """Whether ``wanted`` covers ``operation``: the same, ``*``, or its first words.

    ``list`` covers list_all and list_group; ``run_command`` covers what starts a script, the action
    (run_command) and the managed kind (run_command_put), but not run_commands_get, _list and _delete.
    """
    return wanted in ("*", operation) or operation.startswith(wanted + "_")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of the requests to ``operation``, which is told as ``is_operation`` says.

    ``status`` 0 keeps the normal answer (after the delay, or changed by ``mode``).

    Modes: ``disconnect`` (any service: the connection ends and nothing was done), ``answer_lost`` (done, but
    the connection ends before the answer), ``partial`` (logs: rows plus an error; ingestion: every second
    item refused, with ``status``), ``no_content`` (logs: 204), ``stuck`` (arm: a script that never ends),
    ``forbidden`` (arm: 403, naming the missing action), ``arm64`` (arm: no managed run commands on this VM).
    """

    service: str
    operation: str = "*"
    vm: str = "*"
    status: int = 0
    error_code: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_seconds: float = 0
    times: int = 1  # 0 = until cleared
    mode: str = ""

    def matches(self, service: str, operation: str, vm: str) -> bool:
        """Whether a request to ``operation`` of ``service`` about ``vm`` gets this fault."""
        return (
            self.service == service
            and is_operation(operation, self.operation)
            and (self.vm == "*" or self.vm.lower() == vm.lower())
        )


class Faults:
    """The faults that wait for a request, first in first out."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Queue ``fault``."""
        self._waiting.append(fault)

    def clear(self) -> None:
        """Forget all faults."""
        self._waiting.clear()

    def waiting(self) -> list[Fault]:
        """The faults that no request has used up yet."""
        return list(self._waiting)

    def take(self, service: str, operation: str, vm: str = "") -> Fault | None:
        """The fault this request gets, if any; one use of it is spent."""
        for index, fault in enumerate(self._waiting):
            if not fault.matches(service, operation, vm):
                continue
            if fault.times == 1:
                del self._waiting[index]
            elif fault.times > 1:
                self._waiting[index] = replace(fault, times=fault.times - 1)
            return fault
        return None


def fault_from_json(body: Any) -> Fault:
    """Read one fault; raises ValueError that names every field at fault."""
    if not isinstance(body, dict):
        raise ValueError(f"a fault is a JSON object, got {type(body).__name__}")  # noqa: TRY004
    wrong = [f"{name}: unknown; known are {', '.join(_KINDS)}" for name in body if name not in _KINDS]
    for name, kinds in _KINDS.items():
        value = body.get(name)
        if name in body and (not isinstance(value, kinds) or isinstance(value, bool)):
            wrong.append(f"{name}: got {value!r}, must be {' or '.join(kind.__name__ for kind in kinds)}")
    if body.get("service") not in SERVICES:
        wrong.append(f"service: got {body.get('service')!r}, must be one of {', '.join(SERVICES)}")
    if body.get("mode", "") not in MODES:
        wrong.append(f"mode: got {body['mode']!r}, must be one of {', '.join(MODES[1:])}")
    if wrong:
        raise ValueError("; ".join(wrong))
    return Fault(**body)


def add_fault_routes(app: web.Application, faults: Faults) -> None:
    """Serve the fault queue under ``/_devcloud/faults``."""

    async def faults_list(_request: web.Request) -> web.Response:
        return web.json_response([asdict(fault) for fault in faults.waiting()])

    async def faults_add(request: web.Request) -> web.Response:
        try:
            fault = fault_from_json(await request.json())
        except ValueError as problem:
            return web.json_response({"error": str(problem)}, status=400)
        faults.add(fault)
        return web.json_response(asdict(fault), status=201)

    async def faults_clear(_request: web.Request) -> web.Response:
        faults.clear()
        return web.Response(status=204)

    app.router.add_get(PATH, faults_list)
    app.router.add_post(PATH, faults_add)
    app.router.add_delete(PATH, faults_clear)
