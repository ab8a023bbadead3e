"""Sample <-> JSON: the larger half of the report's schema; ``wire.py`` holds the rest and the promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import Any, TypeVar

from vm_health.fields import Fields
from vm_health.model import (
    CollectorFailure,
    DeployLock,
    DiskSample,
    GitSample,
    HeartbeatSample,
    LogSample,
    MemorySample,
    RepairSample,
    Sample,
    ScheduledEvent,
    SystemSample,
    UnitSample,
)
from vm_health.names import is_unit_name

T = TypeVar("T")

PRESSURES = ("cpu.some", "cpu.full", "memory.some", "memory.full", "io.some", "io.full")


def sample_to_dict(sample: Sample) -> dict[str, Any]:
    """Return ``sample`` as JSON-ready values; what a VM does not have is left out to keep reports short."""
    optional = {
        "system": None if sample.system is None else _plain(sample.system),
        "logs": [_plain(log) for log in sample.logs],
        "checkouts": [_plain(checkout) for checkout in sample.checkouts],
        "scheduled_events": [_plain(event) for event in sample.scheduled_events],
        "deploy_lock": None if sample.deploy_lock is None else _plain(sample.deploy_lock),
    }
    return {
        "taken_at": sample.taken_at.isoformat(),
        "units": [_unit_to_dict(unit) for unit in sample.units],
        "disks": [_plain(disk) for disk in sample.disks],
        "memory": None if sample.memory is None else _plain(sample.memory),
        "heartbeats": [_plain(beat) for beat in sample.heartbeats],
        "failures": [_plain(failure) for failure in sample.failures],
        **{name: value for name, value in optional.items() if value},
    }


def repairs_to_list(repairs: tuple[RepairSample, ...]) -> list[dict[str, Any]]:
    """Return ``repairs`` as JSON-ready values."""
    return [_plain(repair) for repair in repairs]


def read_sample(fields: Fields) -> Sample:
    """Read a sample from the report's object, noting faults in it."""
    return Sample(
        taken_at=fields.moment("taken_at"),
        units=_all(fields, "units", _read_unit),
        disks=_all(fields, "disks", _read_disk),
        memory=_one(fields, "memory", _read_memory),
        heartbeats=_all(fields, "heartbeats", _read_heartbeat),
        failures=_all(
            fields, "failures", lambda item: CollectorFailure(item.text("collector"), item.text("message"))
        ),
        system=_one(fields, "system", _read_system),
        logs=_all(
            fields,
            "logs",
            lambda item: LogSample(item.text("source"), item.whole("errors"), item.text("last", "")),
        ),
        checkouts=_all(fields, "checkouts", _read_checkout),
        scheduled_events=_all(fields, "scheduled_events", _read_scheduled_event),
        deploy_lock=_one(
            fields, "deploy_lock", lambda item: DeployLock(item.moment("until"), item.text("holder", ""))
        ),
    )


def read_repairs(fields: Fields) -> tuple[RepairSample, ...]:
    """Read the agent's own remediation from the report's object."""
    return _all(fields, "repairs", _read_repair)


def _unit_to_dict(unit: UnitSample) -> dict[str, Any]:
    found = _plain(unit)
    if unit.started_at is None:  # the longest list there is: a word less for each
        del found["started_at"]
    return found


def _plain(value: Any) -> dict[str, Any]:
    return {name: _jsonable(item) for name, item in asdict(value).items()}


def _jsonable(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _all(fields: Fields, name: str, read: Callable[[Fields], T]) -> tuple[T, ...]:
    return tuple(read(item) for item in fields.children(name))


def _one(fields: Fields, name: str, read: Callable[[Fields], T]) -> T | None:
    item = fields.child(name)
    return None if item is None else read(item)


def _read_unit(item: Fields) -> UnitSample:
    return UnitSample(
        name=_unit_name(item, "name"),
        load_state=item.text("load_state"),
        active_state=item.text("active_state"),
        sub_state=item.text("sub_state"),
        service_type=item.text("service_type", "simple"),
        result=item.text("result", "success"),
        restarts=item.whole("restarts", 0),
        recent_restarts=item.whole("recent_restarts", 0),
        main_pid=item.whole("main_pid", 0),
        active_since=item.optional_moment("active_since"),
        memory_bytes=item.whole("memory_bytes", 0),
        started_at=item.optional_moment("started_at"),
    )


def _unit_name(item: Fields, field: str) -> str:
    name = item.text(field)
    if not is_unit_name(name):
        item.fault(field, "a systemd unit name")
    return name


def _read_disk(item: Fields) -> DiskSample:
    return DiskSample(
        item.text("mount"),
        item.whole("total_bytes"),
        item.whole("free_bytes"),
        item.number("used_percent"),
        item.optional_number("inodes_used_percent", low=0),
    )


def _read_memory(item: Fields) -> MemorySample:
    return MemorySample(
        item.whole("total_bytes"),
        item.whole("available_bytes"),
        item.number("used_percent"),
        item.whole("swap_total_bytes", 0),
        item.number("swap_used_percent", 0.0),
    )


def _read_heartbeat(item: Fields) -> HeartbeatSample:
    return HeartbeatSample(
        item.text("path"),
        item.optional_number("age_seconds"),
        item.text("problem", ""),
        item.text("unit", ""),
    )


def _read_system(item: Fields) -> SystemSample:
    pressure = item.child("pressure")
    values = {} if pressure is None else {name: pressure.optional_number(name, low=0) for name in PRESSURES}
    return SystemSample(
        cpu_percent=item.optional_number("cpu_percent", low=0),
        load1=item.number("load1", 0.0),
        load5=item.number("load5", 0.0),
        load15=item.number("load15", 0.0),
        cores=item.whole("cores", 1),
        uptime_seconds=item.number("uptime_seconds", 0.0),
        pressure={name: value for name, value in values.items() if value is not None},
        clock_synchronized=item.optional_flag("clock_synchronized"),
        reboot_required=item.flag("reboot_required"),
    )


def _read_checkout(item: Fields) -> GitSample:
    return GitSample(
        item.text("path"),
        item.text("commit", ""),
        item.text("branch", ""),
        item.flag("is_dirty"),
        item.whole("behind", 0),
        item.text("problem", ""),
    )


def _read_scheduled_event(item: Fields) -> ScheduledEvent:
    return ScheduledEvent(
        item.text("event_id"),
        item.text("event_type"),
        item.text("status"),
        item.optional_moment("not_before"),
        item.text("description", ""),
    )


def _read_repair(item: Fields) -> RepairSample:
    return RepairSample(
        _unit_name(item, "unit"),
        item.whole("attempts"),
        item.optional_moment("not_before"),
        item.flag("circuit_open"),
    )
