"""Single calls to Azure Resource Manager beside the SDK's own operations, and how one was refused in words.

They go through the compute client's pipeline (token, TLS, retries), give plain JSON and never leave its host.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from aiohttp import ClientConnectorError
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    DecodeError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServiceResponseError,
    map_error,
)
from azure.core.rest import HttpRequest
from azure.mgmt.core.exceptions import ARMErrorFormat

from vm_health.state import Lane, StartKind, StartOutcome
from vm_watchdog.azure_errors import retry_after_seconds, short

if TYPE_CHECKING:
    from azure.core.rest import AsyncHttpResponse
    from azure.mgmt.compute.aio import ComputeManagementClient

# The SDK would sleep for as long as ``Retry-After`` says, inside the tick and with every other VM waiting.
# What repeats attempts is the backoff, or the next look.
ONCE: Mapping[str, Any] = {"retry_total": 0}
CALL_SECONDS = 20.0
COMPUTE_API = {"api-version": "2026-04-01"}  # what azure-mgmt-compute 39.0 itself asks for
_ERRORS = {401: ClientAuthenticationError, 404: ResourceNotFoundError, 409: ResourceExistsError}
_MOST_PAGES = 1_000
_NOT_RUNNING = re.compile(r"to be running|not running", re.IGNORECASE)


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Bound a block of calls.

    Raises:
        ServiceResponseError: there was no answer in time.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise ServiceResponseError(f"no answer within {seconds:g} s") from error


async def send(
    client: ComputeManagementClient, request: HttpRequest, *, seconds: float = CALL_SECONDS, **options: Any
) -> AsyncHttpResponse:
    """Send a request; an answer of 400 or more is raised as the SDK's own operations raise it."""
    async with within(seconds):
        # Streamed, or else the pipeline parses the body once for itself, and that is most of a list's cost.
        response = await client.send_request(request, stream=True, **options)
        await response.read()
    if response.status_code >= 400:
        map_error(status_code=response.status_code, response=response, error_map=_ERRORS)
        raise HttpResponseError(response=response, error_format=ARMErrorFormat)
    return response


def json_of(response: AsyncHttpResponse) -> dict[str, Any]:
    """Return the object in an answer's body.

    Raises:
        DecodeError: there is none.
    """
    try:
        # Not ``response.json()``: that guesses the encoding and keeps a second copy. ARM's JSON is UTF-8.
        body = json.loads(response.content)
    except (ValueError, RecursionError) as error:
        raise DecodeError("the answer is not JSON") from error
    if not isinstance(body, dict):
        raise DecodeError("the answer is not a JSON object")
    return body


async def pages(
    client: ComputeManagementClient,
    path: str,
    parameters: Mapping[str, str],
    *,
    most: int = _MOST_PAGES,
    **options: Any,
) -> AsyncIterator[list[dict[str, Any]]]:
    """Read a list page by page, ``most`` of them, each as plain JSON objects.

    Raises:
        DecodeError: a page is no list, or the next one would be on another host: no token goes there.
    """
    request: HttpRequest | None = HttpRequest("GET", path, params=dict(parameters))
    for _ in range(most):
        if request is None:
            return
        response = await send(client, request, **options)
        body = json_of(response)
        items = body.get("value")
        if not isinstance(items, list):
            raise DecodeError("the answer is not a list")
        yield [item for item in items if isinstance(item, dict)]
        request = _next(response, body.get("nextLink"))
    if request is not None and most == _MOST_PAGES:
        raise DecodeError(f"the list has more than {_MOST_PAGES} pages")


def _next(response: AsyncHttpResponse, link: object) -> HttpRequest | None:
    if not link:
        return None
    here, there = urlsplit(response.request.url), urlsplit(str(link))
    if (there.scheme, there.netloc) != (here.scheme, here.netloc):
        raise DecodeError(f"the list goes on at another host: {there.netloc[:100]!r}")
    return HttpRequest("GET", str(link))


def vm_path(subscription: str, resource_group: str, name: str) -> str:
    """Return a VM's path at ARM, whatever characters the names have."""
    subscription, resource_group, name = (
        quote(part, safe="") for part in (subscription, resource_group, name)
    )
    return (
        f"/subscriptions/{subscription}/resourceGroups/{resource_group}"
        f"/providers/Microsoft.Compute/virtualMachines/{name}"
    )


def error_code(error: AzureError) -> str:
    """Return ARM's code of an error, empty where it has none."""
    return str(getattr(getattr(error, "error", None), "code", None) or "")


def refusal(error: AzureError, lane: Lane) -> StartOutcome:
    """Tell why Azure did not start something, with the seconds that it asks to wait."""
    status = error.status_code if isinstance(error, HttpResponseError) else None
    wait = retry_after_seconds(error) if isinstance(error, HttpResponseError) else None
    text = short(error)
    if status == 429:
        asked = "" if wait is None else f", asked to wait {wait:.0f} s"
        return StartOutcome(StartKind.THROTTLED, f"Azure throttles{asked}: {text}", lane, wait)
    if status in (401, 403) or isinstance(error, ClientAuthenticationError):
        return StartOutcome(StartKind.FORBIDDEN, text, lane)
    if status == 409:
        return StartOutcome(_conflict(error), text, lane, wait)
    said_no = status is not None and status < 500 and status != 408
    if said_no or isinstance(error.inner_exception, ClientConnectorError):
        return StartOutcome(StartKind.FAILED, text, lane, wait)
    # No answer, or one that says nothing of what was done before it: the fencing token keeps that harmless.
    return StartOutcome(StartKind.FAILED, f"{text}; it may have been carried out all the same", lane, wait)


def _conflict(error: AzureError) -> StartKind:
    """Tell a VM that is off from one that is busy: ``OperationNotAllowed`` is said of both."""
    if _NOT_RUNNING.search(error.message or ""):
        return StartKind.NOT_RUNNING
    busy = error_code(error) != "OperationNotAllowed" or "in progress" in (error.message or "")
    return StartKind.BUSY if busy else StartKind.NOT_RUNNING
