"""What an answer of the ingestion endpoint means for the items that were sent. Pure.

Rules: Application Insights' own: 200 all taken; 206 judged item by item; 400, 402 and 439 say that the items
will never be taken; 307 and 308 name another host; everything else is worth another try later.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

# 413 is not in Azure's list: but the same batch cannot become smaller, and would hold up all behind it.
_NEVER_TAKEN = {400: "bad items", 402: "quota used up", 413: "too large", 439: "daily cap reached"}
_ITEM_RETRIED = frozenset({401, 403, 408, 429, 500, 502, 503, 504})
MAX_WAIT_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """``resend`` are positions within the batch; ``wait_seconds`` is what the service asked for, else 0."""

    accepted: int = 0
    dropped: int = 0
    resend: tuple[int, ...] = ()
    wait_seconds: float = 0.0
    redirect: str = ""
    reason: str = ""


def judge(
    status: int, body: bytes, items: int, now: datetime, *, retry_after: str = "", location: str = ""
) -> Outcome:
    """Return what happened to a batch of ``items`` items that was answered like this."""
    if status == 200:
        return Outcome(accepted=items)
    if status == 206:
        return _judge_each(body, items, wait_seconds(retry_after, now))
    if status in (307, 308) and location:
        return Outcome(resend=tuple(range(items)), redirect=location, reason=f"{status} redirect")
    if status in _NEVER_TAKEN:
        return Outcome(dropped=items, reason=f"{status} {_NEVER_TAKEN[status]}")
    return Outcome(
        resend=tuple(range(items)), wait_seconds=wait_seconds(retry_after, now), reason=f"answer {status}"
    )


def wait_seconds(retry_after: str, now: datetime) -> float:
    """Read ``Retry-After``, seconds or an HTTP date; 0 where it is absent or nonsense, an hour at most."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), MAX_WAIT_SECONDS)
    try:
        from email.utils import parsedate_to_datetime  # noqa: PLC0415 - hardly ever needed

        moment = parsedate_to_datetime(text)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return min(max(0.0, (aware - now).total_seconds()), MAX_WAIT_SECONDS)
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0


def _judge_each(body: bytes, items: int, wait: float) -> Outcome:
    """Sort the items of a 206: what is not listed was taken, what is listed may be tried again or not."""
    resend: set[int] = set()
    refused: set[int] = set()
    reasons = []
    for error in _errors(body):
        index, code = error.get("index"), error.get("statusCode")
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < items:
            continue
        (resend if code in _ITEM_RETRIED else refused).add(index)
        reasons.append(f"{code} {str(error.get('message', ''))[:80]}".strip())
    refused -= resend
    return Outcome(
        accepted=items - len(resend) - len(refused),
        dropped=len(refused),
        resend=tuple(sorted(resend)),
        wait_seconds=wait,
        reason="206 partly taken: " + "; ".join(sorted(set(reasons))[:3]),
    )


def _errors(body: bytes) -> list[dict[str, Any]]:
    try:
        found = json.loads(body).get("errors") or []
        return [error for error in found if isinstance(error, dict)]
    except (ValueError, AttributeError, TypeError, RecursionError):
        return []  # unreadable: sending all again would store the taken ones twice
