"""How long the Functions host waits for ``import function_app``, beside what it can't be without."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from benchmarks.figures import Figure
from benchmarks.options import ROOT, Options

_GOAL_SECONDS = 0.30
_DEAREST = "azure.mgmt.compute"
_PROGRAM = f"""
import time
started = time.perf_counter()
import {{module}}
seconds = time.perf_counter() - started
import json, sys
print(json.dumps([seconds, {_DEAREST!r} in sys.modules]))
"""


def measure(options: Options) -> list[Figure]:
    """Fresh processes, in turns, after one round that fills the caches."""
    bare: list[float] = []
    functions: list[float] = []
    app: list[float] = []
    for round_number in range(options.repeat_or(10) + 1):
        results = (_bare(), _import("azure.functions"), _import("function_app"))
        if round_number:
            for values, seconds in zip((bare, functions, app), results, strict=True):
                values.append(seconds)
        else:
            options.progress("import: caches are warm")
    ratios = tuple(mine / theirs for mine, theirs in zip(app, functions, strict=True))
    return [
        Figure("python -c pass, whole process", "s", tuple(bare)),
        Figure("import azure.functions", "s", tuple(functions)),
        Figure("import function_app", "s", tuple(app), _GOAL_SECONDS, f"without {_DEAREST}"),
        Figure("function_app / azure.functions", "times", ratios),
    ]


def _bare() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], cwd=ROOT, check=True)
    return time.perf_counter() - started


def _import(module: str) -> float:
    command = [sys.executable, "-c", _PROGRAM.format(module=module)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    seconds, has_dearest = json.loads(done.stdout)
    if has_dearest:
        raise RuntimeError(f"import {module} also imports {_DEAREST}, which must wait for the first restart")
    return float(seconds)
