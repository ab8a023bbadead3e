"""The machine as a whole: processor, load, pressure, uptime, clock, pending reboot."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime

import psutil

from vm_agent.collectors.base import Parts
from vm_health.model import SystemSample

_RESOURCES = ("cpu", "memory", "io")
# Debian's and Ubuntu's packages leave this file. On Red Hat's systems only `needs-restarting` tells, which
# loads the package database for seconds: too dear for what it says.
REBOOT_REQUIRED = "/run/reboot-required"


class SystemCollector:
    """All from small files of the kernel's. ``clock`` says if the clock is synchronized, None for unknown."""

    name = "system"
    interval_seconds = 0.0

    def __init__(self, clock: Callable[[], bool | None] = lambda: None, proc: str = "/proc") -> None:
        self._clock = clock
        self._proc = proc
        self._busy: tuple[float, float] | None = None

    def collect(self, now: datetime) -> Parts:
        """Look once; the processor's share is that since the last look."""
        load1, load5, load15 = os.getloadavg()
        return {
            "system": SystemSample(
                cpu_percent=self._cpu_percent(),
                load1=round(load1, 2),
                load5=round(load5, 2),
                load15=round(load15, 2),
                cores=os.cpu_count() or 1,
                uptime_seconds=self._uptime(),
                pressure=self._pressure(),
                clock_synchronized=self._clock(),
                reboot_required=os.path.exists(REBOOT_REQUIRED),
            )
        }

    def _cpu_percent(self) -> float | None:
        times = psutil.cpu_times()
        # Guests' time is part of user's already.
        total = times.user + times.nice + times.system + times.idle + times.iowait
        total += times.irq + times.softirq + times.steal
        before, self._busy = self._busy, (total - times.idle - times.iowait, total)
        if before is None:
            return None
        busy, passed = self._busy[0] - before[0], self._busy[1] - before[1]
        return round(min(100.0, max(0.0, 100 * busy / passed)), 2) if passed > 0 else None

    def _uptime(self) -> float:
        text = _read(f"{self._proc}/uptime").split()
        return float(text[0]) if text else 0.0

    def _pressure(self) -> dict[str, float]:
        """Read PSI; kernels without it (or with psi=0) have no such files."""
        found = {}
        for resource in _RESOURCES:
            for line in _read(f"{self._proc}/pressure/{resource}").splitlines():
                share, *numbers = line.split()
                average = next((text[6:] for text in numbers if text.startswith("avg60=")), None)
                if average is not None:
                    found[f"{resource}.{share}"] = float(average)
        return found


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read(4096)
    except OSError:
        return ""
