"""How full the file systems are."""

from __future__ import annotations

from datetime import datetime

import psutil

from vm_agent.collectors.base import MAX_MESSAGE_CHARS, Parts
from vm_health.model import CollectorFailure, DiskSample


class DisksCollector:
    """Usage per mount, as ``df`` counts it: of what users other than root may fill."""

    name = "disks"

    def __init__(self, mounts: tuple[str, ...]) -> None:
        self._mounts = mounts

    def collect(self, now: datetime) -> Parts:
        """Look at every mount; one that is gone does not hide the others."""
        disks, failures = [], []
        for mount in self._mounts:
            try:
                usage = psutil.disk_usage(mount)
            except OSError as error:
                text = f"disk {mount} cannot be read: {error.strerror}"[:MAX_MESSAGE_CHARS]
                failures.append(CollectorFailure(self.name, text))
                continue
            disks.append(DiskSample(mount, usage.total, usage.free, float(usage.percent)))
        return {"disks": tuple(disks), "failures": tuple(failures)}
