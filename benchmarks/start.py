"""From a command to the first decision: in a checkout that is set up, and in a clean one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.options import ROOT, Options

_SERVES = "dashboard: "
_FIRST_DECISION = "tick: 3 VMs"
_ALL_HEALTHY = "tick: 3 VMs, 3 HEALTHY"
_INSTALLED = "set-up done in "
_STOP_SECONDS = 30
_RUN_ARGUMENTS = ("--port", "0")


def measure_warm(options: Options) -> list[Figure]:
    """``python -m devcloud run``, as often as wanted."""
    command = [sys.executable, "-m", "devcloud", "run", *_RUN_ARGUMENTS]
    runs = []
    for _ in range(options.repeat_or(3)):
        runs.append(_moments(command, ROOT, (_SERVES, _FIRST_DECISION, _ALL_HEALTHY)))
        options.progress(f"warm: all healthy after {runs[-1][2]:.1f} s")
    serves, first, healthy = zip(*runs, strict=True)
    note = "ticks come every 15 s"
    return [
        Figure("warm start -> everything runs", "s", serves),
        Figure("warm start -> first decision", "s", first, note=note),
        Figure("warm start -> all 3 VMs healthy", "s", healthy, note=note),
    ]


def measure_cold(options: Options) -> list[Figure]:
    """Clone HEAD into a directory elsewhere and ``make run`` there; needs the network, takes minutes."""
    runs = []
    for _ in range(options.repeat_or(1)):
        with _clone() as checkout:
            options.progress("cold: cloned; make run")
            # The interpreter beneath the virtual environment, so that nothing installed here is of use there.
            python = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
            command = ["make", "run", f"PYTHON={python}", f"ARGS={' '.join(_RUN_ARGUMENTS)}"]
            runs.append(_moments(command, checkout, (_INSTALLED, _FIRST_DECISION, _ALL_HEALTHY)))
    installed, first, healthy = zip(*runs, strict=True)
    starts = tuple(end - begin for begin, end in zip(installed, healthy, strict=True))
    return [
        Figure("clean checkout -> installed", "s", installed, note="packages from PyPI and npm"),
        Figure("installed -> all 3 VMs healthy", "s", starts),
        Figure("clean checkout -> first decision", "s", first),
        Figure("clean checkout -> all 3 VMs healthy", "s", healthy),
    ]


@contextmanager
def _clone() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="watchdog-cold-"))
    try:
        checkout = directory / "checkout"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(checkout)], check=True)
        yield checkout
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _moments(command: Sequence[str], directory: Path, lines: Sequence[str]) -> tuple[float, ...]:
    """Run ``command`` until it has written all of ``lines``, then Ctrl-C it; returns the seconds to each."""
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        found = _first_lines(process, lines)
        return tuple(found[line] - started for line in lines)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=_STOP_SECONDS)


def _first_lines(process: subprocess.Popen[str], wanted: Sequence[str]) -> dict[str, float]:
    """When each of ``wanted`` was first written; one line may be more than one of them."""
    assert process.stdout is not None
    said: list[str] = []
    found: dict[str, float] = {}
    while len(found) < len(wanted):
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"it ended without saying all of {wanted}; it said:\n{''.join(said[-20:])}")
        said.append(line)
        now = time.monotonic()
        found |= {text: now for text in wanted if text in line and text not in found}
    return found
