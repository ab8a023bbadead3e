"""What Azure's SDKs raise, in this project's own error tree. Nothing above an adapter sees ``azure.core``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    DecodeError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)

from vm_health.errors import ConflictError, NotFoundError, PermanentError, TransientError

MAX_DETAIL_CHARS = 300
# How ARM words a missing role: "… does not have authorization to perform action '…' over scope '…' or …".
_MISSING = re.compile(r"perform (?:the )?action '([^']{1,120})' (?:over|on) (?:the )?scope '([^']{1,400})'")


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Run a block of SDK calls; ``what`` names them in the error.

    Raises:
        ConflictError: 409 and 412.
        NotFoundError: 404.
        TransientError: no answer, one that makes no sense, 408, 429 and 5xx, with ``Retry-After``'s seconds.
        PermanentError: everything else, a missing role (403) above all.
    """
    try:
        yield
    except (ResourceModifiedError, ResourceExistsError) as error:
        raise ConflictError(f"{what}: {short(error)}") from error
    except (ServiceRequestError, ServiceResponseError) as error:
        raise TransientError(f"{what}: {short(error)}") from error
    except ClientAuthenticationError as error:
        raise PermanentError(f"{what}: not authenticated: {short(error)}") from error
    except DecodeError as error:
        raise TransientError(f"{what}: {short(error)}") from error
    except ResourceNotFoundError as error:
        raise NotFoundError(f"{what}: {short(error)}") from error
    except HttpResponseError as error:
        status = error.status_code or 0
        if status in (408, 429) or status >= 500:
            raise TransientError(f"{what}: {short(error)}", retry_after_seconds(error)) from error
        raise PermanentError(f"{what}: {short(error)}") from error
    except AzureError as error:
        raise TransientError(f"{what}: {short(error)}") from error


def short(error: AzureError) -> str:
    """Return status, code and the first line of an SDK error: the rest repeats the whole response.

    Of a missing role it is the action and the scope, which may be longer than the rest is ever shown.
    """
    code = getattr(getattr(error, "error", None), "code", None) or getattr(error, "error_code", None)
    missing = missing_permission(error)
    if missing is not None:
        return f"403 {code}: the watchdog's identity may not {missing[0]} on {missing[1]}"
    status = f"{error.status_code} " if isinstance(error, HttpResponseError) and error.status_code else ""
    lines = (error.message or str(error)).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    prefix = f"{status}{code}: " if code and str(code) not in text else status
    return f"{prefix}{text}"[:MAX_DETAIL_CHARS]


def retry_after_seconds(error: HttpResponseError) -> float | None:
    """Return what ``Retry-After`` asks for in seconds, where the response carries it as a number."""
    headers: Mapping[str, str] = getattr(error.response, "headers", {})
    value = headers.get("Retry-After") or ""
    return float(value) if value.isdecimal() else None


def missing_permission(error: AzureError) -> tuple[str, str] | None:
    """Return the action and the scope that a 403 of Azure Resource Manager names, None where it is none."""
    if not isinstance(error, HttpResponseError) or error.status_code != 403:
        return None
    match = _MISSING.search(error.message or "")
    return None if match is None else (match[1], match[2])
