"""How much of main memory and swap is in use."""

from __future__ import annotations

from datetime import datetime

import psutil

from vm_agent.collectors.base import Parts
from vm_health.model import MemorySample


class MemoryCollector:
    """What the kernel says is available, and the rest of it in per cent."""

    name = "memory"
    interval_seconds = 0.0

    def __init__(self, swaps: str = "/proc/swaps") -> None:
        self._swaps = swaps

    def collect(self, now: datetime) -> Parts:
        """Look once."""
        memory = psutil.virtual_memory()
        swap_total, swap_used = _swap(self._swaps)
        return {
            "memory": MemorySample(
                total_bytes=memory.total,
                available_bytes=memory.available,
                used_percent=_percent(memory.total - memory.available, memory.total),
                swap_total_bytes=swap_total,
                swap_used_percent=_percent(swap_used, swap_total),
            )
        }


def _swap(path: str) -> tuple[int, int]:
    """Return size and use of all swap areas; psutil's answer costs ten times as much: it counts pages too."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            rows = [line.split() for line in file.read(65_536).splitlines()[1:]]
    except OSError:  # a kernel without swap
        return 0, 0
    # A name has its blanks escaped, so the columns are as they seem: name, type, size, used (both in KiB).
    sizes = [(int(row[2]), int(row[3])) for row in rows if len(row) >= 5]
    return 1024 * sum(size for size, _ in sizes), 1024 * sum(used for _, used in sizes)


def _percent(part: int, whole: int) -> float:
    return round(100 * max(0, part) / whole, 2) if whole > 0 else 0.0
