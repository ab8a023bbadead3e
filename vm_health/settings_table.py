"""Settings as a table: both sides parse, document and check theirs with this one piece.

Pure: the environment comes in as a mapping. A kind turns text into a value or raises ``ValueError`` with
what the text must be; it never repeats the text, for that may be a secret.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class Secret:
    """A text that shows itself only when asked by name: no log, repr or traceback holds it by accident."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def __repr__(self) -> str:
        return "Secret(…)" if self._text else "Secret()"

    def __bool__(self) -> bool:
        return bool(self._text)

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its name in the environment without the prefix, its default as text, its kind, its help.

    ``absent`` is the value where nothing is given and there is no default; ``alias`` is a whole variable
    name that others have coined and that counts too; ``required`` makes absence a fault.
    """

    name: str
    default: str
    parse: Callable[[str], Any]
    help: str
    absent: Any = ""
    secret: bool = False
    alias: str = ""
    required: bool = False

    @property
    def key(self) -> str:
        """The name in a file, and the field of the configuration."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Given:
    """A setting's text and where it was found."""

    text: str
    where: str


def read_values(
    settings: Iterable[Setting],
    prefix: str,
    environ: Mapping[str, str],
    faults: list[str],
    table: Mapping[str, Given] | None = None,
) -> dict[str, Any]:
    """Parse every setting from ``environ``, then from ``table`` (a file), noting all faults in ``faults``."""
    values: dict[str, Any] = {}
    for setting in settings:
        given = _given(setting, prefix, environ, table or {})
        if given is None and setting.required:
            faults.append(f"{prefix}{setting.name} must be set: {setting.help}")
            continue
        if given is None and not setting.default:
            values[setting.key] = setting.absent
            continue
        found = given or Given(setting.default, prefix + setting.name)
        try:
            values[setting.key] = setting.parse(found.text)
        except ValueError as error:
            was = "a secret that is not shown" if setting.secret else repr(found.text[:200])
            faults.append(f"{found.where} must be {error}, was {was}")
    return values


def _given(
    setting: Setting, prefix: str, environ: Mapping[str, str], table: Mapping[str, Given]
) -> Given | None:
    """Find a setting's text; an empty variable counts as not given, as settings files often hold them."""
    for name in (prefix + setting.name, setting.alias):
        text = environ.get(name, "").strip() if name else ""
        if text:
            return Given(text, name)
    return table.get(setting.key)


def unknown_names(
    names: Iterable[str], known: Iterable[str], where: Mapping[str, str] | None = None
) -> list[str]:
    """Return a fault for every unknown name, with the nearest known one; ``where`` says where it stands."""
    known = sorted(known)
    return [
        f"{(where or {}).get(name, name)} is not a setting{_nearest(name, known)}"
        for name in sorted(names)
        if name not in known
    ]


def _nearest(name: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only for the mistaken

    found = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {found[0]}?" if found else ""


def example_lines(settings: Iterable[Setting], prefix: str) -> list[str]:
    """Return the settings as the lines of a ``.env.example``: help, then the default, commented out."""
    lines: list[str] = []
    for setting in settings:
        lines += ["", f"# {setting.help}", f"#{prefix}{setting.name}={setting.default}"]
    return lines


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return the kind "whole number from ``low`` to ``high``"."""

    def parse(text: str) -> int:
        if text.isascii() and text.isdigit() and low <= int(text[:20]) <= high:
            return int(text)
        raise ValueError(f"a whole number from {low} to {high}")

    return parse


def number(low: float, high: float) -> Callable[[str], float]:
    """Return the kind "number from ``low`` to ``high``"."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # also catches nan
            raise ValueError(f"a number from {low:g} to {high:g}")
        return value

    return parse


def choice(*words: str) -> Callable[[str], str]:
    """Return the kind "one of ``words``", in any case."""

    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError("one of " + ", ".join(words))
        return text.lower()

    return parse


def list_of(kind: Callable[[str], Any], max_items: int = 100) -> Callable[[str], tuple[Any, ...]]:
    """Return the kind "items of ``kind`` with commas between them"; empty items are left out."""

    def parse(text: str) -> tuple[Any, ...]:
        items = [item.strip() for item in text.split(",") if item.strip()]
        if not 1 <= len(items) <= max_items:
            raise ValueError(f"1 to {max_items} items separated by commas")
        return tuple(kind(item) for item in items)

    return parse
