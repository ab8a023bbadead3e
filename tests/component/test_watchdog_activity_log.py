"""Who stopped a VM: the adapter against the local activity log, with stops that go through the local ARM."""

from __future__ import annotations

import asyncio
import itertools
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from devcloud.faults import Fault
from tests.component.arm_site import GROUP, OddArm, calls_of
from tests.component.devcloud_site import Site
from tests.fakes import FakeActivityLog
from vm_watchdog.adapters.activity_log import AzureActivityLog
from vm_watchdog.ports import ActivityLog, Target

pytest_plugins = ["tests.component.devcloud_fixtures", "tests.component.arm_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="session")

NOW = datetime(2031, 5, 6, 14, 30, tzinfo=UTC)  # later than what other tests do to the VM
LOG = "activity_log"
DAYS = itertools.count(0, 3)


@pytest.fixture
def log(clients: Any) -> AzureActivityLog:
    return AzureActivityLog(clients)


@pytest.fixture
def now() -> datetime:
    """A day of its own for each test: the log forgets nothing."""
    return NOW + timedelta(days=next(DAYS))


def record(site: Site, now: datetime, verb: str, caller: str, minutes_ago: float, **more: Any) -> None:
    spec = site.vms[more.pop("vm", "web-1")].spec
    site.cloud.activity.record(spec, verb, caller, at=now - timedelta(minutes=minutes_ago), **more)


@pytest.mark.parametrize("verb", ["deallocate", "powerOff"])
async def test_who_stopped_it_when_and_how(
    site: Site, log: AzureActivityLog, target: Target, now: datetime, verb: str
) -> None:
    record(site, now, verb, "alice@contoso.com", 28)
    assert await log.who_stopped(target, now) == f"alice@contoso.com at 14:02 UTC ({verb})"


async def test_the_newest_of_several_counts(
    site: Site, log: AzureActivityLog, target: Target, now: datetime
) -> None:
    record(site, now, "deallocate", "bob@contoso.com", 10)
    record(site, now, "powerOff", "alice@contoso.com", 90)
    assert await log.who_stopped(target, now) == "bob@contoso.com at 14:20 UTC (deallocate)"


@pytest.mark.parametrize(
    "entry",
    [
        {"verb": "deallocate", "minutes_ago": 24 * 60 + 1},
        {"verb": "deallocate", "minutes_ago": 5, "status": "Failed"},
        {"verb": "deallocate", "minutes_ago": 5, "status": "Started"},
        {"verb": "restart", "minutes_ago": 5},
        {"verb": "deallocate", "minutes_ago": 5, "vm": "web-2"},
        {"verb": "deallocate", "minutes_ago": 5, "caller": ""},
    ],
    ids=["yesterday", "failed", "only begun", "a restart", "another VM", "nobody"],
)
async def test_what_does_not_tell_who_stopped_it(
    site: Site, log: AzureActivityLog, target: Target, now: datetime, entry: dict[str, Any]
) -> None:
    record(site, now, **({"caller": "alice@contoso.com"} | entry))
    assert await log.who_stopped(target, now) == ""


async def test_who_stopped_it_before_it_was_started_again_is_not_told(
    site: Site, log: AzureActivityLog, target: Target, now: datetime
) -> None:
    """It went down by itself since: nobody is to be blamed."""
    record(site, now, "deallocate", "alice@contoso.com", 60)
    record(site, now, "start", "bob@contoso.com", 30)
    assert await log.who_stopped(target, now) == ""


async def test_a_person_deallocates_by_hand(site: Site, log: AzureActivityLog, target: Target) -> None:
    """Through ARM, with a token of one's own."""
    token = site.cloud.tokens.mint("https://management.azure.com", upn="carol@contoso.com").text
    headers = {"Authorization": f"Bearer {token}"}
    async with site.http.post(site.vm_url("web-1", "/deallocate"), headers=headers) as response:
        assert response.status == 202
    async with asyncio.timeout(5):
        while site.vms["web-1"].power_state != "deallocated":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    told = await log.who_stopped(target, datetime.now(UTC))
    assert told.startswith("carol@contoso.com at ")
    assert told.endswith(" UTC (deallocate)")
    await (await site.compute.virtual_machines.begin_start(GROUP, "web-1")).result()
    assert await log.who_stopped(target, datetime.now(UTC)) == ""


@pytest.mark.parametrize(
    ("caller", "told"),
    [
        ("x" * 500, "x" * 120),
        ("a\n\x1b[31mb\u202ec\u0000", "a[31mbc"),
        (" \n ", ""),
        ("00000000-0000-4000-8000-0000000000bb", "00000000-0000-4000-8000-0000000000bb"),
    ],
    ids=["long", "not printable", "blank", "a service"],
)
async def test_a_caller_is_bounded(
    site: Site, log: AzureActivityLog, target: Target, now: datetime, caller: str, told: str
) -> None:
    record(site, now, "deallocate", caller, 30)
    assert await log.who_stopped(target, now) == (f"{told} at 14:00 UTC (deallocate)" if told else "")


async def test_a_stop_among_many_entries_is_found_within_a_few_pages(
    site: Site, log: AzureActivityLog, target: Target, now: datetime
) -> None:
    record(site, now, "deallocate", "alice@contoso.com", 200)
    for minute in range(120):
        record(site, now, "restart", "a-policy", minute)
    before = len(calls_of(site, LOG))
    assert await log.who_stopped(target, now) == "alice@contoso.com at 11:10 UTC (deallocate)"
    assert len(calls_of(site, LOG, before)) == 3
    for minute in range(120, 190):
        record(site, now, "restart", "a-policy", minute)
    before = len(calls_of(site, LOG))
    assert await log.who_stopped(target, now) == ""  # further back than it is worth
    assert len(calls_of(site, LOG, before)) == 3


@pytest.mark.parametrize(
    "fault",
    [
        Fault("arm", LOG, mode="forbidden"),
        Fault("arm", LOG, status=401, error_code="ExpiredAuthenticationToken", times=0),
        Fault("arm", LOG, status=400, error_code="BadRequest"),
        Fault("arm", LOG, status=404),
        Fault("arm", LOG, status=429, headers={"Retry-After": "30"}),
        Fault("arm", LOG, status=500),
        Fault("arm", LOG, mode="disconnect", times=2),
        Fault("arm", LOG, delay_seconds=30),
    ],
    ids=["no role", "401", "400", "404", "429", "500", "no answer", "late"],
)
async def test_what_can_not_be_read_is_empty_with_one_line_in_the_log(
    site: Site,
    clients: Any,
    target: Target,
    now: datetime,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
) -> None:
    record(site, now, "deallocate", "alice@contoso.com", 30)
    site.cloud.faults.add(fault)
    with caplog.at_level(logging.WARNING, logger="vm_watchdog"):
        async with asyncio.timeout(5):
            assert await AzureActivityLog(clients, call_seconds=0.5).who_stopped(target, now) == ""
    lines = [record for record in caplog.records if record.name.startswith("vm_watchdog")]
    assert [line.getMessage() for line in lines] == ["The activity log can't be read"]


ALICE = "alice@contoso.com at 14:02 UTC (deallocate)"
EVENT = {
    "caller": "alice@contoso.com",
    "operationName": {"value": "Microsoft.Compute/virtualMachines/deallocate/action"},
    "status": {"value": "Succeeded"},
    "eventTimestamp": "2031-05-06T14:02:03.1234567Z",
}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, ALICE),
        ({"eventTimestamp": "2031-05-06T16:02:03+02:00"}, ALICE),
        ({"operationName": {"value": "MICROSOFT.COMPUTE/VIRTUALMACHINES/DEALLOCATE/ACTION"}}, ALICE),
        ({"eventTimestamp": None}, ""),
        ({"eventTimestamp": "soon"}, ""),
        ({"operationName": "deallocate"}, ""),
        ({"status": None}, ""),
        ({"caller": None}, ""),
        ({"caller": {"a": 1}}, ""),
    ],
)
async def test_events_as_azure_words_them_and_worse(
    target: Target, odd_arm: OddArm, odd_clients: Any, change: dict[str, Any], told: str
) -> None:
    odd_arm.body = {"value": [EVENT | change, {}, None]}
    assert await AzureActivityLog(odd_clients).who_stopped(target, NOW) == told


async def test_a_target_that_is_no_vm_is_not_asked_about(
    site: Site, log: AzureActivityLog, target: Target
) -> None:
    before = len(calls_of(site, LOG))
    odd = replace(target, vm_id=target.vm_id + "' or '1' eq '1")
    assert await log.who_stopped(odd, NOW) == ""
    assert len(calls_of(site, LOG)) == before


@pytest.mark.parametrize("fake", [True, False], ids=["fake", "arm"])
async def test_both_logs_tell_what_they_know_and_nothing_else(
    site: Site, log: AzureActivityLog, target: Target, now: datetime, fake: bool
) -> None:
    port: ActivityLog = log
    assert await port.who_stopped(target, now) == ""
    record(site, now, "deallocate", "alice@contoso.com", 28)
    if fake:
        port = told = FakeActivityLog()
        told.stoppers[target.vm_id] = "alice@contoso.com at 14:02 UTC (deallocate)"
    assert await port.who_stopped(target, now) == "alice@contoso.com at 14:02 UTC (deallocate)"
