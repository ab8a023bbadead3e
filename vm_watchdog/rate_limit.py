"""How often something may be asked for: token buckets, one a key and one for all, in bounded memory.

Pure: time is a parameter. What is limited, and what an answer to that looks like, is not known here.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """``burst`` at once, then one more every ``seconds_each``."""

    seconds_each: float
    burst: int


_ROUNDING = 1e-9


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float

    def refill(self, rate: Rate, now: float) -> None:
        # A clock that was set back gives nothing, and takes nothing away.
        gained = max(0.0, now - self.at) / rate.seconds_each
        self.tokens, self.at = min(float(rate.burst), self.tokens + gained), now

    def wait(self, rate: Rate) -> float:
        missing = 1.0 - self.tokens
        return missing * rate.seconds_each if missing > _ROUNDING else 0.0


class RateLimiter:
    """Grants or refuses; a refusal costs nothing. At most ``max_keys`` keys are remembered: the one that was
    not asked for the longest is forgotten first, and the limit for all holds whatever the keys do."""

    def __init__(self, each: Rate, overall: Rate, max_keys: int = 10_000) -> None:
        self._each = each
        self._overall = overall
        self._max_keys = max_keys
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._all = _Bucket(float(overall.burst), 0.0)

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str, now: float) -> float:
        """Take a token for ``key`` at ``now`` (seconds); return 0, or the seconds until there is one."""
        self._all.refill(self._overall, now)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = _Bucket(float(self._each.burst), now)
        bucket.refill(self._each, now)
        wait = max(bucket.wait(self._each), self._all.wait(self._overall))
        if wait > 0:
            return wait
        bucket.tokens -= 1
        self._all.tokens -= 1
        self._buckets[key] = bucket
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)
        return 0.0
