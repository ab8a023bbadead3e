"""Access tokens of the local Azure: minted by its identity endpoint, verified by its other servers.

Signed with a secret of this run, so a token of another run is refused. Not Entra ID: no users, no consent.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jwt

TENANT_ID = "00000000-0000-4000-8000-0000000000aa"
OBJECT_ID = "00000000-0000-4000-8000-0000000000bb"
CLIENT_ID = "00000000-0000-4000-8000-0000000000cc"
_ALGORITHM = "HS256"


@dataclass(frozen=True, slots=True)
class MintedToken:
    """A token with its life as epoch seconds."""

    text: str
    not_before: int
    expires_on: int
    resource: str


class TokenRefused(Exception):  # noqa: N818 - the field's word for what happened
    """A bearer token that a server doesn't take, with the reason and whether only its audience is wrong."""

    def __init__(self, reason: str, *, wrong_audience: bool = False) -> None:
        super().__init__(reason)
        self.wrong_audience = wrong_audience


class Tokens:
    """Mints and verifies; one instance a run."""

    def __init__(self) -> None:
        self._secret = secrets.token_hex(32)

    def mint(self, resource: str, lifetime_seconds: int = 86_400, *, upn: str = "") -> MintedToken:
        """A token for ``resource``; a negative life gives one that has expired, ``upn`` a person's."""
        now = int(time.time())
        expires_on = now + lifetime_seconds
        not_before = min(now, expires_on) - 5  # Azurite compares with its own clock, strictly
        claims = {
            "aud": resource,
            "iss": f"https://sts.windows.net/{TENANT_ID}/",
            "iat": not_before,
            "nbf": not_before,
            "exp": expires_on,
            "oid": OBJECT_ID,
            "sub": OBJECT_ID,
            "appid": CLIENT_ID,
            "tid": TENANT_ID,
            "ver": "1.0",
        }
        if upn:
            claims["upn"] = upn
        text = jwt.encode(claims, self._secret, algorithm=_ALGORITHM)
        return MintedToken(text, not_before, expires_on, resource)

    def verify(self, authorization: str | None, audiences: Collection[str]) -> Mapping[str, Any]:
        """Check an ``Authorization`` header and return the token's claims; raises TokenRefused.

        A trailing slash of an audience is free.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise TokenRefused("the 'Authorization' header with a Bearer token is missing")
        options: jwt.types.Options = {"verify_aud": False, "require": ["aud", "exp", "nbf", "iss"]}
        try:
            claims = jwt.decode(token, self._secret, algorithms=[_ALGORITHM], options=options)
        except jwt.ExpiredSignatureError as problem:
            raise TokenRefused("the access token has expired") from problem
        except jwt.InvalidTokenError as problem:
            raise TokenRefused(f"the access token is invalid: {problem}") from problem
        if str(claims["aud"]).rstrip("/") not in {audience.rstrip("/") for audience in audiences}:
            raise TokenRefused(
                f"the access token is for audience {claims['aud']!r}, must be one of {sorted(audiences)}",
                wrong_audience=True,
            )
        return claims
