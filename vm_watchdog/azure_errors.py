"""What Azure's SDKs raise, in this project's own error tree. Nothing above an adapter sees ``azure.core``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)

from vm_health.errors import ConflictError, NotFoundError, PermanentError, TransientError

MAX_DETAIL_CHARS = 300


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Run a block of SDK calls; ``what`` names them in the error.

    Raises:
        ConflictError: 409 and 412.
        NotFoundError: 404.
        TransientError: no answer, 408, 429 and 5xx, with the seconds of ``Retry-After``.
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
    """Return status, code and the first line of an SDK error: the rest repeats the whole response."""
    status = f"{error.status_code} " if isinstance(error, HttpResponseError) and error.status_code else ""
    code = getattr(getattr(error, "error", None), "code", None) or getattr(error, "error_code", None)
    lines = (error.message or str(error)).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    prefix = f"{status}{code}: " if code and str(code) not in text else status
    return f"{prefix}{text}"[:MAX_DETAIL_CHARS]


def retry_after_seconds(error: HttpResponseError) -> float | None:
    """Return what ``Retry-After`` asks for in seconds, where the response carries it as a number."""
    headers: Mapping[str, str] = getattr(error.response, "headers", {})
    value = headers.get("Retry-After") or ""
    return float(value) if value.isdecimal() else None
