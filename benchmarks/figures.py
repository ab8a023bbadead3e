"""A measured figure, and the table in which figures are shown. Measures nothing."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_COLUMNS = ("figure", "median", "worst", "unit", "goal", "runs", "note")
_TEXT_COLUMNS = frozenset({0, 3, 6})


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured, run by run. ``goal`` is the most that it may be."""

    what: str
    unit: str
    values: tuple[float, ...]
    goal: float | None = None
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def is_met(self) -> bool | None:
        """Whether the median reaches the goal; None where there is none."""
        return None if self.goal is None else self.median <= self.goal

    def cells(self) -> tuple[str, ...]:
        """The figure as a row of the table."""
        goal = "" if self.goal is None else f"<= {_number(self.goal)} {'met' if self.is_met else 'MISSED'}"
        runs = len(self.values)
        worst = _number(max(self.values)) if runs > 1 else ""
        return self.what, _number(self.median), worst, self.unit, goal, str(runs), self.note

    def to_dict(self) -> dict[str, Any]:
        """The figure as JSON-ready values."""
        return {
            "figure": self.what,
            "unit": self.unit,
            "median": self.median,
            "worst": max(self.values),
            "goal": self.goal,
            "met": self.is_met,
            "values": list(self.values),
            "note": self.note,
        }


def table(figures: Iterable[Figure]) -> str:
    """The figures as aligned text, numbers to the right."""
    rows = [_COLUMNS, *(figure.cells() for figure in figures)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(_COLUMNS))]
    lines = ["  ".join(_cell(row, index, widths) for index in range(len(row))).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def machine() -> dict[str, Any]:
    """What the figures were measured on, and how busy it was."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": os.cpu_count(),
        "GiB of memory": round(pages / 1024**3, 1),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "load": round(os.getloadavg()[0], 1),  # what else ran when the measurements began
    }


def other_pythons(own: Sequence[int] = ()) -> int:
    """How many Python processes run beside this one and ``own``: they share pages, and take time."""
    names = (entry / "comm" for entry in Path("/proc").glob("[0-9]*"))
    mine = {os.getpid(), *own}
    return sum(_is_python(name) for name in names if int(name.parent.name) not in mine)


def _is_python(name: Path) -> bool:
    try:
        return name.read_text().startswith("python")
    except OSError:  # it ended meanwhile
        return False


def _cell(row: Sequence[str], index: int, widths: Sequence[int]) -> str:
    return row[index].ljust(widths[index]) if index in _TEXT_COLUMNS else row[index].rjust(widths[index])


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
