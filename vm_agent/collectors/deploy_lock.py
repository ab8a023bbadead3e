"""Whether a deployment asks to be left alone."""

from __future__ import annotations

import os
from datetime import datetime

from vm_agent.collectors.base import Parts


class DeployLockCollector:
    """One file, read with every sample: so a unit that is down and the lock that excuses it are one news."""

    name = "deploy_lock"
    interval_seconds = 0.0

    def __init__(self, path: str) -> None:
        self._path = path

    def collect(self, now: datetime) -> Parts:
        """Look once.

        Raises:
            PermanentError: the file is no lock, or is not to be trusted.
        """
        if not _may_be_there(self._path):
            return {"deploy_lock": None}
        from vm_agent.deploy_lock import read_lock  # noqa: PLC0415 - for the day of a deployment

        return {"deploy_lock": read_lock(self._path, now)}


def _may_be_there(path: str) -> bool:
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    except OSError:
        pass  # whatever keeps us from it, reading it says so
    return True
