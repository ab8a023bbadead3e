"""What all measurements are given, and where the checkout is."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Options:
    """``repeat`` None leaves the number of runs to the measurement."""

    repeat: int | None = None

    def repeat_or(self, default: int) -> int:
        """How many runs to make."""
        return self.repeat or default

    def progress(self, text: str) -> None:
        """Tell who waits what is done; the table alone goes to standard output."""
        print(f"  … {text}", file=sys.stderr, flush=True)
