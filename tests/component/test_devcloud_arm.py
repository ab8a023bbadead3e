"""ARM's virtual machines in the local Azure, as azure-mgmt-compute reads and restarts them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError

from devcloud.arm_permissions import ACTIONS
from devcloud.faults import Fault
from devcloud.tokens import CLIENT_ID, OBJECT_ID
from tests.component.devcloud_site import API, Site

pytest_plugins = ["tests.component.devcloud_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="session")

GROUP = "rg-devcloud"


async def test_status_only_list_gives_every_power_state_over_several_pages(site: Site) -> None:
    """Three VMs in pages of two; nothing but what a status list has."""
    site.vms["web-2"].power_state = "deallocated"
    site.vms["Db-3"].power_state = ""  # not known
    before = len(site.cloud.calls.matching("arm", "list_all"))
    vms = [vm async for vm in site.compute.virtual_machines.list_all(status_only="true")]
    power = {
        vm.name: [status.code for status in vm.instance_view.statuses if status.code.startswith("PowerState")]
        for vm in vms
    }
    assert power == {"web-1": ["PowerState/running"], "web-2": ["PowerState/deallocated"], "Db-3": []}
    assert len(site.cloud.calls.matching("arm", "list_all")) == before + 2
    assert {vm.tags for vm in vms} == {None}
    assert {vm.id.lower() for vm in vms} == {vm.spec.vm_id.lower() for vm in site.vms.values()}
    assert vms[0].id != site.vms["web-1"].spec.vm_id  # the group in capitals: ids are to be compared folded


async def test_full_lists_carry_tags(site: Site) -> None:
    """The subscription's list and the group's give the same VMs."""
    everything = [vm async for vm in site.compute.virtual_machines.list_all()]
    group = [vm async for vm in site.compute.virtual_machines.list(GROUP.upper())]
    assert [vm.name for vm in everything] == [vm.name for vm in group] == ["web-1", "web-2", "Db-3"]
    assert everything[0].tags == {"watchdog": "on"}
    assert everything[0].instance_view is None


async def test_one_vm_and_its_instance_view(site: Site) -> None:
    """Names are case-insensitive; the agent's state is told."""
    site.vms["Db-3"].vm_agent_ready = False
    plain = await site.compute.virtual_machines.get(GROUP, "db-3")
    expanded = await site.compute.virtual_machines.get(GROUP, "DB-3", expand="instanceView")
    view = await site.compute.virtual_machines.instance_view(GROUP, "Db-3")
    assert plain.instance_view is None
    assert expanded.name == "Db-3"
    for found in (expanded.instance_view, view):
        assert found.vm_agent.statuses[0].code == "ProvisioningState/Unavailable"
        assert found.vm_agent.statuses[0].display_status == "Not Ready"
    site.vms["Db-3"].vm_agent_ready = True
    view = await site.compute.virtual_machines.instance_view(GROUP, "Db-3")
    assert view.vm_agent.statuses[0].display_status == "Ready"


async def test_what_is_not_there_is_404_with_arms_codes(site: Site) -> None:
    """VM and group, each with its code."""
    with pytest.raises(ResourceNotFoundError) as no_vm:
        await site.compute.virtual_machines.get(GROUP, "nobody")
    assert no_vm.value.error.code == "ResourceNotFound"
    with pytest.raises(ResourceNotFoundError) as no_group:
        await site.compute.virtual_machines.get("elsewhere", "web-1")
    assert no_group.value.error.code == "ResourceGroupNotFound"


@pytest.mark.parametrize(
    ("audience", "life", "code"),
    [
        (None, 0, "AuthenticationFailed"),
        ("https://vault.azure.net", 60, "InvalidAuthenticationTokenAudience"),
        ("https://management.azure.com", -10, "ExpiredAuthenticationToken"),
    ],
)
async def test_a_token_is_demanded(site: Site, audience: str | None, life: int, code: str) -> None:
    """401 and a challenge without a token, with another service's, with an old one."""
    headers = site.bearer(audience, life) if audience else {}
    async with site.http.get(site.vm_url("web-1"), headers=headers) as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"].startswith("Bearer authorization_uri=")
        assert (await response.json())["error"]["code"] == code


async def test_api_version_and_unknown_paths(site: Site) -> None:
    """ARM's own words for both; every answer has a request id."""
    url = site.vm_url("web-1")
    async with site.http.get(url.partition("?")[0], headers=site.bearer()) as response:
        assert (await response.json())["error"]["code"] == "MissingApiVersionParameter"
    async with site.http.get(f"{site.cloud.arm_url}/nothing?{API}", headers=site.bearer()) as response:
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "InvalidResourceType"
        assert len(response.headers["x-ms-request-id"]) == 36


@pytest.mark.parametrize("action", ["restart", "redeploy"])
async def test_restart_and_redeploy(site: Site, action: str) -> None:
    """Both end with a restarted VM; a VM that isn't running can't."""
    vm = site.vms["web-1"]
    before = vm.restarts
    begin = getattr(site.compute.virtual_machines, f"begin_{action}")
    await (await begin(GROUP, "web-1")).result()
    assert vm.restarts == before + 1
    vm.power_state = "stopped"
    with pytest.raises(ResourceExistsError) as refused:
        await begin(GROUP, "web-1")
    assert refused.value.error.code == "OperationNotAllowed"


async def test_a_throttled_list_is_retried_after_the_time_asked_for(site: Site) -> None:
    """429 twice, then the list: the SDK waits as the header says."""
    headers = {"Retry-After": "0.05"}
    site.cloud.faults.add(Fault("arm", "list_group", status=429, headers=headers, times=2))
    before = len(site.cloud.calls.matching("arm", "list_group"))
    vms = [vm async for vm in site.compute.virtual_machines.list(GROUP)]
    assert len(vms) == 3
    statuses = [call.status for call in site.cloud.calls.matching("arm", "list_group")[before:]]
    assert statuses == [429, 429, 200, 200]


async def test_a_fault_names_its_vm(site: Site) -> None:
    """The one VM gets it, the other doesn't; times 0 lasts until cleared."""
    site.cloud.faults.add(Fault("arm", "get", vm="WEB-1", status=409, error_code="Busy", times=0))
    for _ in range(2):
        with pytest.raises(HttpResponseError) as refused:
            await site.compute.virtual_machines.get(GROUP, "web-1")
        assert refused.value.error.code == "Busy"
    assert (await site.compute.virtual_machines.get(GROUP, "web-2")).name == "web-2"
    site.cloud.faults.clear()
    assert (await site.compute.virtual_machines.get(GROUP, "web-1")).name == "web-1"


async def test_an_answer_that_gets_lost_was_still_carried_out(site: Site) -> None:
    """The client sees a broken connection, the VM restarts: the case for fencing tokens."""
    before = site.vms["web-2"].restarts
    site.cloud.faults.add(Fault("arm", "restart", mode="answer_lost"))
    seen = len(site.cloud.calls.matching("arm", "restart"))
    with pytest.raises(aiohttp.ClientError):
        await site.http.post(site.vm_url("web-2", "/restart"), headers=site.bearer())
    calls = await site.cloud.calls.wait_for("arm", "restart", count=seen + 1)
    assert calls[-1].status == 0
    assert site.vms["web-2"].restarts == before + 1


async def test_a_vm_is_updating_while_an_operation_changes_it(site: Site) -> None:
    """In the resource and in the instance view; another VM isn't concerned."""
    done = asyncio.Event()

    async def work() -> None:
        await done.wait()

    operation = site.cloud.operations.start(work(), changes="WEB-1")
    states = {vm.name: vm.provisioning_state async for vm in site.compute.virtual_machines.list_all()}
    assert states == {"web-1": "Updating", "web-2": "Succeeded", "Db-3": "Succeeded"}
    view = await site.compute.virtual_machines.instance_view(GROUP, "web-1")
    assert [status.code for status in view.statuses] == ["ProvisioningState/updating", "PowerState/running"]
    done.set()
    await operation.task
    assert (await site.compute.virtual_machines.get(GROUP, "web-1")).provisioning_state == "Succeeded"


async def test_stopping_and_starting_through_arm(site: Site) -> None:
    """Powered off is stopped and paid for, deallocated is neither; ARM tells which."""

    async def power() -> str:
        view = await site.compute.virtual_machines.instance_view(GROUP, "web-1")
        return str(view.statuses[-1].code)

    machines = site.compute.virtual_machines
    states = []
    for begin in (machines.begin_power_off, machines.begin_deallocate, machines.begin_start):
        await (await begin(GROUP, "web-1")).result()
        states.append(await power())
    assert states == ["PowerState/stopped", "PowerState/deallocated", "PowerState/running"]


async def test_the_activity_log_says_who_did_what(site: Site) -> None:
    """The caller is the token's person, else its object; newest first, and only what was asked for."""
    since = datetime.now(UTC)
    await (await site.compute.virtual_machines.begin_restart(GROUP, "web-2")).result()
    token = site.cloud.tokens.mint("https://management.azure.com", upn="alice@contoso.com").text
    url = site.vm_url("web-2", "/deallocate")
    async with site.http.post(url, headers={"Authorization": f"Bearer {token}"}) as response:
        assert response.status == 202
    until = datetime.now(UTC) + timedelta(minutes=1)
    window = f"eventTimestamp ge '{since.isoformat()}' and eventTimestamp le '{until.isoformat()}'"
    entries = await activities(site, window)
    assert ("alice@contoso.com", "deallocate", "Accepted") in entries
    assert (OBJECT_ID, "restart", "Succeeded") in entries
    assert await activities(site, f"{window} and resourceUri eq '{site.vms['web-1'].spec.vm_id}'") == []
    later = f"eventTimestamp ge '{until.isoformat()}' and eventTimestamp le '{until.isoformat()}'"
    assert await activities(site, later) == []


async def activities(site: Site, wanted: str) -> list[tuple[str, str, str]]:
    """Caller, verb and status of the activity log's entries."""
    url = (
        f"{site.cloud.arm_url}/subscriptions/{site.vms['web-1'].spec.subscription_id}"
        "/providers/Microsoft.Insights/eventtypes/management/values"
    )
    parameters = {"api-version": "2015-04-01", "$filter": wanted}
    async with site.http.get(url, params=parameters, headers=site.bearer()) as response:
        assert response.status == 200
        entries = (await response.json())["value"]
    return [
        (one["caller"], one["operationName"]["value"].split("/")[-2], one["status"]["value"])
        for one in entries
    ]


@pytest.mark.parametrize("wanted", ["", "resourceUri eq 'x'", "eventTimestamp ge 'soon'"])
async def test_the_activity_log_needs_a_filter_that_it_knows(site: Site, wanted: str) -> None:
    """400, and never everything."""
    url = (
        f"{site.cloud.arm_url}/subscriptions/{site.vms['web-1'].spec.subscription_id}"
        "/providers/Microsoft.Insights/eventtypes/management/values"
    )
    parameters = {"api-version": "2015-04-01", "$filter": wanted}
    async with site.http.get(url, params=parameters, headers=site.bearer()) as response:
        assert response.status == 400


async def test_a_denied_action_is_refused_in_arms_words(site: Site) -> None:
    """By action until it is given back, or by a fault once; everything else goes on."""
    machines = site.compute.virtual_machines
    scope = site.vms["web-1"].spec.vm_id
    site.cloud.permissions.deny("Microsoft.Compute/virtualMachines/restart/action")
    for _ in range(2):
        with pytest.raises(HttpResponseError) as refused:
            await machines.begin_restart(GROUP, "web-1")
        assert (refused.value.status_code, refused.value.error.code) == (403, "AuthorizationFailed")
        assert refused.value.error.message == (
            f"The client '{CLIENT_ID}' with object id '{OBJECT_ID}' does not have authorization to perform "
            f"action 'Microsoft.Compute/virtualMachines/restart/action' over scope '{scope}/restart' or the "
            "scope is invalid. If access was recently granted, please refresh your credentials."
        )
    await (await machines.begin_redeploy(GROUP, "web-1")).result()
    site.cloud.permissions.allow_all()
    site.cloud.faults.add(Fault("arm", "restart", mode="forbidden"))
    with pytest.raises(HttpResponseError, match="restart/action"):
        await machines.begin_restart(GROUP, "web-1")
    await (await machines.begin_restart(GROUP, "web-1")).result()


async def test_an_action_that_nothing_needs_can_not_be_denied(site: Site) -> None:
    """A typing error would let a test pass for nothing."""
    with pytest.raises(ValueError, match="must be one of"):
        site.cloud.permissions.deny("Microsoft.Compute/virtualMachines/restart")


async def test_every_operation_of_arm_has_its_action(site: Site) -> None:
    """So that each of them can be denied."""
    done = {call.operation for call in site.cloud.calls.matching("arm") if call.operation != "unknown"}
    assert {"get", "restart", "list_all"} <= done
    assert {name for name in done if not name.startswith("_")} <= set(ACTIONS)
