"""What an alert says, before any channel's own format. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from vm_health.state import FLEET_ID, Notice, NoticeKind

_HEADLINES = {
    NoticeKind.FIRED: "{status}: {what} on {vm}",
    NoticeKind.REMINDER: "STILL {status}: {what} on {vm} for {duration}",
    NoticeKind.FLAPPING: "FLAPPING: {what} on {vm} goes up and down, and is left alone until it settles",
    NoticeKind.GAVE_UP: "PEOPLE NEEDED: {what} on {vm} is still down after {attempts} attempts",
    NoticeKind.RESOLVED: "RESOLVED: {what} on {vm} after {duration}",
    NoticeKind.FROZEN: "FROZEN: {what}; nothing is restarted on the whole {vm}",
    NoticeKind.THAWED: "THAWED: {what} is over after {duration}; the {vm} is repaired again",
}


@dataclass(frozen=True, slots=True)
class AlertMessage:
    """A notice in words, with where to look further."""

    notice: Notice
    vm_name: str
    title: str
    dashboard_url: str
    portal_url: str


def build_message(notice: Notice, dashboard_url: str, portal_base_url: str) -> AlertMessage:
    """Return the words for ``notice``; either URL may be empty where there is none."""
    vm_name = notice.vm_id.rsplit("/", 1)[-1]
    what = ", ".join(notice.subjects[:3]) or notice.cause.value.replace("_", " ")
    if len(notice.subjects) > 3:
        what += f" and {len(notice.subjects) - 3} more"
    title = _HEADLINES[notice.kind].format(
        status=notice.status,
        what=what,
        vm=vm_name,
        attempts=notice.attempts,
        duration=duration(notice.opened_at, notice.at),
    )
    has_portal = portal_base_url and notice.vm_id != FLEET_ID
    portal = f"{portal_base_url}/#@/resource{notice.vm_id}" if has_portal else ""
    return AlertMessage(notice, vm_name, title, dashboard_url, portal)


def duration(start: datetime, end: datetime) -> str:
    """Return the time between two moments as people say it: ``42 s``, ``3 min 5 s``, ``2 h 10 min``."""
    seconds = max(0, round((end - start).total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3_600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3_600} h {seconds % 3_600 // 60} min"
