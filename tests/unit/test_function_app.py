"""The bindings hold no logic, import fast, and agree with what the rest of the project says."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from vm_health.version import VERSION
from vm_watchdog.adapters import storage_queue
from vm_watchdog.run_command_script import SCRIPT

ROOT = Path(__file__).resolve().parents[2]
TREE = ast.parse((ROOT / "function_app.py").read_text(encoding="utf-8"))
FUNCTIONS = [node for node in ast.walk(TREE) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
TRIGGERS = [node for node in FUNCTIONS if isinstance(node, ast.AsyncFunctionDef) and node.decorator_list]


def imported(nodes: list[ast.stmt]) -> set[str]:
    """Top-level names of the modules that ``nodes`` import."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
    return found


def test_at_import_nothing_but_the_bindings_and_the_standard_library() -> None:
    others = {name for name in imported(TREE.body) if name.split(".")[0] not in sys.stdlib_module_names}
    assert others == {"azure.functions"}


def test_the_watchdog_is_imported_at_the_first_trigger() -> None:
    everywhere = imported([node for node in ast.walk(TREE) if isinstance(node, ast.Import | ast.ImportFrom)])
    assert {name.split(".")[0] for name in everywhere} - sys.stdlib_module_names == {"azure", "vm_watchdog"}


@pytest.mark.parametrize("function", FUNCTIONS, ids=[node.name for node in FUNCTIONS])
def test_bodies_are_a_docstring_and_a_line_or_two(function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    work = [
        node
        for node in function.body
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    ]
    assert 1 <= len(work) <= 2
    assert not [
        node for node in ast.walk(function) if isinstance(node, ast.If | ast.For | ast.While | ast.Try)
    ]


def test_the_triggers_of_the_design() -> None:
    names = {node.name for node in TRIGGERS}
    assert {"watchdog_tick", "recheck_vm", "evaluate_shard", "send_alert", "live", "nudge"} <= names


def keywords(name: str) -> dict[str, str]:
    """The keyword arguments of a trigger's decorator, as source."""
    (trigger,) = [node for node in TRIGGERS if node.name == name]
    (decorator,) = trigger.decorator_list
    assert isinstance(decorator, ast.Call)
    return {str(word.arg): ast.unparse(word.value) for word in decorator.keywords}


@pytest.mark.parametrize(
    ("trigger", "queue"),
    [
        ("recheck_vm", storage_queue.RECHECK_QUEUE),
        ("evaluate_shard", storage_queue.SHARD_QUEUE),
        ("send_alert", storage_queue.ALERT_QUEUE),
    ],
)
def test_what_the_adapter_sends_is_what_the_trigger_receives(trigger: str, queue: str) -> None:
    assert ast.literal_eval(keywords(trigger)["queue_name"]) == queue


def test_only_live_is_open_to_everybody() -> None:
    levels = {
        node.name: keywords(node.name)["auth_level"]
        for node in TRIGGERS
        if "auth_level" in keywords(node.name)
    }
    assert {name for name, level in levels.items() if level.endswith("ANONYMOUS")} == {"live"}
    assert all(level.endswith(("ANONYMOUS", "FUNCTION", "ADMIN")) for level in levels.values())


def test_importing_it_loads_no_sdk_and_reads_no_setting() -> None:
    """With an empty environment: a fault in the settings is an error of the trigger, not of the import."""
    code = (
        "import sys, function_app; "
        "print([name for name in ('azure.mgmt.compute', 'azure.identity', 'azure.data.tables', "
        "'azure.storage.queue', 'azure.monitor.query', 'aiohttp', 'jinja2', 'pydantic', 'vm_watchdog', "
        "'vm_health') "
        "if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={}, capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "[]"


def test_the_projects_version_is_the_codes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "vm_health.version.VERSION"}
    assert VERSION.count(".") == 2


def test_run_commands_script_is_a_constant_that_holds_no_name() -> None:
    """Names reach it as environment variables, in quotes."""
    text = "\n".join(SCRIPT)
    assert '"$UNIT"' in text
    assert '"$TOKEN"' in text
    assert text.count("$UNIT") == text.count("$TOKEN") == 1
    assert "eval" not in text
