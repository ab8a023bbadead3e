"""Who may see more than ``/health``: whoever has the token. Pure."""

from __future__ import annotations

from binascii import Error, a2b_base64
from collections.abc import Mapping

from vm_agent.http_answer import Answer, sentence
from vm_health.settings_table import Secret

_CHALLENGES = (
    ("WWW-Authenticate", 'Bearer realm="vm-agent"'),
    ("WWW-Authenticate", 'Basic realm="vm-agent", charset="UTF-8"'),
)


def is_allowed(token: Secret, headers: Mapping[str, str]) -> bool:
    """Tell whether the request with ``headers`` carries ``token``; without a token everybody may.

    A program sends it as a bearer token. A browser can't, so it counts as the password of HTTP's basic
    authentication too, with any user name.
    """
    if not token:
        return True
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    given = credentials.strip().encode("latin-1")
    if scheme.lower() == "basic":
        try:
            given = a2b_base64(given, strict_mode=True).partition(b":")[2]
        except Error:
            return False
    elif scheme.lower() != "bearer":
        return False
    import hmac  # noqa: PLC0415 - brings OpenSSL with it, and most agents have no token

    return hmac.compare_digest(given, token.reveal().encode())


def token_wanted() -> Answer:
    """Return the answer to whoever did not show the token."""
    return sentence(401, "this needs the token (VM_AGENT_TOKEN): Authorization: Bearer <token>", *_CHALLENGES)
