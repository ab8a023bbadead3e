"""The Telemetry port: the fleet query through Azure's SDK against the local Log Analytics."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from devcloud.faults import Fault
from tests.builders import a_report, a_snapshot, a_unit, a_vm_id
from tests.component.devcloud_site import Site
from tests.fakes import FakeTelemetry, unavailable
from vm_health.errors import PermanentError, TransientError
from vm_health.model import HealthReport, Status
from vm_health.wire import report_properties
from vm_watchdog.adapters.log_query import LogAnalyticsTelemetry
from vm_watchdog.ports import CANARY_ID, FleetTelemetry, Telemetry

pytest_plugins = ["tests.component.devcloud_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="session")

_numbers = itertools.count(1)


@pytest.fixture
def telemetry(site: Site) -> LogAnalyticsTelemetry:
    return LogAnalyticsTelemetry(site.logs, site.cloud.workspace_id, timedelta(hours=1))


@pytest.fixture
def vm_id() -> str:
    """A VM that no other test has."""
    return a_vm_id(f"telemetry-{next(_numbers)}")


def seconds_ago(seconds: float) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=seconds)


def arrived(site: Site, properties: Mapping[str, str], age: float = 10, **columns: Any) -> None:
    """Put an event into the table, as ingestion does."""
    row = {
        "Name": "vm.health",
        "Properties": dict(properties),
        "TimeGenerated": seconds_ago(age),
        "_TimeReceived": seconds_ago(age - 1),
    }
    site.cloud.tables.add("AppEvents", [row | columns])


def sent(site: Site, report: HealthReport, age: float = 10) -> None:
    arrived(site, {"vm_id": report.vm_id, **report_properties(report)}, age)


async def test_the_newest_snapshot_of_every_vm(
    site: Site, telemetry: LogAnalyticsTelemetry, vm_id: str
) -> None:
    other = vm_id + "-b"
    old, new = a_report(vm_id=vm_id, down="web.service"), a_report(vm_id=vm_id)
    sent(site, new, age=20)
    sent(site, old, age=80)
    sent(site, a_report(vm_id=other, disk=95), age=30)
    found = (await telemetry.newest_snapshots()).snapshots
    assert (found[vm_id].report, found[other].report.findings[0].value) == (new, 95.0)
    assert (datetime.now(UTC) - found[vm_id].taken_at).total_seconds() == pytest.approx(20, abs=3)
    assert found[vm_id].received_at - found[vm_id].taken_at == timedelta(seconds=1)


async def test_a_long_report_is_joined_again(
    site: Site, telemetry: LogAnalyticsTelemetry, vm_id: str
) -> None:
    units = [a_unit(f"worker-with-a-long-name@{number:04}.service") for number in range(120)]
    report = a_report(vm_id=vm_id, units=units)
    assert len(report_properties(report)) > 2
    sent(site, report)
    assert (await telemetry.newest_snapshots()).snapshots[vm_id].report == report


async def test_ids_in_any_case_are_one_vm(site: Site, telemetry: LogAnalyticsTelemetry, vm_id: str) -> None:
    report = a_report(vm_id=vm_id)
    arrived(site, {"vm_id": vm_id.upper(), **report_properties(report)}, 5)
    found = (await telemetry.newest_snapshots()).snapshots
    assert found[vm_id].report == report
    assert vm_id.upper() not in found


async def test_what_is_older_than_the_window_is_not_there(
    site: Site, telemetry: LogAnalyticsTelemetry, vm_id: str
) -> None:
    sent(site, a_report(vm_id=vm_id), age=3_700)
    assert vm_id not in (await telemetry.newest_snapshots()).snapshots


@pytest.mark.parametrize(
    "report",
    ["", "not json", "{}", '{"schema":1}', '{"schema":1,"units":[{"name":"a;b.service"}]}', "[" * 8_000],
    ids=lambda text: text[:20] or "empty",
)
async def test_a_report_that_is_none_costs_only_its_own_vm(
    site: Site, telemetry: LogAnalyticsTelemetry, vm_id: str, report: str
) -> None:
    sent(site, a_report(vm_id=vm_id))
    arrived(site, {"vm_id": vm_id + "-bad", "report": report})
    found = (await telemetry.newest_snapshots()).snapshots
    assert vm_id in found
    assert vm_id + "-bad" not in found


@pytest.mark.parametrize("claimed", [a_vm_id("victim"), ""])
async def test_a_report_that_speaks_for_another_vm_is_skipped(
    site: Site, telemetry: LogAnalyticsTelemetry, vm_id: str, claimed: str
) -> None:
    arrived(site, {"vm_id": vm_id, **report_properties(replace(a_report(), vm_id=claimed))})
    found = (await telemetry.newest_snapshots()).snapshots
    assert vm_id not in found
    assert a_vm_id("victim") not in found


async def test_other_events_are_none_of_ours(
    site: Site, telemetry: LogAnalyticsTelemetry, vm_id: str
) -> None:
    arrived(site, {"vm_id": vm_id, **report_properties(a_report(vm_id=vm_id))}, Name="vm.other")
    arrived(site, {"vm_id": "", **report_properties(a_report(vm_id=""))})
    assert vm_id not in (await telemetry.newest_snapshots()).snapshots


async def test_a_report_that_is_asked_for_again_is_the_same_one_and_a_newer_one_is_not(
    site: Site, telemetry: LogAnalyticsTelemetry, vm_id: str
) -> None:
    """Looks at single VMs ask for the whole fleet again: its reports are not decoded anew."""
    sent(site, a_report(vm_id=vm_id), age=60)
    first = (await telemetry.newest_snapshots()).snapshots[vm_id]
    assert (await telemetry.newest_snapshots()).snapshots[vm_id] is first
    sent(site, a_report(vm_id=vm_id), age=30)
    second = (await telemetry.newest_snapshots()).snapshots[vm_id]
    assert second.report == first.report
    assert (second.taken_at - first.taken_at).total_seconds() == pytest.approx(30, abs=3)
    sent(site, a_report(vm_id=vm_id, down="web.service"), age=20)
    assert (await telemetry.newest_snapshots()).snapshots[vm_id].report.status is Status.CRITICAL


# --- the watchdog's own event ----------------------------------------------------------------------------


async def test_the_canary_comes_back_with_its_time(site: Site, telemetry: LogAnalyticsTelemetry) -> None:
    now = datetime.now(UTC)
    for age in (120, 0, 60):
        sent_at = now - timedelta(seconds=age)
        arrived(site, {"vm_id": CANARY_ID}, Name="watchdog.canary", TimeGenerated=sent_at)
    found = await telemetry.newest_snapshots()
    assert found.canary_at == now
    assert CANARY_ID not in found.snapshots


async def test_neither_event_passes_for_the_other(
    site: Site, telemetry: LogAnalyticsTelemetry, vm_id: str
) -> None:
    """Who may send telemetry at all may send either, with any id."""
    before = (await telemetry.newest_snapshots()).canary_at
    sent(site, a_report(vm_id=vm_id), age=30)
    arrived(site, {"vm_id": vm_id}, 2, Name="watchdog.canary")
    arrived(site, {"vm_id": CANARY_ID, **report_properties(a_report(vm_id=vm_id))}, 1)
    found = await telemetry.newest_snapshots()
    assert found.snapshots[vm_id].report == a_report(vm_id=vm_id)
    assert found.canary_at == before
    assert CANARY_ID not in found.snapshots


# --- answers that are none -------------------------------------------------------------------------------


async def test_a_workspace_without_data_is_an_answer(site: Site, telemetry: LogAnalyticsTelemetry) -> None:
    site.cloud.faults.add(Fault("logs", "query", mode="no_content"))
    assert await telemetry.newest_snapshots() == FleetTelemetry()


async def test_a_partial_answer_is_no_evidence(
    site: Site, telemetry: LogAnalyticsTelemetry, vm_id: str
) -> None:
    sent(site, a_report(vm_id=vm_id))
    site.cloud.faults.add(Fault("logs", "query", mode="partial"))
    with pytest.raises(TransientError, match="partial result"):
        await telemetry.newest_snapshots()


@pytest.mark.parametrize("status", [429, 500, 503, 504])
async def test_a_service_in_trouble_is_transient(
    site: Site, telemetry: LogAnalyticsTelemetry, status: int
) -> None:
    site.cloud.faults.add(Fault("logs", "query", status=status, headers={"Retry-After": "0.01"}, times=0))
    with pytest.raises(TransientError, match="the fleet query"):
        await telemetry.newest_snapshots()


async def test_a_throttled_query_does_not_hold_up_the_tick(
    site: Site, telemetry: LogAnalyticsTelemetry
) -> None:
    """Left alone, the SDK would sleep for as long as it is asked to, and every VM with it."""
    site.cloud.faults.add(Fault("logs", "query", status=429, headers={"Retry-After": "30"}, times=0))
    async with asyncio.timeout(3):
        with pytest.raises(TransientError) as refused:
            await telemetry.newest_snapshots()
    assert refused.value.retry_after_seconds == 30


async def test_a_query_that_takes_too_long_is_given_up(site: Site) -> None:
    hurried = LogAnalyticsTelemetry(site.logs, site.cloud.workspace_id, timedelta(hours=1), 0.3)
    site.cloud.faults.add(Fault("logs", "query", delay_seconds=30))
    async with asyncio.timeout(5):
        with pytest.raises(TransientError, match=r"no answer within 0.3 s"):
            await hurried.newest_snapshots()


async def test_a_missing_role_is_permanent(site: Site, telemetry: LogAnalyticsTelemetry) -> None:
    site.cloud.faults.add(Fault("logs", "query", status=403, error_code="InsufficientAccessError"))
    with pytest.raises(PermanentError, match="InsufficientAccessError"):
        await telemetry.newest_snapshots()


async def test_no_connection_is_transient(site: Site, telemetry: LogAnalyticsTelemetry) -> None:
    site.cloud.faults.add(Fault("logs", "query", mode="disconnect", times=0))
    with pytest.raises(TransientError):
        await telemetry.newest_snapshots()


async def test_the_wrong_workspace_is_an_error_and_no_empty_fleet(site: Site) -> None:
    wrong = LogAnalyticsTelemetry(site.logs, "99999999-0000-4000-8000-000000000001", timedelta(hours=1))
    with pytest.raises(PermanentError):
        await wrong.newest_snapshots()


@pytest.mark.parametrize("fake", [True, False], ids=["fake", "logs"])
async def test_both_give_snapshots_or_an_error_of_ours(
    site: Site, telemetry: LogAnalyticsTelemetry, vm_id: str, fake: bool
) -> None:
    port: Telemetry = telemetry
    report = a_report(vm_id=vm_id)
    if fake:
        port = FakeTelemetry()
        port.snapshots[vm_id] = a_snapshot(report)
    sent(site, report)
    assert (await port.newest_snapshots()).snapshots[vm_id].report == report
    if isinstance(port, FakeTelemetry):
        port.error = unavailable()
    site.cloud.faults.add(Fault("logs", "query", status=504, headers={"Retry-After": "0.01"}, times=0))
    with pytest.raises(TransientError):
        await port.newest_snapshots()
