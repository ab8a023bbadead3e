"""What a tick of a large healthy fleet costs: CPU of the watchdog's own process, everything included, and
calls to Azure. The real SDKs talk to the local Azure and to Azurite, both in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.figures import Figure
from benchmarks.options import ROOT, Options

_GOAL_MILLISECONDS = 1.0
_SIZES = (100, 1_000)


def measure(options: Options) -> list[Figure]:
    """Run healthy ticks over fleets of two sizes; the calls must not grow with the fleet, but for probes."""
    figures = []
    for size in _SIZES:
        found = _ticks(size, options.repeat_or(3))
        goal = _GOAL_MILLISECONDS if size == max(_SIZES) else None
        cpu = tuple(one["cpu_milliseconds"] for one in found)
        note = f"and {found[-1]['probes']:.0f} probes"
        figures += [
            Figure(f"CPU a VM, tick of {size}", "ms", cpu, goal),
            Figure(f"tick of {size}, start to end", "s", tuple(one["seconds"] for one in found)),
            Figure(f"calls to Azure, tick of {size}", "", (found[-1]["calls"],), note=note),
        ]
    return figures


def _ticks(size: int, repeat: int) -> list[dict[str, float]]:
    command = [sys.executable, "-m", "benchmarks.tick_process", str(size), str(repeat)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=600)
    found: list[dict[str, float]] = json.loads(done.stdout)
    return found
