"""Writes metric families as Prometheus reads them: text format 0.0.4 and OpenMetrics 1.0. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

Labels = tuple[tuple[str, str], ...]
_SUFFIXES = {"counter": "_total", "info": "_info"}


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. ``name`` is without ``_total`` and ``_info``, which come with the kind.

    ``kind`` is OpenMetrics' word: gauge, counter or info. ``help`` needs no escaping.
    """

    name: str
    kind: str
    help: str
    samples: dict[Labels, float] = field(default_factory=dict)

    def add(self, value: float | None, **labels: str) -> None:
        """Note a value, none for None. One said twice would cost the whole scrape: the last one stays."""
        if value is not None:
            key = tuple((name, printable(text)) for name, text in labels.items() if text)
            self.samples[key] = float(value)


def printable(text: str) -> str:
    """Return ``text`` with what can't be seen (control characters, broken UTF-8) written as escapes."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def write(families: Iterable[Family], *, open_metrics: bool) -> str:
    """Return ``families`` as lines; a family without samples is left out.

    OpenMetrics names a family without its suffix and knows the kind "info", the older format does neither.
    Its closing ``# EOF`` is not written here.
    """
    return "".join(line for family in families if family.samples for line in _lines(family, open_metrics))


def _lines(family: Family, open_metrics: bool) -> Iterator[str]:
    sample_name = family.name + _SUFFIXES.get(family.kind, "")
    name = family.name if open_metrics else sample_name
    kind = "gauge" if family.kind == "info" and not open_metrics else family.kind
    yield f"# HELP {name} {family.help}\n# TYPE {name} {kind}\n"
    for labels, value in family.samples.items():
        yield f"{sample_name}{_braces(labels)} {_number(value)}\n"


def _braces(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(text)}"' for name, text in labels) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)


def gauges(table: Mapping[str, str]) -> dict[str, Family]:
    """Return an empty gauge for each name of ``table``, whose values are their help."""
    return {name: Family(name, "gauge", text) for name, text in table.items()}
