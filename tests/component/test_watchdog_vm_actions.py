"""Restarting and redeploying whole VMs: the adapter and Azure's SDK against the local ARM."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from devcloud.faults import Fault
from tests.builders import NOW
from tests.component.arm_site import calls_of
from tests.component.devcloud_site import Site
from tests.fakes import FakeActuator
from vm_health.state import Lane, StartKind, StartOutcome, VmAction, VmActionKind
from vm_watchdog.adapters.vm_actions import AzureVmActuator
from vm_watchdog.ports import Target, VmActuator

pytest_plugins = ["tests.component.devcloud_fixtures", "tests.component.arm_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="session")

KINDS = [VmActionKind.RESTART, VmActionKind.REDEPLOY]
OPERATION = {VmActionKind.RESTART: "restart", VmActionKind.REDEPLOY: "redeploy"}


def an_action(kind: VmActionKind = VmActionKind.RESTART) -> VmAction:
    return VmAction(kind, NOW, "20261124T120000-0a1b2c3d-vm1")


@pytest.fixture
def actuator(clients: Any) -> AzureVmActuator:
    return AzureVmActuator(clients)


@pytest.mark.parametrize("kind", KINDS)
async def test_one_call_restarts_the_vm_and_nobody_waits(
    site: Site, actuator: AzureVmActuator, target: Target, kind: VmActionKind
) -> None:
    restarts, before = site.vms["web-1"].restarts, len(site.cloud.calls.matching("arm"))
    outcome = await actuator.start(target, an_action(kind))
    assert (outcome.kind, outcome.lane) == (StartKind.STARTED, Lane.NONE)
    assert outcome.detail == f"Azure has begun to have the VM {OPERATION[kind]}ed"
    calls = site.cloud.calls.matching("arm")[before:]
    assert [(call.operation, call.status) for call in calls] == [(OPERATION[kind], 202)]
    async with asyncio.timeout(5):
        while site.vms["web-1"].restarts == restarts:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("status", "code", "outcome", "wait"),
    [
        (409, "OperationNotAllowed", StartKind.NOT_RUNNING, None),
        (409, "OperationNotAllowed: since another operation is in progress", StartKind.BUSY, None),
        (409, "Conflict", StartKind.BUSY, None),
        (429, "TooManyRequests", StartKind.THROTTLED, 11.0),
        (401, "ExpiredAuthenticationToken", StartKind.FORBIDDEN, None),
        (404, "ResourceNotFound", StartKind.FAILED, None),
        (500, "InternalServerError", StartKind.FAILED, None),
        (503, "ServerBusy", StartKind.FAILED, 11.0),
    ],
)
async def test_a_refusal_is_an_outcome_with_its_reason(
    site: Site,
    actuator: AzureVmActuator,
    target: Target,
    kind: VmActionKind,
    status: int,
    code: str,
    outcome: StartKind,
    wait: float | None,
) -> None:
    headers = {} if wait is None else {"Retry-After": f"{wait:.0f}"}
    site.cloud.faults.add(
        Fault("arm", OPERATION[kind], status=status, error_code=code, headers=headers, times=0)
    )
    before = len(calls_of(site, OPERATION[kind]))
    async with asyncio.timeout(3):
        told = await actuator.start(target, an_action(kind))
    assert (told.kind, told.lane, told.retry_after_seconds) == (outcome, Lane.NONE, wait)
    assert code in told.detail
    assert len(calls_of(site, OPERATION[kind], before)) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_missing_role_is_named_with_its_scope(
    site: Site, actuator: AzureVmActuator, target: Target, kind: VmActionKind
) -> None:
    action = f"Microsoft.Compute/virtualMachines/{OPERATION[kind]}/action"
    site.cloud.permissions.deny(action)
    assert await actuator.start(target, an_action(kind)) == StartOutcome(
        StartKind.FORBIDDEN,
        f"403 AuthorizationFailed: the watchdog's identity may not {action} on "
        f"{site.vms['web-1'].spec.vm_id}/{OPERATION[kind]}",
        Lane.NONE,
    )


async def test_a_vm_that_is_off_is_not_started_by_it(
    site: Site, actuator: AzureVmActuator, target: Target
) -> None:
    site.vms["web-1"].power_state = "deallocated"
    outcome = await actuator.start(target, an_action())
    assert outcome.kind is StartKind.NOT_RUNNING
    assert "requires the VM to be running" in outcome.detail


@pytest.mark.parametrize("mode", ["disconnect", "answer_lost"])
async def test_no_answer_is_an_outcome_that_says_what_is_not_known(
    site: Site, actuator: AzureVmActuator, target: Target, mode: str
) -> None:
    """And a POST is sent once, whatever becomes of it."""
    site.cloud.faults.add(Fault("arm", "restart", mode=mode))
    before = len(calls_of(site, "restart"))
    outcome = await actuator.start(target, an_action())
    assert outcome.kind is StartKind.FAILED
    assert outcome.detail.endswith("it may have been carried out all the same")
    assert len(calls_of(site, "restart", before)) == 1


async def test_an_answer_that_is_too_late_is_an_outcome(site: Site, clients: Any, target: Target) -> None:
    site.cloud.faults.add(Fault("arm", "restart", delay_seconds=30))
    async with asyncio.timeout(5):
        outcome = await AzureVmActuator(clients, call_seconds=0.3).start(target, an_action())
    assert outcome.detail == "no answer within 0.3 s; it may have been carried out all the same"


@pytest.mark.parametrize("fake", [True, False], ids=["fake", "arm"])
async def test_both_actuators_start_what_they_are_asked_for(
    actuator: AzureVmActuator, target: Target, fake: bool
) -> None:
    port: VmActuator = FakeActuator() if fake else actuator
    for kind in KINDS:
        assert (await port.start(target, an_action(kind))).kind is StartKind.STARTED
