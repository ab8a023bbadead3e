"""Fixtures of the agent's component tests; all is closed and every process ended behind a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.component.agent_site import Playback, Site


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Site]:
    """A place with one healthy unit, web.service."""
    found = Site(tmp_path)
    yield found
    found.close()


@pytest.fixture
def server() -> Iterator[Playback]:
    """A server that answers 200 unless told otherwise."""
    found = Playback()
    yield found
    found.close()
