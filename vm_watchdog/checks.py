"""Checking what was asked for: all faults at once, each with its field, what it must be and what it was."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from vm_health.errors import ConfigError
from vm_watchdog.api_requests import FieldFault, Input

MAX_FAULTS = 50
InputT = TypeVar("InputT", bound=Input)


class InputError(ConfigError):
    """What was asked for is not valid; carries every fault, field by field."""

    def __init__(self, errors: Sequence[FieldFault], source: str = "the request") -> None:
        self.errors = tuple(errors[:MAX_FAULTS])
        super().__init__(source, [str(fault) for fault in self.errors])


def checked(model: type[InputT], values: Mapping[str, Any]) -> InputT:
    """Return ``values`` as ``model``.

    Raises:
        InputError: with every fault, also of fields that don't fit together.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        faults = [_fault(item) for item in error.errors(include_url=False)]
        together = model.cross_faults(values)
    known = {fault.field for fault in together}
    # The model itself finds faults between fields only where each field is fine, and then without a name.
    raise InputError([*(fault for fault in faults if fault.field), *together] if known else faults) from None


def checked_by(model: type[InputT], by: str, values: Mapping[str, Any]) -> InputT:
    """Return ``values`` of somebody who must say who asks.

    Raises:
        InputError: with every fault.
    """
    missing = by_faults(by)
    try:
        asked = checked(model, {**values, "by": by})
    except InputError as error:
        raise InputError([*error.errors, *missing]) from None
    refuse(missing)
    return asked


def by_faults(by: str) -> list[FieldFault]:
    """List what is wrong with who asks."""
    return [] if by.strip() else [FieldFault("by", "must say who asks")]


def refuse(faults: Sequence[FieldFault]) -> None:
    """Raise them, where there are any.

    Raises:
        InputError: with every fault.
    """
    if faults:
        raise InputError(faults)


def _fault(item: Any) -> FieldFault:
    kind, context = item["type"], item.get("ctx", {})
    match kind:
        case "missing":
            problem = "must be given"
        case "extra_forbidden":
            problem = "is not known here"
        case "value_error":
            problem = str(context["error"])
        case "string_too_long":
            problem = f"must be at most {context['max_length']} characters"
        case "string_too_short":
            problem = f"must be at least {context['min_length']} characters"
        case "string_unicode":
            problem = "must be text without half characters"
        case _:
            problem = str(item["msg"]).replace("Input should be", "must be")
    is_shown = kind not in ("missing", "extra_forbidden")
    return FieldFault(_place(item["loc"]), problem, _shown(item.get("input")) if is_shown else None)


def _place(parts: Sequence[str | int]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")
    return text.encode("ascii", "backslashreplace").decode()[:80]


def _shown(value: object) -> str:
    # Nested values are named, not shown; JSON's own escapes keep half characters out of the answer.
    if isinstance(value, str | int | float | bool) or value is None:
        text = json.dumps(value)
        return text if len(text) <= 80 else f"{text[:80]}…"
    return "a list" if isinstance(value, list) else "an object"
