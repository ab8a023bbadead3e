"""Which form of a page a client gets: from ``?format=`` or the ``Accept`` header (RFC 9110, 12.5.1). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_MAX_WISHES = 50


@dataclass(frozen=True, slots=True)
class Form:
    """A form that a page has. ``versions`` are those of the media type that a client may ask for."""

    name: str
    media_type: str
    content_type: str
    versions: tuple[str, ...] = ("",)


HTML = Form("html", "text/html", "text/html; charset=utf-8")
PLAIN = Form("text", "text/plain", "text/plain; charset=utf-8")
JSON = Form("json", "application/json", "application/json")
PROMETHEUS = Form("prometheus", "text/plain", "text/plain; version=0.0.4; charset=utf-8", ("", "0.0.4"))
OPENMETRICS = Form(
    "openmetrics",
    "application/openmetrics-text",
    "application/openmetrics-text; version=1.0.0; charset=utf-8",
    ("", "0.0.1", "1.0.0"),
)


def by_accept(accept: str, forms: Sequence[Form]) -> Form:
    """Return the one of ``forms`` that ``accept`` wishes most.

    Among equals the one that it names most exactly wins, then the first of ``forms``. A client that
    accepts none of them gets the first: a form too many is better than an error to a probe.
    """
    wishes = [wish for item in accept.split(",")[:_MAX_WISHES] if (wish := _wish(item)) is not None]
    ranks = [(_rank(form, wishes), -place, form) for place, form in enumerate(forms)]
    return max(ranks, key=lambda rank: rank[:2])[2]


@dataclass(frozen=True, slots=True)
class _Wish:
    media_type: str
    version: str
    weight: float

    def exactness(self, form: Form) -> int:
        """Return 3 for the type itself, 2 for its family, 1 for anything, 0 for something else."""
        if self.media_type == form.media_type:
            return 3 if self.version in form.versions else 0
        if self.media_type == form.media_type.partition("/")[0] + "/*":
            return 2
        return int(self.media_type == "*/*")


def _wish(item: str) -> _Wish | None:
    """Read one element of ``Accept``; None for what is none."""
    media_type, *parameters = [part.strip().lower() for part in item.split(";")]
    found = dict(parameter.partition("=")[::2] for parameter in parameters)
    try:
        weight = float(found.get("q", "1"))
    except ValueError:
        return None
    if not media_type or not 0 <= weight <= 1:
        return None
    return _Wish(media_type, found.get("version", "").strip('"'), weight)


def _rank(form: Form, wishes: Sequence[_Wish]) -> tuple[float, int]:
    """Return the weight of the wish that speaks of ``form`` most exactly, and how exactly it does."""
    exactness, weight = max(((wish.exactness(form), wish.weight) for wish in wishes), default=(0, 0.0))
    return (weight, exactness) if exactness else (0.0, 0)
