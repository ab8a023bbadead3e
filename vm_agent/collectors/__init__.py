"""What is looked at on the VM: one file a collector, registered here. They read and never judge."""

from __future__ import annotations

from vm_agent.collectors.base import Collector
from vm_agent.collectors.disks import DisksCollector
from vm_agent.collectors.heartbeats import HeartbeatsCollector
from vm_agent.collectors.memory import MemoryCollector
from vm_agent.collectors.units import UnitsCollector
from vm_agent.config import AgentConfig


def build(config: AgentConfig) -> tuple[Collector, ...]:
    """Return every collector that ``config`` gives something to look at."""
    found: list[Collector] = [DisksCollector(config.disk_mounts), MemoryCollector()]
    if config.units:
        found.append(UnitsCollector(config.units))
    if config.heartbeat_files:
        found.append(HeartbeatsCollector(config.heartbeat_files))
    return tuple(found)
