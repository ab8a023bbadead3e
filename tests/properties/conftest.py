"""Says how many stories were played, and what they came to."""

from __future__ import annotations

import pytest

from tests.properties.test_promises import SEED, TALLY


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures of this run."""
    if not TALLY["stories"]:
        return
    shown = ", ".join(f"{count:,} {what}" for what, count in sorted(TALLY.items()) if what != "stories")
    terminalreporter.write_line(f"{TALLY['stories']:,} stories from PROPERTY_SEED={SEED}: {shown}")
