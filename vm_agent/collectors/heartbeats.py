"""How old the heartbeat files are."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from datetime import datetime

from vm_agent.collectors.base import Parts
from vm_health.model import HeartbeatSample


class HeartbeatsCollector:
    """Age by the time of last change; it opens no file. ``files`` are pairs of unit ("" for none), path."""

    name = "heartbeats"
    interval_seconds = 0.0

    def __init__(self, files: tuple[tuple[str, str], ...]) -> None:
        self._files = files

    def collect(self, now: datetime) -> Parts:
        """Look at every file."""
        at_seconds = now.timestamp()
        return {
            "heartbeats": tuple(replace(_look(path, at_seconds), unit=unit) for unit, path in self._files)
        }


def _look(path: str, now_seconds: float) -> HeartbeatSample:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return HeartbeatSample(path, None, "missing")
    except OSError as error:
        return HeartbeatSample(path, None, f"unreadable ({error.strerror})")
    if not stat.S_ISREG(found.st_mode):
        return HeartbeatSample(path, None, "not a file")
    # In the future where the clock was set back: it was touched just now, as far as anybody knows.
    return HeartbeatSample(path, round(max(0.0, now_seconds - found.st_mtime), 3))
