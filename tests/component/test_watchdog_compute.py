"""The inventory: the adapter and Azure's SDK against the local ARM."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from devcloud.faults import Fault
from devcloud.identity import vm_guid
from tests.builders import SUBSCRIPTION
from tests.component.arm_site import OddArm, calls_of, id_of, target_of
from tests.component.devcloud_site import Site
from tests.fakes import FakeInventory
from vm_health.errors import NotFoundError, PermanentError, TransientError, WatchdogError
from vm_health.model import PowerState
from vm_watchdog.adapters.compute_inventory import ComputeInventory
from vm_watchdog.ports import Inventory, Target

pytest_plugins = ["tests.component.devcloud_fixtures", "tests.component.arm_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_list_has_the_opted_in_vms_with_tags_and_power(
    site: Site, inventory: ComputeInventory
) -> None:
    """Tags come from one list, power from the other; they differ in the case of ids. Db-3 did not opt in."""
    site.vms["web-2"].power_state = "deallocated"
    targets = {target.name: target for target in await inventory.list_targets()}
    assert set(targets) == {"web-1", "web-2"}
    assert targets["web-1"] == Target(
        vm_id=id_of(site, "web-1"),
        name="web-1",
        resource_group="rg-devcloud",
        subscription_id=SUBSCRIPTION,
        location="westeurope",
        power=PowerState.RUNNING,
        tags={"watchdog": "on"},
        instance_id=vm_guid(site.vms["web-1"].spec),
    )
    assert targets["web-2"].power is PowerState.DEALLOCATED
    assert (targets["web-1"].may_act, targets["web-2"].may_act) == (True, False)


@pytest.mark.parametrize(
    ("code", "power"),
    [
        ("", PowerState.UNKNOWN),
        ("hibernated", PowerState.UNKNOWN),
        ("stopped", PowerState.STOPPED),
        ("starting", PowerState.STARTING),
        ("deallocating", PowerState.DEALLOCATING),
    ],
)
async def test_power_as_arm_says_it_and_unknown_where_it_does_not(
    site: Site, inventory: ComputeInventory, code: str, power: PowerState
) -> None:
    site.vms["web-1"].power_state = code
    listed = {target.name: target.power for target in await inventory.list_targets()}
    assert listed["web-1"] is power
    assert (await target_of(inventory, site)).power is power


async def test_one_vm_is_the_same_as_in_the_list(site: Site, inventory: ComputeInventory) -> None:
    listed = {target.name: target for target in await inventory.list_targets()}
    assert await target_of(inventory, site) == listed["web-1"]


@pytest.mark.parametrize(
    "change",
    [
        lambda vm_id: vm_id.replace("web-1", "gone"),
        lambda vm_id: vm_id.replace("rg-devcloud", "elsewhere"),
        lambda vm_id: vm_id.replace("web-1", "db-3"),
        lambda vm_id: vm_id.replace(SUBSCRIPTION, "99999999-0000-4000-8000-000000000001"),
        lambda vm_id: vm_id + "/extensions/x",
        lambda _: "",
    ],
    ids=["no such VM", "no such group", "not opted in", "another subscription", "no VM", "nothing"],
)
async def test_what_is_gone_or_not_ours_is_none(
    site: Site, inventory: ComputeInventory, change: object
) -> None:
    assert callable(change)
    assert await inventory.get_target(change(id_of(site, "web-1"))) is None


@pytest.mark.parametrize("fake", [True, False], ids=["fake", "arm"])
async def test_both_inventories_know_what_is_there_and_what_is_not(
    site: Site, inventory: ComputeInventory, fake: bool
) -> None:
    port: Inventory = inventory
    if fake:
        port = FakeInventory()
        port.targets = {target.vm_id: target for target in await inventory.list_targets()}
    assert sorted(target.name for target in await port.list_targets()) == ["web-1", "web-2"]
    found = await port.get_target(id_of(site, "web-1"))
    assert found is not None
    assert found.name == "web-1"
    assert await port.get_target(id_of(site, "web-1") + "-not") is None


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (403, "AuthorizationFailed", PermanentError),
        (503, "ServerBusy", TransientError),
        (404, "X", NotFoundError),
    ],
)
async def test_half_an_inventory_is_none(
    site: Site, inventory: ComputeInventory, status: int, code: str, error: type[Exception]
) -> None:
    site.cloud.faults.add(
        Fault("arm", "list_all", status=status, error_code=code, headers={"Retry-After": "0.01"}, times=0)
    )
    with pytest.raises(error, match="listing the VMs of subscription"):
        await inventory.list_targets()


async def test_a_vm_that_can_not_be_read_is_not_gone(site: Site, inventory: ComputeInventory) -> None:
    site.cloud.faults.add(Fault("arm", "get", status=500, headers={"Retry-After": "0.01"}, times=0))
    with pytest.raises(TransientError, match="reading VM web-1"):
        await inventory.get_target(id_of(site, "web-1"))


async def test_a_vm_that_arm_changes_says_so_until_it_is_done(
    site: Site, inventory: ComputeInventory
) -> None:
    """In the list and alone."""
    done = asyncio.Event()

    async def work() -> None:
        await done.wait()

    operation = site.cloud.operations.start(work(), changes="web-1")
    listed = {target.name: target.is_updating for target in await inventory.list_targets()}
    assert listed == {"web-1": True, "web-2": False}
    assert (await target_of(inventory, site)).is_updating
    done.set()
    await operation.task
    assert not (await target_of(inventory, site)).is_updating


async def test_the_list_costs_one_call_a_page_and_kind(site: Site, inventory: ComputeInventory) -> None:
    """Three VMs in pages of two, with tags and with status."""
    before = len(calls_of(site, "list_all"))
    await inventory.list_targets()
    assert len(calls_of(site, "list_all", before)) == 4


async def test_a_next_page_at_another_host_is_never_asked_for(odd_arm: OddArm, odd_clients: Any) -> None:
    """It would be sent the token."""
    odd_arm.body = {"value": [], "nextLink": f"{odd_arm.listener.origins[1]}/subscriptions/x?$skiptoken=2"}
    with pytest.raises(WatchdogError, match=r"goes on at another host: '127\.0\.0\.2"):
        await ComputeInventory(odd_clients, [SUBSCRIPTION]).list_targets()
    assert set(odd_arm.asked) == {"127.0.0.1"}


@pytest.mark.parametrize("body", ["<html>", "[]", '"x"', "{}", '{"value": {}}', "[" * 99_999])
async def test_an_answer_that_is_no_list_is_no_inventory(
    odd_arm: OddArm, odd_clients: Any, body: str
) -> None:
    odd_arm.body = body
    with pytest.raises(TransientError, match="listing the VMs"):
        await ComputeInventory(odd_clients, [SUBSCRIPTION]).list_targets()


async def test_odd_vms_are_left_out_or_unknown(site: Site, odd_arm: OddArm, odd_clients: Any) -> None:
    """No id, no tags, nothing but an id and a tag."""
    vm_id = site.vms["web-1"].spec.vm_id
    odd_arm.body = {
        "value": [
            7,
            {},
            {"id": vm_id},
            {"id": vm_id, "tags": None},
            {"id": vm_id, "tags": {"Watchdog": "ON"}},
        ]
    }
    (target,) = await ComputeInventory(odd_clients, [SUBSCRIPTION]).list_targets()
    assert (target.power, target.instance_id, target.is_updating) == (PowerState.UNKNOWN, "", False)


@pytest.mark.parametrize("name", ["a?b=c", "a{b}c", "a%2fb", "..", "a#b"])
async def test_a_name_stays_in_its_place_in_the_path(inventory: ComputeInventory, name: str) -> None:
    vm_id = (
        f"/subscriptions/{SUBSCRIPTION}/resourcegroups/rg-devcloud"
        f"/providers/microsoft.compute/virtualmachines/{name}"
    )
    assert await inventory.get_target(vm_id) is None


async def test_a_missing_role_names_action_and_scope(site: Site, inventory: ComputeInventory) -> None:
    """However long the rest of ARM's sentence is."""
    site.cloud.faults.add(Fault("arm", "list_all", mode="forbidden", times=0))
    with pytest.raises(PermanentError) as refused:
        await inventory.list_targets()
    assert (
        "403 AuthorizationFailed: the watchdog's identity may not Microsoft.Compute/virtualMachines/read "
        f"on /subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/virtualMachines"
    ) in str(refused.value)
