"""What of a log line may leave the machine: short, printable, and without what looks like a secret.

A best effort: who logs secrets in other shapes must keep ``LOG_FILES`` and ``JOURNAL`` off those logs.
"""

from __future__ import annotations

import re

MAX_CHARS = 200
_MASK = "***"
_MAX_INPUT_CHARS = 4096
# NAME=value, NAME: value and "NAME": "value", where NAME ends like a secret's (DB_PASSWORD, x-functions-key).
# Every pattern starts with a fixed or bounded text: a hostile line must not cost more than its length.
_NAMED = re.compile(
    r"""(?ix)
    ( (?: password | passwd | pwd | passphrase | secret | token | signature | credentials?
        | (?: api | access | account | shared )key | [_-]key | \bkey | \bsig | \bsas )
      ["']? \s{0,8} [=:] \s{0,8}
    )
    ( "[^"]*" | '[^']*' | [^\s,;&"']+ )
    """
)
_AUTHORIZATION = re.compile(r"(?i)\b(bearer|basic|negotiate|sharedkey)\s+[\w.~+/=:-]{6,}")
_URL_PASSWORD = re.compile(r"(://[^\s:/@]*):[^\s@/]+@")
_JWT = re.compile(r"\beyJ[\w-]{5,2000}\.[\w-]+\.?[\w-]*")
_CONNECTION_STRING = re.compile(r"(?i)\b(InstrumentationKey|AccountKey|SharedAccessKey)\s*=\s*[^\s;]+")


def excerpt(line: str) -> str:
    """Return ``line`` as it may be reported: masked, then cut to 200 printable characters."""
    text = "".join(
        character if character.isprintable() and not "\ud800" <= character <= "\udfff" else " "
        for character in line[:_MAX_INPUT_CHARS]
    )
    text = _JWT.sub(_MASK, text)
    text = _AUTHORIZATION.sub(rf"\1 {_MASK}", text)
    text = _URL_PASSWORD.sub(rf"\1:{_MASK}@", text)
    text = _CONNECTION_STRING.sub(rf"\1={_MASK}", text)
    text = " ".join(_NAMED.sub(rf"\1{_MASK}", text).split())
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"
