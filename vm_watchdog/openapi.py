"""The OpenAPI 3.1 description of the HTTP API, made from the route table and the models. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from vm_health.version import VERSION
from vm_watchdog.api_models import Problem
from vm_watchdog.api_requests import Input
from vm_watchdog.problems import CONTENT_TYPE, TYPE_PREFIX, Kind
from vm_watchdog.routes import ROUTES, Route

_REF = "#/components/schemas/{model}"
_SECURITY: list[dict[str, list[str]]] = [{"keyHeader": []}, {"keyQuery": []}]
_DESCRIPTION = (
    "What operators ask of the watchdog. Every error is a problem document (RFC 9457); its type is "
    f"{TYPE_PREFIX}KIND. Times are UTC."
)
_PATH_PARAMETERS = {
    "name": "The VM's name; case does not matter.",
    "id": "The silence's id.",
}


def document() -> dict[str, Any]:
    """Return the description."""
    schemas = _schemas()
    paths: dict[str, dict[str, Any]] = {}
    for name, route in ROUTES.items():
        for method in route.methods:
            operation = _operation(name if method == route.methods[0] else f"{name}_{method.lower()}", route)
            paths.setdefault(f"/api/{route.path}", {})[method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "VM watchdog", "version": VERSION, "description": _DESCRIPTION},
        "security": _SECURITY,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "keyHeader": {"type": "apiKey", "in": "header", "name": "x-functions-key"},
                "keyQuery": {"type": "apiKey", "in": "query", "name": "code"},
            },
        },
    }


@cache
def document_text() -> str:
    """Return the description as it stands in ``docs/openapi.json``."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def _schemas() -> dict[str, Any]:
    answers = [route.answer for route in ROUTES.values() if route.answer is not None]
    bodies = [route.body for route in ROUTES.values() if route.body is not None]
    wanted: list[Any] = [(model, "serialization") for model in (*answers, Problem)]
    wanted += [(model, "validation") for model in bodies]
    _, found = models_json_schema(wanted, ref_template=_REF)
    schemas: dict[str, Any] = dict(sorted(found["$defs"].items()))
    requested = {model.__name__ for model in bodies}
    for name, schema in schemas.items():
        if name not in requested:
            # Answers may gain fields; a client that refuses unknown ones would break for nothing.
            schema.pop("additionalProperties", None)
    return schemas


def _operation(name: str, route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": name, "summary": route.summary}
    if route.is_open:
        operation["security"] = []
    if parameters := [*_path_parameters(route.path), *_query_parameters(route.query)]:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _reference(route.body)}},
        }
    operation["responses"] = {str(route.success): _success(name, route), **_problem_responses(name, route)}
    return operation


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PATH_PARAMETERS[name],
            "schema": {"type": "string"},
        }
        for name in re.findall(r"{(\w+)}", path)
    ]


def _query_parameters(model: type[Input]) -> list[dict[str, Any]]:
    found = []
    for name, schema in model.model_json_schema().get("properties", {}).items():
        parameter = {"name": name, "in": "query", "required": False}
        if "description" in schema:
            parameter["description"] = schema.pop("description")
        schema.pop("title", None)
        found.append({**parameter, "schema": _without_null(schema)})
    return found


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that is not given is absent; there is no null in a query."""
    if "anyOf" not in schema:
        return schema
    kinds = [kind for kind in schema["anyOf"] if kind != {"type": "null"}]
    return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


def _success(name: str, route: Route) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if not name.endswith("_head"):
        schema = {"type": "object"} if route.answer is None else _reference(route.answer)
        content = {"application/json": {"schema": schema}}
    if name == "fleet":
        content["text/html"] = {"schema": {"type": "string"}}
    return {"description": route.summary, **({"content": content} if content else {})}


def _problem_responses(name: str, route: Route) -> dict[str, Any]:
    by_status: dict[int, list[Kind]] = {}
    for kind in sorted(route.problems, key=lambda one: one.status):
        by_status.setdefault(kind.status, []).append(kind)
    responses: dict[str, Any] = {}
    if not route.is_open:
        responses["401"] = {"description": "The key is missing or wrong; no body, the host answers"}
    for status, kinds in by_status.items():
        responses[str(status)] = {
            "description": "; ".join(f"{kind.title} ({kind.slug})" for kind in kinds),
            "content": {CONTENT_TYPE: {"schema": _reference(Problem)}},
        }
    if 429 in by_status:
        responses["429"]["headers"] = {
            "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}
        }
    if route.path == "live":
        responses["503"] = {**_success(name, route), "description": "No tick has completed lately"}
    return responses


def _reference(model: type[BaseModel]) -> Mapping[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}
