"""How old the heartbeat files are."""

from __future__ import annotations

import os
import stat
from datetime import datetime

from vm_agent.collectors.base import Parts
from vm_health.model import HeartbeatSample


class HeartbeatsCollector:
    """Age by the time of last change; it never opens a file."""

    name = "heartbeats"

    def __init__(self, files: tuple[str, ...]) -> None:
        self._files = files

    def collect(self, now: datetime) -> Parts:
        """Look at every file."""
        return {"heartbeats": tuple(_look(path, now.timestamp()) for path in self._files)}


def _look(path: str, now_seconds: float) -> HeartbeatSample:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return HeartbeatSample(path, None, "missing")
    except OSError as error:
        return HeartbeatSample(path, None, f"unreadable ({error.strerror})")
    if not stat.S_ISREG(found.st_mode):
        return HeartbeatSample(path, None, "not a file")
    return HeartbeatSample(path, round(max(0.0, now_seconds - found.st_mtime), 3))
