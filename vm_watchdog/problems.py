"""Errors of the HTTP API and of operators' requests, and how they read as problem documents (RFC 9457).

What a library or Azure said never gets out from here: it may hold addresses and tokens. It is logged instead.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from vm_health.errors import ConflictError, NotFoundError, TransientError, WatchdogError
from vm_watchdog.api_models import FieldProblem, Problem
from vm_watchdog.api_requests import FieldFault
from vm_watchdog.checks import InputError
from vm_watchdog.http_message import Reply

log = logging.getLogger("vm_watchdog.http")

CONTENT_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:vm-watchdog:problem:"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem: ``slug`` ends its type, ``title`` is the same each time."""

    slug: str
    status: int
    title: str


INVALID_INPUT = Kind("invalid-input", 400, "The request is not valid")
NOT_FOUND = Kind("not-found", 404, "It is not there")
METHOD_NOT_ALLOWED = Kind("method-not-allowed", 405, "This path does not know that method")
AMBIGUOUS_NAME = Kind("ambiguous-name", 409, "More than one VM has this name")
HELD = Kind("held", 409, "The action is held")
CHANGED_MEANWHILE = Kind("changed-meanwhile", 409, "Somebody else changed it at the same time")
TOO_LARGE = Kind("too-large", 413, "The body is too large")
UNSUPPORTED_MEDIA_TYPE = Kind("unsupported-media-type", 415, "The body must be JSON")
TOO_MANY_REQUESTS = Kind("too-many-requests", 429, "Too many requests")
INTERNAL = Kind("internal", 500, "The watchdog failed")
REFUSED = Kind("refused", 502, "What the watchdog depends on refused")
UNAVAILABLE = Kind("unavailable", 503, "What the watchdog depends on did not answer")
KINDS = (
    INVALID_INPUT,
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
    AMBIGUOUS_NAME,
    HELD,
    CHANGED_MEANWHILE,
    TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    TOO_MANY_REQUESTS,
    INTERNAL,
    REFUSED,
    UNAVAILABLE,
)


class UnknownError(NotFoundError):
    """There is no VM, or silence, of that name."""


class AmbiguousError(ConflictError):
    """More than one VM has that name."""


class HeldError(ConflictError):
    """The action is not allowed now; the message says what holds it."""


_OURS: Mapping[type[Exception], Kind] = {
    UnknownError: NOT_FOUND,
    AmbiguousError: AMBIGUOUS_NAME,
    HeldError: HELD,
}


class HttpError(WatchdogError):
    """A request that is refused before anybody looks at what it asks for."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[FieldFault] = (),
    ) -> None:
        self.kind = kind
        self.headers = headers or {}
        self.errors = tuple(errors)
        super().__init__(detail)


def problem_reply(error: Exception, path: str) -> Reply:
    """Return ``error`` as a problem document about the request for ``path``."""
    kind, detail = _kind_and_detail(error)
    errors = error.errors if isinstance(error, InputError | HttpError) else ()
    headers = dict(error.headers) if isinstance(error, HttpError) else {}
    if isinstance(error, TransientError) and error.retry_after_seconds is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after_seconds))
    document = Problem(
        type=TYPE_PREFIX + kind.slug,
        title=kind.title,
        status=kind.status,
        detail=detail,
        instance=quote(path, safe="/%"),
        errors=[FieldProblem(field=one.field, problem=one.problem, was=one.was) for one in errors],
    )
    return Reply(kind.status, document.model_dump_json(), CONTENT_TYPE, headers)


def _kind_and_detail(error: Exception) -> tuple[Kind, str]:
    if isinstance(error, HttpError):
        return error.kind, str(error)
    if isinstance(error, InputError):
        return INVALID_INPUT, f"{len(error.errors)} of its fields must be different"
    for of, kind in _OURS.items():
        if isinstance(error, of):
            return kind, str(error)
    if isinstance(error, ConflictError):
        return CHANGED_MEANWHILE, "nothing was done; please try again"
    log.error("a request failed", exc_info=error)
    is_known = isinstance(error, WatchdogError)
    kind = UNAVAILABLE if isinstance(error, TransientError) else REFUSED if is_known else INTERNAL
    return kind, "nothing more can be said here; the watchdog's log tells"
