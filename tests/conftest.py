"""What all tiers share: tools that are missing, and how long property tests search."""

from __future__ import annotations

import gc
import os

import hypothesis
import pytest


def in_ci() -> bool:
    """Tell whether this run must have every tool."""
    return os.environ.get("CI", "").lower() == "true"


# Few examples: every run is short. At a desk no fixed seed, so that many runs see much; in CI always the same
# examples, so that a change fails only for what it changed.
hypothesis.settings.register_profile(
    "short",
    max_examples=25,
    deadline=None,
    derandomize=in_ci(),
    print_blob=True,
    # Without explaining, which takes a minute on a large example.
    phases=[phase for phase in hypothesis.Phase if phase is not hypothesis.Phase.explain],
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


def require(condition: object, reason: str) -> None:
    """End the test unless ``condition`` holds: skipped on a laptop, failed in CI."""
    if condition:
        return
    if in_ci():
        pytest.fail(f"missing in CI: {reason}")
    pytest.skip(f"missing here: {reason}")


def pytest_collection_finish() -> None:
    """Leave what was imported out of garbage collection: it stays anyway, and looking at it takes time."""
    gc.collect()
    gc.freeze()
