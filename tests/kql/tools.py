"""What a test does without a tool that it needs: skip on a laptop, fail in CI."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def in_ci() -> bool:
    """Whether this is a CI run, by the setting that every CI service gives."""
    return os.environ.get("CI", "").lower() == "true"


def missing_tool(message: str) -> NoReturn:
    """End the test: CI must have every tool, a laptop need not."""
    if in_ci():
        pytest.fail(f"missing in CI: {message}")
    pytest.skip(f"missing here: {message}")
