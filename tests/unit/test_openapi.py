"""The OpenAPI file says what the code does: same routes, same models, and the guide's samples are real."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

import function_app
from tests.unit.api_client import DESCRIPTION, validate
from vm_watchdog import api_models, api_requests
from vm_watchdog.http_api import HttpApi
from vm_watchdog.openapi import document_text
from vm_watchdog.problems import KINDS, TYPE_PREFIX
from vm_watchdog.routes import ROUTES

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8")
SAMPLES = re.findall(r"<!-- (\w+) -->\n+```json\n(.*?)```", GUIDE, re.DOTALL)


def http_bindings() -> dict[str, dict[str, Any]]:
    """Function name -> its HTTP trigger, as the Functions host is told."""
    found = {}
    for function in function_app.app.get_functions():
        for binding in map(json.loads, function.get_raw_bindings()):
            if binding["type"] == "httpTrigger":
                found[str(function.get_function_name())] = binding
    return found


BINDINGS = http_bindings()


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    """(Method, path) -> operation."""
    return {
        (method.upper(), path): operation
        for path, methods in DESCRIPTION["paths"].items()
        for method, operation in methods.items()
    }


def test_the_file_is_what_the_code_says() -> None:
    """Else: run ``make docs``."""
    assert (ROOT / "docs" / "openapi.json").read_text(encoding="utf-8") == document_text()


def test_make_docs_writes_it() -> None:
    assert runpy.run_path(str(ROOT / "docs" / "generate.py"))["document_text"]() == document_text()


def test_the_function_app_serves_exactly_what_is_described() -> None:
    served = {
        (method, f"/api/{binding['route']}") for binding in BINDINGS.values() for method in binding["methods"]
    }
    assert served == set(operations())


def test_every_function_asks_for_the_route_of_its_own_name() -> None:
    assert set(BINDINGS) == set(ROUTES)
    for name, binding in BINDINGS.items():
        assert (binding["route"], tuple(binding["methods"])) == (ROUTES[name].path, ROUTES[name].methods), (
            name
        )


def test_only_what_is_described_as_open_is_open() -> None:
    open_to_all = {
        name for name, binding in BINDINGS.items() if "ANONYMOUS" in str(binding["authLevel"]).upper()
    }
    assert open_to_all == {name for name, route in ROUTES.items() if route.is_open} == {"live"}
    described = {path for (_, path), operation in operations().items() if operation.get("security") == []}
    assert described == {"/api/live"}
    assert {str(binding["authLevel"]).upper() for binding in BINDINGS.values()} == {"ANONYMOUS", "FUNCTION"}


def test_every_parameter_of_a_path_is_described() -> None:
    for (_, path), operation in operations().items():
        told = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}
        assert told == set(re.findall(r"{(\w+)}", path)), path


def test_operations_have_names_of_their_own_and_handlers() -> None:
    names = [operation["operationId"] for operation in operations().values()]
    assert len(set(names)) == len(names)
    assert all(callable(getattr(HttpApi, f"_{name}")) for name in ROUTES)


def test_every_schema_is_one_and_every_reference_leads_somewhere() -> None:
    schemas = DESCRIPTION["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    references = set(re.findall(r'"\$ref": "([^"]+)"', document_text()))
    assert references <= {f"#/components/schemas/{name}" for name in schemas}
    used = json.dumps(DESCRIPTION["paths"]) + json.dumps(schemas)
    assert all(f"schemas/{name}" in used for name in schemas), "a schema that nothing refers to"


def test_answers_may_gain_fields_and_requests_may_not() -> None:
    schemas = DESCRIPTION["components"]["schemas"]
    assert "additionalProperties" not in schemas["VmView"]
    assert schemas["SilenceRequest"]["additionalProperties"] is False


def test_the_client_of_these_tests_does_notice() -> None:
    """It holds every answer of the API's tests against the description; this is what a breach looks like."""
    good = {"queued": "/subscriptions/x"}
    schema = {"$ref": "#/components/schemas/NudgeView"}
    validate(good, schema)
    for bad in ({}, {"queued": 7}, {**good, "more": 1}):
        with pytest.raises(ValidationError):
            validate(bad, schema)


def test_a_wrong_method_is_not_an_operation_of_two_functions() -> None:
    """Two functions may share a path, as silences do, but no method of it."""
    seen = [(method, binding["route"]) for binding in BINDINGS.values() for method in binding["methods"]]
    assert len(seen) == len(set(seen))


# --- the guide -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "text"), SAMPLES, ids=[f"{name}-{n}" for n, (name, _) in enumerate(SAMPLES)]
)
def test_the_guides_samples_are_real(model: str, text: str) -> None:
    """They parse into the model that they claim to be, and fit its description."""
    known = getattr(api_models, model, None) or getattr(api_requests, model)
    value = json.loads(text)
    known.model_validate(value)
    validate(value, {"$ref": f"#/components/schemas/{model}"})


def test_the_guide_tells_every_route_and_every_problem() -> None:
    headings = set(re.findall(r"^### `(\w+) (/api/[^`]+)`", GUIDE, re.MULTILINE))
    assert headings == {key for key in operations() if key[0] != "HEAD"}
    assert {kind.slug for kind in KINDS} == set(re.findall(r"^\| `([a-z-]+)` \|", GUIDE, re.MULTILINE))
    assert TYPE_PREFIX in GUIDE


def test_every_route_with_a_model_has_a_sample_in_the_guide() -> None:
    shown = {model for model, _ in SAMPLES}
    wanted = {route.answer.__name__ for route in ROUTES.values() if route.answer is not None}
    wanted |= {route.body.__name__ for route in ROUTES.values() if route.body is not None}
    assert shown == wanted | {"Problem"}
