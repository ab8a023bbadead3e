"""Maintenance that Azure announces for this VM (Scheduled Events). Relayed, never approved.

The VMs of an availability set or of a scale set's placement group are told of each other's events too; those
of others are left out, for this VM's own maintenance excuses it from repair.
Source: learn.microsoft.com/azure/virtual-machines/linux/scheduled-events
"""

from __future__ import annotations

import email.utils
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from vm_agent.collectors.base import Parts
from vm_health.errors import TransientError
from vm_health.model import ScheduledEvent

INTERVAL_SECONDS = 60.0
MAX_EVENTS = 20
_MAX_TEXT = 200
# The service is started for a VM by its first question, which may take two minutes to be answered.
_PATIENT_LOOKS = 3


class ScheduledEventsCollector:
    """Asks the metadata service: ``ask`` returns the document, ``vm_id`` this VM's ARM id ("": not known)."""

    name = "scheduled_events"
    interval_seconds = INTERVAL_SECONDS

    def __init__(self, ask: Callable[[], Mapping[str, Any]], vm_id: Callable[[], str] = str) -> None:
        self._ask = ask
        self._vm_id = vm_id
        self._failed = 0

    def collect(self, now: datetime) -> Parts:
        """Ask once.

        Raises:
            TransientError: there was no proper answer for the third time in a row.
        """
        try:
            found = self._ask()
        except TransientError:
            self._failed += 1
            if self._failed >= _PATIENT_LOOKS:
                raise
            return {}
        self._failed = 0
        return {"scheduled_events": parse_events(found, self._vm_id().rpartition("/")[2])}


def parse_events(document: Mapping[str, Any], vm_name: str = "") -> tuple[ScheduledEvent, ...]:
    """Read the document; what is not as documented is left out, and so is what names other VMs only."""
    events = document.get("Events")
    if not isinstance(events, list):
        return ()
    found = [_event(item) for item in events if isinstance(item, dict) and _concerns(item, vm_name)]
    return tuple(event for event in found if event.event_id)[:MAX_EVENTS]


def _concerns(item: Mapping[str, Any], vm_name: str) -> bool:
    """Tell whether an event is this VM's; one that names nobody, or is told to nobody known, counts as."""
    resources = item.get("Resources")
    if not vm_name or not isinstance(resources, list) or not resources:
        return True
    return any(isinstance(name, str) and name.lower() == vm_name.lower() for name in resources)


def _event(item: Mapping[str, Any]) -> ScheduledEvent:
    return ScheduledEvent(
        event_id=_text(item.get("EventId")),
        event_type=_text(item.get("EventType")),
        status=_text(item.get("EventStatus")),
        not_before=_moment(item.get("NotBefore")),
        description=_text(item.get("Description")),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        return ""
    return value[:_MAX_TEXT].encode("utf-8", "replace").decode()


def _moment(value: object) -> datetime | None:
    """Read ``Mon, 19 Sep 2016 18:29:47 GMT``, ISO 8601 too; "" stands for an event that has begun."""
    if not isinstance(value, str) or not value:
        return None
    for read in (email.utils.parsedate_to_datetime, datetime.fromisoformat):
        try:
            found = read(value)
            return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
    return None
