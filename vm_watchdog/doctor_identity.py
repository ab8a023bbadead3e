"""Who the watchdog is to Azure: tokens for every service, and the name in them. Shows no token, ever."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from azure.core.exceptions import ClientAuthenticationError

from vm_watchdog.azure_errors import short
from vm_watchdog.doctor import Check, Finding, Verdict

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

STORAGE_AUDIENCE = "https://storage.azure.com"
MONITOR_AUDIENCE = "https://monitor.azure.com"
_ADVICE = (
    "in Azure: give the function app its managed identity (and AZURE_CLIENT_ID where it is user-assigned);"
    " elsewhere: az login, or AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET"
)


def token_check(credential: AsyncTokenCredential, what: str, audience: str) -> Check:
    """Return the check that a token for ``audience`` can be had."""

    async def run() -> Finding:
        try:
            token = await credential.get_token(f"{audience}/.default")
        except ClientAuthenticationError as error:
            # The SDK's own text lists every way it tried, over many lines: the first says what matters.
            return Finding(Verdict.FAIL, f"no token for {audience}: {short(error)}", _ADVICE)
        left = datetime.fromtimestamp(token.expires_on, UTC) - datetime.now(UTC)
        minutes = round(left.total_seconds() / 60)
        found = f"a token for {audience}, valid for {minutes} min, as {identity_in(token.token)}"
        if minutes < 1:
            return Finding(Verdict.WARN, found, "is this machine's clock right?")
        return Finding(Verdict.OK, found)

    return Check(f"identity: {what}", run)


async def identity_of(credential: AsyncTokenCredential, audience: str) -> str:
    """Return who the watchdog is, in words; the plain words where that can't be told."""
    try:
        return identity_in((await credential.get_token(f"{audience}/.default")).token)
    except ClientAuthenticationError:
        return _NOBODY


def identity_in(token: str) -> str:
    """Return the name in a token: object id and application id are no secrets. The rest of it is."""
    claims = _claims(token)
    oid, app = claims.get("oid"), claims.get("appid") or claims.get("azp")
    if not isinstance(oid, str):
        return _NOBODY
    return f"object id {oid[:64]}" + (f" (application {app[:64]})" if isinstance(app, str) else "")


_NOBODY = "the watchdog's identity"


def _claims(token: str) -> dict[str, Any]:
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        padded = parts[1] + "=" * (-len(parts[1]) % 4)
        value = json.loads(base64.urlsafe_b64decode(padded))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
