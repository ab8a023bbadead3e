"""Loads a v2 ``function_app.py`` and reads its functions and triggers. Runs nothing.

Takes timer, queue and HTTP triggers. Other triggers, and input or output bindings beside the HTTP answer, are
faults: an app that needs them must not seem to work here.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import azure.functions as func

from devcloud.schedules import Schedule, parse_schedule

from .errors import HostError

MODULE_NAME = "function_app"


@dataclass(frozen=True, slots=True)
class TimerTrigger:
    schedule: Schedule
    run_on_startup: bool


@dataclass(frozen=True, slots=True)
class QueueTrigger:
    queue_name: str
    connection: str


@dataclass(frozen=True, slots=True)
class HttpTrigger:
    route: str
    methods: tuple[str, ...]
    auth_level: str


Trigger = TimerTrigger | QueueTrigger | HttpTrigger


@dataclass(frozen=True, slots=True)
class HostedFunction:
    """One function of the app: what to call, with which argument, on what."""

    name: str
    call: Callable[..., Any]
    parameter: str
    trigger: Trigger
    is_async: bool
    takes_context: bool


def load_module(directory: Path) -> ModuleType:
    """Import ``function_app.py`` from ``directory``, which comes first on ``sys.path``, as in Azure.

    The caller undoes ``sys.path`` and ``sys.modules`` when the host stops.
    """
    script = directory / f"{MODULE_NAME}.py"
    if not script.is_file():
        raise HostError([f"app directory is {str(directory)!r}, it must hold a {script.name}"])
    sys.path.insert(0, str(directory))
    spec = importlib.util.spec_from_file_location(MODULE_NAME, script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE_NAME] = module
    spec.loader.exec_module(module)
    return module


def read_functions(module: ModuleType, environ: Mapping[str, str]) -> tuple[HostedFunction, ...]:
    """The functions of the module's one function app; %NAME% is resolved from ``environ``."""
    apps = [value for value in vars(module).values() if isinstance(value, func.FunctionRegister)]
    if len(apps) != 1:
        raise HostError([f"{MODULE_NAME}.py holds {len(apps)} function apps at top level, it must hold one"])
    faults: list[str] = []
    functions = []
    for function in apps[0].get_functions():
        name = str(function.get_function_name())
        own_faults: list[str] = []
        bindings = [json.loads(binding) for binding in function.get_raw_bindings()]
        hosted = _read_function(name, function.get_user_function(), bindings, environ, own_faults)
        faults.extend(f"function {name}: {fault}" for fault in own_faults)
        if hosted is not None:
            functions.append(hosted)
    if faults:
        raise HostError(faults)
    return tuple(functions)


def _read_function(
    name: str,
    call: Callable[..., Any],
    bindings: list[dict[str, Any]],
    environ: Mapping[str, str],
    faults: list[str],
) -> HostedFunction | None:
    triggers = [binding for binding in bindings if str(binding["type"]).endswith("Trigger")]
    faults.extend(
        f"binding {binding['name']} has type {binding['type']!r}; this host knows only timer, queue and HTTP "
        "triggers and the HTTP answer"
        for binding in bindings
        if binding not in triggers and (binding["type"], binding["name"]) != ("http", "$return")
    )
    if len(triggers) != 1:
        faults.append(f"has {len(triggers)} triggers, it must have one")
        return None
    binding = triggers[0]
    trigger = _read_trigger(name, binding, environ, faults)
    parameters = inspect.signature(call).parameters
    if binding["name"] not in parameters:
        faults.append(f"its trigger is bound to {binding['name']!r}, its parameters are {list(parameters)}")
    if trigger is None:
        return None
    return HostedFunction(
        name, call, binding["name"], trigger, inspect.iscoroutinefunction(call), "context" in parameters
    )


def _read_trigger(
    name: str, binding: Mapping[str, Any], environ: Mapping[str, str], faults: list[str]
) -> Trigger | None:
    match binding["type"]:
        case "timerTrigger":
            text = _resolve(binding["schedule"], environ, faults)
            if not text:
                return None
            try:
                schedule = parse_schedule(text)
            except ValueError as error:
                faults.append(str(error))
                return None
            return TimerTrigger(schedule, bool(binding.get("runOnStartup")))
        case "queueTrigger":
            # The Functions host lower-cases queue names: Storage knows no capitals in them.
            queue_name = _resolve(binding["queueName"], environ, faults).lower()
            return QueueTrigger(queue_name, binding.get("connection") or "AzureWebJobsStorage")
        case "httpTrigger":
            return HttpTrigger(
                (binding.get("route") or name).strip("/"),
                tuple(binding.get("methods") or ()),
                str(binding.get("authLevel") or "FUNCTION").lower(),
            )
    faults.append(f"trigger {binding['type']!r} is not one of timerTrigger, queueTrigger, httpTrigger")
    return None


def _resolve(text: str, environ: Mapping[str, str], faults: list[str]) -> str:
    def setting(match: re.Match[str]) -> str:
        value = environ.get(match[1])
        if not value:
            faults.append(f"binding uses %{match[1]}%, but the app setting {match[1]} is not set")
        return value or ""

    return re.sub(r"%([^%]+)%", setting, text)
