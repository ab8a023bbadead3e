"""Backoff: the waits, to the second, and how far jitter may move them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_health.backoff import BackoffPolicy, backoff_faults, delay


def test_the_waits_of_the_design() -> None:
    waits = [delay(attempt, BackoffPolicy()) for attempt in range(1, 9)]
    assert waits == [10, 20, 40, 80, 160, 300, 300, 300]


def test_the_last_step_repeats_forever() -> None:
    assert delay(10**6, BackoffPolicy((5.0,))) == 5.0


@pytest.mark.parametrize(
    ("attempt", "spread"), [(0, 0.0), (-1, 0.0), (1, 1.01), (1, -1.01), (1, float("nan"))]
)
def test_nonsense_is_refused(attempt: int, spread: float) -> None:
    with pytest.raises(ValueError, match=r"attempt|spread"):
        delay(attempt, BackoffPolicy(), spread)


@given(st.integers(1, 50), st.floats(-1, 1), st.floats(0, 0.5))
def test_jitter_stays_in_its_band(attempt: int, spread: float, fraction: float) -> None:
    plain = delay(attempt, BackoffPolicy())
    moved = delay(attempt, BackoffPolicy(jitter_fraction=fraction), spread)
    assert plain * (1 - fraction) - 1e-6 <= moved <= plain * (1 + fraction) + 1e-6


def test_jitter_reaches_both_ends_of_its_band() -> None:
    policy = BackoffPolicy(jitter_fraction=0.1)
    assert delay(3, policy, -1) == pytest.approx(36)
    assert delay(3, policy, 1) == pytest.approx(44)
    assert delay(3, policy, 0) == 40


@pytest.mark.parametrize(
    ("policy", "named"),
    [
        (BackoffPolicy(), []),
        (BackoffPolicy(()), ["1 to 20 steps"]),
        (BackoffPolicy((1.0,) * 21), ["1 to 20 steps"]),
        (BackoffPolicy((0.0, 1.0)), ["above 0"]),
        (BackoffPolicy((1.0, 86_401.0)), ["86400"]),
        (BackoffPolicy((float("nan"),)), ["above 0"]),
        (BackoffPolicy((20.0, 10.0)), ["must not fall"]),
        (BackoffPolicy(jitter_fraction=0.51), ["jitter"]),
        (BackoffPolicy(jitter_fraction=-0.1), ["jitter"]),
        (BackoffPolicy((-1.0, -2.0), 1.0), ["above 0", "must not fall", "jitter"]),
    ],
)
def test_every_fault_is_told(policy: BackoffPolicy, named: list[str]) -> None:
    faults = backoff_faults(policy)
    assert len(faults) == len(named)
    for fault, part in zip(faults, named, strict=True):
        assert part in fault
