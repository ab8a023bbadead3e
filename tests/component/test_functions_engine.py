"""Function apps are indexed and run by Microsoft's own execution engine, where there is a Python for it.

The engine (azure-functions-runtime) needs Python >= 3.13. Elsewhere azure-functions' ``get_user_function()``
takes its place on the running interpreter, under the same assertions; the test's output says which was used.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kql.tools import in_ci, missing_tool

ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("functions_engine_driver.py")
SAMPLE_APP = Path(__file__).with_name("sample_function_app")
OWN_ENVIRONMENT = ROOT / ".venv313"
PYTHON_SETTING = "WATCHDOG_TEST_PYTHON313"
TIMEOUT_SECONDS = 60
# Complete, and pointing at nothing: port 9 (discard) refuses every connection at once.
PRODUCT_SETTINGS = {
    "WATCHDOG_SUBSCRIPTIONS": "00000000-0000-4000-8000-000000000001",
    "WATCHDOG_WORKSPACE_ID": "00000000-0000-4000-8000-000000000002",
    "WATCHDOG_TABLE_ENDPOINT": "https://127.0.0.1:9/account",
    "WATCHDOG_QUEUE_ENDPOINT": "https://127.0.0.1:9/account",
    "WATCHDOG_SCHEDULE": "0 * * * * *",
    "IDENTITY_ENDPOINT": "http://127.0.0.1:9/msi/token",
    "IDENTITY_HEADER": "none",
    "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential",
}
REQUIREMENTS = "azure.data.tables.aio, azure.identity.aio, azure.storage.queue.aio, aiohttp"


@dataclass(frozen=True, slots=True)
class Engine:
    """Which interpreter runs which of the driver's engines."""

    kind: str  # "runtime" or "direct"
    python: str


def possible_pythons() -> list[str]:
    """Every Python >= 3.13 that can be found here, the most wanted first."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    newest_first = sorted(
        (path for path in versions.glob("3.*") if re.match(r"3\.(1[3-9]|[2-9]\d)\b", path.name)), reverse=True
    )
    wanted = [
        os.environ.get(PYTHON_SETTING, ""),
        str(OWN_ENVIRONMENT / "bin" / "python"),
        *([sys.executable] if sys.version_info >= (3, 13) else []),
        *(shutil.which(name) or "" for name in ("python3.13", "python3.14")),
        *(str(path / "bin" / "python") for path in newest_first),
    ]
    return list(dict.fromkeys(python for python in wanted if python and works(python, "sys")))


def works(python: str, module: str) -> bool:
    """Whether ``python`` runs (a pyenv shim may not), is new enough and can import ``module``."""
    script = f"import sys; assert sys.version_info >= (3, 13); import {module}"
    try:
        ended = subprocess.run(
            [python, "-c", script], capture_output=True, timeout=TIMEOUT_SECONDS, check=False
        )
    except OSError:
        return False
    return ended.returncode == 0


@pytest.fixture(scope="module")
def engine() -> Engine:
    """Microsoft's engine where it is installed, else the running interpreter."""
    for python in possible_pythons():
        if works(python, "azure_functions_runtime"):
            return Engine("runtime", python)
    return Engine("direct", sys.executable)


@pytest.fixture
def say(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Callable[[str], None]:
    """Show a line in the terminal and keep it in the test report."""

    def show(text: str) -> None:
        record_property("engine", text)
        reporter = request.config.pluginmanager.get_plugin("terminalreporter")
        capture = request.config.pluginmanager.get_plugin("capturemanager")
        if reporter is not None and capture is not None:
            with capture.global_and_fixture_disabled():
                reporter.write_line("")
                reporter.write_line(f"  {text}")

    return show


def drive(
    engine: Engine, app: Path, plan: Mapping[str, Mapping[str, Any]], environ: Mapping[str, str]
) -> dict[str, Any]:
    """What the driver says of ``app``: engine, python, functions, results."""
    # The product refuses WATCHDOG_ names that it doesn't know, this test's own among them.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WATCHDOG_")}
    ended = subprocess.run(
        [engine.python, "-B", str(DRIVER), engine.kind, str(app)],
        input=json.dumps(plan),
        env=inherited | environ,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    document: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return document


def triggers(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Function name -> its trigger's binding."""
    return {
        name: next(binding for binding in bindings if binding["type"].endswith("Trigger"))
        for name, bindings in document["functions"].items()
    }


def test_microsofts_engine_is_used_where_there_is_a_python_for_it(
    engine: Engine, say: Callable[[str], None]
) -> None:
    if engine.kind == "direct":
        pythons = possible_pythons()
        if not pythons:
            pytest.skip("no Python >= 3.13 here: functions ran through get_user_function() instead")
        missing_tool(
            f"azure-functions-runtime in {OWN_ENVIRONMENT.name} (Python >= 3.13 is there: {pythons[0]}); "
            "functions ran through get_user_function() instead"
        )
    version = subprocess.check_output([engine.python, "--version"], text=True).strip()
    say(f"functions ran in azure-functions-runtime on {version} ({engine.python})")


SAMPLE_PLAN: dict[str, dict[str, Any]] = {
    "watchdog_tick": {"past_due": True},
    "recheck_vm": {"body": '{"vm": "web-1"}'},
    "evaluate_shard": {"body": "shard 7"},
    "live": {"method": "GET", "url": "https://host/api/live", "query": {"status": "503"}},
    "nudge": {"method": "POST", "url": "https://host/api/nudge", "body": "hello"},
    "fleet": {"method": "GET", "url": "https://host/api/fleet", "query": {"fail": ""}},
    "vm": {"method": "GET", "url": "https://host/api/vm/web-1", "params": {"name": "web-1"}},
}


def test_the_sample_app_is_indexed_and_its_functions_get_what_their_triggers_carry(
    engine: Engine, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    document = drive(engine, SAMPLE_APP, SAMPLE_PLAN, {"SAMPLE_CALLS": str(calls)})
    bound = triggers(document)
    assert {name: binding["type"] for name, binding in bound.items()} == {
        "watchdog_tick": "timerTrigger",
        "recheck_vm": "queueTrigger",
        "evaluate_shard": "queueTrigger",
        "live": "httpTrigger",
        "nudge": "httpTrigger",
        "fleet": "httpTrigger",
        "vm": "httpTrigger",
    }
    results = document["results"]
    assert results["live"]["status"] == 503
    assert results["live"]["headers"]["content-type"] == "application/json"
    assert (results["nudge"]["status"], results["nudge"]["body"]) == (202, "hello")
    assert results["fleet"] == {"ok": False, "error": "RuntimeError: asked to fail"}
    assert results["vm"]["body"] == "web-1"
    seen = {call["function"]: call for call in map(json.loads, calls.read_text().splitlines())}
    assert seen["recheck_vm"]["body"] == {"vm": "web-1"}
    assert seen["recheck_vm"]["dequeue_count"] == 2
    assert seen["evaluate_shard"]["body"] == "shard 7"
    begun = [json.loads(line) for line in calls.read_text().splitlines() if '"begin"' in line]
    assert [call["past_due"] for call in begun] == [True]


@pytest.fixture(scope="module")
def product_engine(engine: Engine) -> Engine:
    """The engine for the product's app, whose requirements that Python must have as well."""
    if engine.kind == "direct" or works(engine.python, REQUIREMENTS):
        return engine
    if in_ci():
        pytest.fail(f"{engine.python} lacks the product's requirements ({REQUIREMENTS})")
    return Engine("direct", sys.executable)


def test_the_products_app_is_indexed_and_its_live_endpoint_answers(product_engine: Engine) -> None:
    live = {"method": "GET", "url": "https://host/api/live"}
    document = drive(product_engine, ROOT, {"live": live}, PRODUCT_SETTINGS)
    bound = triggers(document)
    timer = bound["watchdog_tick"]
    assert (timer["type"], timer["schedule"]) == ("timerTrigger", "%WATCHDOG_SCHEDULE%")
    queues = {name: binding for name, binding in bound.items() if binding["type"] == "queueTrigger"}
    assert {name: binding["queueName"] for name, binding in queues.items()}.items() >= {
        "recheck_vm": "watchdog-recheck",
        "evaluate_shard": "watchdog-shards",
        "send_alert": "watchdog-alerts",
    }.items()
    assert {binding["connection"] for binding in queues.values()} == {"AzureWebJobsStorage"}
    http = {name: binding for name, binding in bound.items() if binding["type"] == "httpTrigger"}
    levels = {name: binding["authLevel"].lower() for name, binding in http.items()}
    assert levels.items() >= {"live": "anonymous", "nudge": "function", "fleet": "function"}.items()
    methods = {name: set(binding["methods"]) for name, binding in http.items()}
    assert "GET" in methods["live"]
    assert (methods["nudge"], methods["fleet"]) == ({"POST"}, {"GET"})
    # Without a cloud it can't know whether the watchdog ran: 503, and in JSON, never an exception.
    answer = document["results"]["live"]
    assert answer["ok"], answer
    assert answer["status"] in (200, 503)
    assert isinstance(json.loads(answer["body"]), dict)
