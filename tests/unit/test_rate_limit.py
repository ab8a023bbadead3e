"""Token buckets: what is granted, what is refused and for how long, and what is remembered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_watchdog.rate_limit import Rate, RateLimiter

PLENTY = Rate(0.001, 10_000)


def test_a_burst_is_granted_and_then_one_each_few_seconds() -> None:
    limiter = RateLimiter(Rate(5.0, 3), PLENTY)
    assert [limiter.take("a", 100.0) for _ in range(4)] == [0.0, 0.0, 0.0, 5.0]
    assert limiter.take("a", 104.0) == pytest.approx(1.0)
    assert limiter.take("a", 105.0) == 0.0
    assert limiter.take("a", 105.0) == 5.0


def test_one_keys_greed_is_no_others_loss() -> None:
    limiter = RateLimiter(Rate(5.0, 1), PLENTY)
    assert limiter.take("a", 0.0) == 0.0
    assert limiter.take("a", 0.0) > 0
    assert limiter.take("b", 0.0) == 0.0


def test_all_together_have_a_limit_and_a_refused_key_keeps_its_tokens() -> None:
    limiter = RateLimiter(Rate(5.0, 2), Rate(1.0, 3))
    granted = [limiter.take(key, 0.0) for key in "abcd"]
    assert granted == [0.0, 0.0, 0.0, 1.0]
    assert limiter.take("d", 1.0) == 0.0
    assert limiter.take("d", 2.0) == 0.0


def test_a_clock_that_is_set_back_neither_gives_nor_blocks_for_good() -> None:
    limiter = RateLimiter(Rate(5.0, 1), PLENTY)
    assert limiter.take("a", 1_000.0) == 0.0
    assert limiter.take("a", 0.0) == 5.0
    assert limiter.take("a", 5.0) == 0.0


def test_memory_is_bounded_and_the_longest_silent_key_is_forgotten() -> None:
    limiter = RateLimiter(Rate(1_000.0, 1), Rate(0.0001, 1_000_000), max_keys=100)
    for number in range(10_000):
        limiter.take(f"vm-{number}", float(number))
    assert len(limiter) == 100
    assert limiter.take("vm-9999", 10_000.0) > 0
    assert limiter.take("vm-1", 10_000.0) == 0.0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 3)), max_size=200))
def test_never_more_than_burst_and_rate_allow(asks: list[tuple[str, float]]) -> None:
    """Whatever is asked when: over any time from the start, a key gets its burst and one each 2 s at most."""
    limiter = RateLimiter(Rate(2.0, 2), Rate(0.5, 4))
    now, granted = 0.0, {"a": 0, "b": 0, "c": 0}
    for key, pause in asks:
        now += pause
        wait = limiter.take(key, now)
        granted[key] += wait == 0.0
        assert 0.0 <= wait <= 2.0
        assert granted[key] <= 2 + now / 2.0 + 1e-6
        assert sum(granted.values()) <= 4 + now / 0.5 + 1e-6
