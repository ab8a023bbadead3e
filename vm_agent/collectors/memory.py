"""How much of main memory is in use."""

from __future__ import annotations

from datetime import datetime

import psutil

from vm_agent.collectors.base import Parts
from vm_health.model import MemorySample


class MemoryCollector:
    """What the kernel says is available, and the rest of it in per cent."""

    name = "memory"

    def collect(self, now: datetime) -> Parts:
        """Look once."""
        memory = psutil.virtual_memory()
        return {"memory": MemorySample(memory.total, memory.available, float(memory.percent))}
