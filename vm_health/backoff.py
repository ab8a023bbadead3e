"""How long to wait before the next restart attempt."""

from __future__ import annotations

from dataclasses import dataclass

MAX_STEPS = 20


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """Waits in seconds before attempt 1, 2, 3…; the last one repeats.

    ``jitter_fraction`` spreads a fleet's attempts by up to ± that share of the wait.
    """

    steps_seconds: tuple[float, ...] = (10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
    jitter_fraction: float = 0.1


def delay(attempt: int, policy: BackoffPolicy, spread: float = 0.0) -> float:
    """Return the seconds to wait before ``attempt`` (counted from 1).

    ``spread`` in -1…1 places this caller inside the jitter band; 0 is the plain wait.

    Raises:
        ValueError: ``attempt`` is below 1 or ``spread`` outside -1…1.
    """
    if attempt < 1:
        raise ValueError(f"attempt must be 1 or more, was {attempt}")
    if not -1.0 <= spread <= 1.0:
        raise ValueError(f"spread must lie in -1…1, was {spread}")
    step = policy.steps_seconds[min(attempt, len(policy.steps_seconds)) - 1]
    return step * (1.0 + policy.jitter_fraction * spread)


def backoff_faults(policy: BackoffPolicy) -> list[str]:
    """List what is unusable in ``policy``, one sentence each."""
    faults = []
    if not 1 <= len(policy.steps_seconds) <= MAX_STEPS:
        faults.append(f"backoff needs 1 to {MAX_STEPS} steps, has {len(policy.steps_seconds)}")
    if any(not 0 < step <= 86_400 for step in policy.steps_seconds):
        faults.append(f"backoff steps must be above 0 and at most 86400 s, are {list(policy.steps_seconds)}")
    if list(policy.steps_seconds) != sorted(policy.steps_seconds):
        faults.append(f"backoff steps must not fall, are {list(policy.steps_seconds)}")
    if not 0 <= policy.jitter_fraction <= 0.5:
        faults.append(f"backoff jitter must lie in 0…0.5, is {policy.jitter_fraction}")
    return faults
