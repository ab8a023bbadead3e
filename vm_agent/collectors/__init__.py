"""What is looked at on the VM: one file a collector, registered here. They read and never judge."""

from __future__ import annotations

import functools
from collections.abc import Callable

from vm_agent.boot import boot_id
from vm_agent.collectors.base import Collector
from vm_agent.collectors.clock import ClockCollector, ask_timedated
from vm_agent.collectors.deploy_lock import DeployLockCollector
from vm_agent.collectors.disks import DisksCollector
from vm_agent.collectors.heartbeats import HeartbeatsCollector
from vm_agent.collectors.memory import MemoryCollector
from vm_agent.collectors.system import SystemCollector
from vm_agent.collectors.units import UnitsCollector
from vm_agent.config import AgentConfig
from vm_agent.restart_history import RestartHistory
from vm_agent.unit_watch import UnitWatch

RESTARTS_FILE = "restarts.json"


def build(
    config: AgentConfig,
    watch: UnitWatch | None = None,
    vm_id: Callable[[], str] | None = None,
    *,
    keeps_history: bool = False,
) -> tuple[Collector, ...]:
    """Return every collector that ``config`` gives something to look at.

    ``vm_id`` may know more of this VM's id than ``config``. Only the running agent ``keeps_history``; whoever
    looks once reads what it kept.
    """
    clock = ClockCollector(functools.partial(ask_timedated, config.system_bus))
    found: list[Collector] = [
        DisksCollector(config.disk_mounts),
        MemoryCollector(),
        SystemCollector(clock.latest),
        clock,
    ]
    if config.units:
        watch = watch or UnitWatch(config.units, config.unit_source, config.system_bus)
        path = f"{config.state_dir}/{RESTARTS_FILE}"
        history = RestartHistory(path, boot_id(), writes=keeps_history)
        found.insert(0, UnitsCollector(config.units, watch.source, history))
    if config.heartbeat_files:
        found.append(HeartbeatsCollector(config.heartbeat_files))
    if config.deploy_lock_file:
        found.append(DeployLockCollector(config.deploy_lock_file))
    return (*found, *_optional(config, vm_id or (lambda: config.vm_id)))


def _optional(config: AgentConfig, vm_id: Callable[[], str]) -> list[Collector]:
    """Return the collectors that many VMs do without; only what is wanted is loaded."""
    found: list[Collector] = []
    window, interval = config.log_window_seconds, config.log_interval_seconds
    if config.units and config.journal != "off":
        from vm_agent.collectors.journal import JournalCollector  # noqa: PLC0415

        required = config.journal == "on"
        found.append(
            JournalCollector(
                config.units, window_seconds=window, interval_seconds=interval, required=required
            )
        )
    if config.log_files:
        from vm_agent.collectors.log_files import LogFilesCollector  # noqa: PLC0415

        found.append(
            LogFilesCollector(
                config.log_files, config.log_pattern, window_seconds=window, interval_seconds=interval
            )
        )
    if config.git_checkouts:
        from vm_agent.collectors.checkouts import CheckoutsCollector  # noqa: PLC0415

        found.append(CheckoutsCollector(config.git_checkouts, config.git_interval_seconds))
    if config.scheduled_events:
        from vm_agent.collectors.scheduled_events import ScheduledEventsCollector  # noqa: PLC0415
        from vm_agent.imds import Imds  # noqa: PLC0415

        found.append(ScheduledEventsCollector(Imds(config.imds_url).scheduled_events, vm_id))
    return found
