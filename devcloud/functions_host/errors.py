"""What is wrong with an app that this host cannot run."""

from __future__ import annotations

from collections.abc import Sequence


class HostError(Exception):
    """The app or its settings can't be hosted; ``faults`` lists everything that is wrong at once."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)
