"""Sentences of scenario files: templates with places, and what is meant by them. Knows no sentence itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

_PLACES = {
    "vms": r"every VM|[a-z]+-\d+(?:, [a-z]+-\d+)*",
    "vm": r"[a-z]+-\d+",
    "n": r"\d+",
    "m": r"\d+",
    "text": r'"[^"]*"',
    "person": r"[\w.@-]+",
    "word": r"[a-z_]+",
    "before": r"[A-Z]+|\*",
    "after": r"[A-Z]+|\*",
    "value": r"[\w-]+",
}
_PLACE = re.compile(r"\{(\w+)\}")
MeaningT = TypeVar("MeaningT")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A line's sentence: what it means, the VMs that it names, and what stood in its other places."""

    meaning: Any
    vms: tuple[str, ...]
    places: dict[str, str]

    def about(self, vms: tuple[str, ...]) -> Sentence:
        """The same of other VMs: "every VM" is known only when the file is read."""
        return replace(self, vms=vms)


@dataclass(slots=True)
class Sentences(Generic[MeaningT]):
    """A table of templates such as ``kill the worker on {vms}``; the first that fits counts."""

    table: dict[str, MeaningT] = field(default_factory=dict)
    _patterns: dict[str, re.Pattern[str]] = field(default_factory=dict)

    def add(self, template: str, meaning: MeaningT) -> None:
        """Know one more sentence."""
        assert template not in self.table
        self.table[template] = meaning
        parts = _PLACE.split(template)
        pattern = "".join(
            f"(?P<{part}>{_PLACES[part]})" if index % 2 else re.escape(part)
            for index, part in enumerate(parts)
        )
        self._patterns[template] = re.compile(pattern)

    def means(self, template: str) -> Callable[[MeaningT], MeaningT]:
        """As a decorator."""

        def note(meaning: MeaningT) -> MeaningT:
            self.add(template, meaning)
            return meaning

        return note

    def read(self, text: str) -> Sentence | None:
        """Read a sentence, None where none of these fits."""
        for template, pattern in self._patterns.items():
            if (matched := pattern.fullmatch(text)) is not None:
                places = {name: found.strip('"') for name, found in matched.groupdict().items()}
                vms = tuple((places.get("vms") or places.get("vm") or "").split(", "))
                return Sentence(self.table[template], tuple(filter(None, vms)), places)
        return None
