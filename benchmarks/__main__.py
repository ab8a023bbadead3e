"""``python -m benchmarks [NAME ...]``: measures on this machine and prints one table."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

from benchmarks.figures import Figure, machine, table
from benchmarks.options import Options

MEASUREMENTS: Mapping[str, str] = {  # loaded when asked for: the local Azure's packages are many
    "import": "imports:measure",
    "decisions": "decisions:measure",
    "tick": "tick:measure",
    "agent": "agent:measure",
    "warm": "start:measure_warm",
    "restart": "restart:measure",
    "cold": "start:measure_cold",
    "peers": "agent_peers:measure",
}
ON_REQUEST = frozenset({"cold", "peers"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is named, or all but what is on request; 0 if every goal is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(MEASUREMENTS)}; all but {', '.join(ON_REQUEST)} where none is named",
    )
    parser.add_argument("--repeat", type=_repeat, help="runs of each (1 to 100)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.names if name not in MEASUREMENTS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; must be of {', '.join(MEASUREMENTS)}")
    names = given.names or [name for name in MEASUREMENTS if name not in ON_REQUEST]
    about = machine()
    figures = [figure for name in names for figure in measurement(name)(Options(given.repeat))]
    print(", ".join(f"{name}: {value}" for name, value in about.items()), end="\n\n")
    print(table(figures))
    if given.json is not None:
        found = {"machine": about, "figures": [figure.to_dict() for figure in figures]}
        given.json.write_text(json.dumps(found, indent=2) + "\n")
    return 1 if any(figure.is_met is False for figure in figures) else 0


def measurement(name: str) -> Callable[[Options], list[Figure]]:
    """Load what measures ``name``."""
    module, _, function = MEASUREMENTS[name].partition(":")
    found: Callable[[Options], list[Figure]] = getattr(import_module(f"benchmarks.{module}"), function)
    return found


def _repeat(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 100, was {text}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
