"""Proves what needs no role: clock, way out, dead-man ping, alert, policy, the last tick."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING

import aiohttp

from vm_health.model import Cause, Status
from vm_health.state import FLEET_ID, Notice, NoticeKind
from vm_watchdog.doctor import Check, Finding, Verdict, skipped
from vm_watchdog.ports import TickRecord

if TYPE_CHECKING:
    from vm_watchdog.app import Watchdog
    from vm_watchdog.settings import Settings

CLOCK_TOLERANCE_SECONDS = 5.0


def signal_checks(found: Settings, watchdog: Watchdog, *, alert: bool) -> list[Check]:
    """Return the checks of what goes out from the watchdog: own telemetry, pings, alerts."""
    ports = watchdog.ports
    now = datetime.now(UTC)
    record = TickRecord(now, now, 0)
    publisher = (
        'the role "Monitoring Metrics Publisher" on the Application Insights component is needed with'
        " WATCHDOG_TELEMETRY_AUTH=entra; with a key, the key must be right"
    )
    own = (
        Check("own telemetry", partial(_logged, "own event sent", publisher, lambda: ports.canary.send(now)))
        if ports.canary.sends
        else skipped("own telemetry", "not sent: WATCHDOG_TELEMETRY_CONNECTION_STRING is not set")
    )
    dead_man = (
        Check(
            "dead-man ping",
            partial(_logged, "pinged", "is WATCHDOG_DEADMAN_URL right?", lambda: ports.dead_man.ping(record)),
        )
        if found.deadman_url
        else Check("dead-man ping", _no_dead_man)
    )
    test = (
        Check("test alert", partial(_alert, watchdog, now))
        if alert
        else skipped("test alert", "not sent: --alert sends one to every channel")
    )
    return [own, Check("way out", partial(_check_egress, watchdog)), dead_man, test]


async def check_clock(arm_endpoint: str) -> Finding:
    """Compare this machine's clock with Azure's: whatever is answered carries a date."""
    timeout = aiohttp.ClientTimeout(total=15)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            before = datetime.now(UTC)
            async with session.head(f"{arm_endpoint}/", allow_redirects=False) as response:
                date = response.headers.get("Date", "")
            middle = before + (datetime.now(UTC) - before) / 2
        # The header has whole seconds, cut off: half of one is the best guess of the rest.
        ahead = (middle - parsedate_to_datetime(date)).total_seconds() - 0.5
    except (aiohttp.ClientError, TimeoutError) as error:
        return Finding(Verdict.FAIL, f"{arm_endpoint} gave no answer: {type(error).__name__}: {error}"[:300])
    except ValueError:
        return Finding(Verdict.WARN, f"{arm_endpoint} answered without a date")
    found = f"this clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} Azure's"
    if abs(ahead) > CLOCK_TOLERANCE_SECONDS:
        return Finding(
            Verdict.WARN, found, "let NTP or chrony keep the time here: tokens and ages depend on it"
        )
    return Finding(Verdict.OK, found)


async def _no_dead_man() -> Finding:
    return Finding(
        Verdict.WARN,
        "nobody would notice a watchdog that has stopped",
        "set WATCHDOG_DEADMAN_URL, or let an outside monitor ask /api/live",
    )


async def _logged(done: str, advice: str, work: Callable[[], Awaitable[object]]) -> Finding:
    """Do what never raises, and take what it logs as its answer."""
    heard: list[str] = []
    task = asyncio.current_task()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if asyncio.current_task() is task:  # others are at work beside it
                problem = getattr(record, "problem", "") or getattr(record, "reason", "")
                heard.append(f"{record.getMessage()}: {problem}".removesuffix(": "))

    listener = Listener(logging.WARNING)
    log = logging.getLogger("vm_watchdog")
    log.addHandler(listener)
    try:
        await work()
    finally:
        log.removeHandler(listener)
    return Finding(Verdict.FAIL, "; ".join(heard)[:300], advice) if heard else Finding(Verdict.OK, done)


async def _check_egress(watchdog: Watchdog) -> Finding:
    problem = await watchdog.ports.canary.egress_problem()
    if problem:
        return Finding(Verdict.FAIL, problem, "is WATCHDOG_CANARY_URL right, and reachable from here?")
    return Finding(Verdict.OK, "nothing stands in the way of the canary address, where one is set")


async def _alert(watchdog: Watchdog, now: datetime) -> Finding:
    notice = Notice(
        kind=NoticeKind.FIRED,
        key=f"doctor-{now:%Y%m%dT%H%M%S}",
        vm_id=FLEET_ID,
        incident_id=f"doctor-{now:%Y%m%dT%H%M%S}",
        status=Status.WARNING,
        cause=Cause.OK,
        subjects=(),
        reason="This is a test by vm-watchdog doctor. Nothing is wrong.",
        opened_at=now,
        at=now,
    )
    await watchdog.ports.alerts.send(notice)
    return Finding(Verdict.OK, "handed to every channel that is configured: has it arrived?")


async def check_policy(found: Settings, watchdog: Watchdog) -> Finding:
    """Say what the policy holds, and which tags of VMs it can't read."""
    book = found.book
    targets = await watchdog.ports.inventory.list_targets()
    faults = [f"{one.name}: {fault}" for one in targets for fault in book.tag_faults(one.subject)]
    if faults:
        return Finding(
            Verdict.WARN, "; ".join(faults)[:500], "correct the tags: what can't be read is ignored"
        )
    said = (
        f"{book.file_name} is right, with {len(book.rules)} rules and {len(book.windows)} maintenance windows"
    )
    return Finding(Verdict.OK, f"{said}; mode {found.mode}")


async def check_tick(watchdog: Watchdog) -> Finding:
    """Say when the last tick ended."""
    record = await watchdog.ports.store.load_tick()
    if record is None:
        return Finding(
            Verdict.WARN, "no tick has ended yet", "is the function app running, or vm-watchdog run?"
        )
    age = (watchdog.options.clock() - record.finished_at).total_seconds()
    if age > watchdog.live_max_age_seconds:
        return Finding(Verdict.WARN, f"the last tick ended {age:.0f} s ago", "is the function app running?")
    return Finding(Verdict.OK, f"the last tick ended {age:.0f} s ago and saw {record.targets} VMs")
