"""Proof that the promises can be broken: every mutation, played in a copy of the tree until a story meets it.

``python -m tests.properties.mutants [PART OF A NAME]`` prints a table; its exit code is the number of
mutations that no story met.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.properties.mutations import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[2]
RUNS = int(os.environ.get("MUTANT_RUNS", "6000"))
TIMEOUT_SECONDS = 900.0


def meet(mutation: Mutation) -> tuple[bool, str]:
    """Play stories over a mutated copy of the tree; tell whether one met the mistake, and how it ended."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        for name in ("vm_health", "vm_watchdog", "vm_alerts", "tests"):
            ignored = shutil.ignore_patterns("__pycache__", "component", "e2e")
            shutil.copytree(ROOT / name, Path(folder) / name, ignore=ignored)
        path = Path(folder) / mutation.path
        path.write_text(mutation.apply(path.read_text()))
        command = [sys.executable, "-m", "tests.properties.search", mutation.flavour, str(RUNS)]
        try:
            ended = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return False, "time is up"
    words = (ended.stdout or ended.stderr.strip().rsplit("\n", 1)[-1]).split("\n", 1)[0]
    return ended.returncode == 1 and "story" in words, words


def main() -> int:
    """Print how every mutation ended."""
    chosen = [one for one in MUTATIONS if all(word in one.name for word in sys.argv[1:])]
    missed = 0
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        for mutation, (is_met, words) in zip(chosen, pool.map(meet, chosen), strict=True):
            missed += not is_met
            sys.stdout.write(f"{'met   ' if is_met else 'MISSED'}  {mutation.name:52}  {words[:150]}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(chosen) - missed} of {len(chosen)} mutations were met\n")
    return missed


if __name__ == "__main__":
    sys.exit(main())
