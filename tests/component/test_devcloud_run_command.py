"""Run Command in the local Azure, both kinds, with scripts that are real processes."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError

from devcloud.cloud import CloudOptions, LocalCloud
from devcloud.faults import Fault
from tests.component.devcloud_site import API, ShellVm, Site

pytest_plugins = ["tests.component.devcloud_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="session")

GROUP = "rg-devcloud"


def managed(script: str, **properties: Any) -> dict[str, Any]:
    """The body of a managed run command, as the REST API takes it."""
    source = {"source": {"script": script}, "timeoutInSeconds": 30}
    return {"location": "westeurope", "properties": source | properties}


async def put(site: Site, vm: str, name: str, body: dict[str, Any]) -> Any:
    """Run a managed command to its end and read what it did."""
    commands = site.compute.virtual_machine_run_commands
    await (await commands.begin_create_or_update(GROUP, vm, name, body)).result()
    return await commands.get_by_virtual_machine(GROUP, vm, name, expand="instanceView")


async def delete(site: Site, vm: str, name: str) -> None:
    await (await site.compute.virtual_machine_run_commands.begin_delete(GROUP, vm, name)).result()


async def polled(site: Site, status_url: str) -> dict[str, Any]:
    """An operation's status once it has ended."""
    async with asyncio.timeout(5):
        while True:
            async with site.http.get(status_url, headers=site.bearer()) as response:
                body: dict[str, Any] = await response.json()
            if body["status"] != "InProgress":
                return body
            await asyncio.sleep(float(response.headers["Retry-After"]))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# The action (v1)


async def test_action_returns_both_streams_in_azures_words(site: Site) -> None:
    """The message is the one that the Linux extension writes; there is no exit code in it."""
    body = {"commandId": "RunShellScript", "script": ["echo out", "echo err >&2", "exit 3"]}
    result = await (await site.compute.virtual_machines.begin_run_command(GROUP, "web-1", body)).result()
    assert result.value[0].message == "Enable succeeded: \n[stdout]\nout\n\n[stderr]\nerr\n"


async def test_action_keeps_the_last_4096_bytes(site: Site) -> None:
    """The end of a long output is what is left."""
    body = {"commandId": "RunShellScript", "script": ["seq 1 5000"]}
    result = await (await site.compute.virtual_machines.begin_run_command(GROUP, "web-1", body)).result()
    stdout = result.value[0].message.partition("[stdout]\n")[2].partition("\n[stderr]")[0]
    assert len(stdout) == 4096
    assert stdout.endswith("4999\n5000\n")


async def test_action_runs_one_script_at_a_time_in_a_vm(site: Site, tmp_path: Path) -> None:
    """A second one is a conflict until the first has ended; another VM isn't concerned."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    waiting = {"commandId": "RunShellScript", "script": [f"cat {gate}"]}
    short = {"commandId": "RunShellScript", "script": ["echo other"]}
    begin = site.compute.virtual_machines.begin_run_command
    first = await begin(GROUP, "web-1", waiting)
    with pytest.raises(ResourceExistsError, match="Run command extension execution is in progress"):
        await begin(GROUP, "web-1", short)
    assert "other" in (await (await begin(GROUP, "web-2", short)).result()).value[0].message
    await asyncio.to_thread(gate.write_text, "opened")
    assert "opened" in (await first.result()).value[0].message
    await (await begin(GROUP, "web-1", short)).result()


async def test_action_answers_with_where_to_poll(site: Site) -> None:
    """202 with both addresses; the Location gives 202 while it runs."""
    body = {"commandId": "RunShellScript", "script": ["sleep 0.2"]}
    url = site.vm_url("web-1", "/runCommand")
    async with site.http.post(url, headers=site.bearer(), json=body) as response:
        assert response.status == 202
        assert float(response.headers["Retry-After"]) > 0
        status_url, location = response.headers["Azure-AsyncOperation"], response.headers["Location"]
    async with site.http.get(location, headers=site.bearer()) as response:
        assert response.status == 202
    async with site.http.get(status_url, headers=site.bearer()) as response:
        assert (await response.json())["status"] == "InProgress"
    status = await polled(site, status_url)
    assert status["status"] == "Succeeded"
    assert "Enable succeeded" in status["properties"]["output"]["value"][0]["message"]


async def test_action_needs_a_running_vm_and_a_ready_agent(site: Site) -> None:
    """Refused at once when stopped; fails later when only the agent is missing."""
    body = {"commandId": "RunShellScript", "script": ["true"]}
    begin = site.compute.virtual_machines.begin_run_command
    site.vms["web-1"].power_state = "deallocated"
    with pytest.raises(ResourceExistsError) as refused:
        await begin(GROUP, "web-1", body)
    assert refused.value.error.code == "OperationNotAllowed"
    site.vms["web-1"].power_state, site.vms["web-1"].vm_agent_ready = "running", False
    poller = await begin(GROUP, "web-1", body)
    with pytest.raises(HttpResponseError, match="has not reported status for VM agent"):
        await poller.result()


async def test_a_stuck_action_blocks_the_vm_until_a_restart(site: Site) -> None:
    """What users meet: conflicts until the VM is restarted."""
    body = {"commandId": "RunShellScript", "script": ["true"]}
    begin = site.compute.virtual_machines.begin_run_command
    site.cloud.faults.add(Fault("arm", "run_command", vm="web-2", mode="stuck"))
    await begin(GROUP, "web-2", body, polling=False)
    with pytest.raises(ResourceExistsError):
        await begin(GROUP, "web-2", body)
    await (await site.compute.virtual_machines.begin_restart(GROUP, "web-2")).result()
    await (await begin(GROUP, "web-2", body)).result()


# Managed run commands (v2)


async def test_named_parameters_are_environment_variables_and_never_shell(site: Site) -> None:
    """A value full of shell stays a value."""
    evil = '$(touch /nonexistent/owned); `id` "; rm -rf x #'
    parameters = [{"name": "UNIT", "value": evil}, {"name": "TOKEN", "value": "t-1"}]
    script = 'printf \'%s|%s\' "$UNIT" "$TOKEN"; echo warn >&2'
    found = await put(site, "web-1", "watchdog-1", managed(script, parameters=parameters))
    view = found.instance_view
    assert (view.execution_state, view.exit_code, view.output, view.error) == (
        "Succeeded",
        0,
        f"{evil}|t-1",
        "warn\n",
    )
    assert view.start_time <= view.end_time
    assert found.provisioning_state == "Succeeded"
    await delete(site, "web-1", "watchdog-1")


async def test_a_failing_script_is_provisioned_and_failed(site: Site) -> None:
    """provisioningState says only that it ran; without $expand there is no instance view."""
    found = await put(site, "web-1", "fails", managed("echo no >&2; exit 7"))
    assert found.provisioning_state == "Succeeded"
    assert (found.instance_view.execution_state, found.instance_view.exit_code) == ("Failed", 7)
    commands = site.compute.virtual_machine_run_commands
    assert (await commands.get_by_virtual_machine(GROUP, "web-1", "fails")).instance_view is None
    strict = managed("exit 7", treatFailureAsDeploymentFailure=True)
    with pytest.raises(HttpResponseError):
        await put(site, "web-1", "fails", strict)
    await delete(site, "web-1", "fails")


async def test_a_script_is_ended_by_its_time_out(site: Site) -> None:
    """TimedOut is a state of its own."""
    found = await put(site, "web-1", "slow", managed("sleep 60", timeoutInSeconds=1))
    assert found.instance_view.execution_state == "TimedOut"
    await delete(site, "web-1", "slow")


async def test_scripts_run_in_parallel_and_delete_ends_one(site: Site, tmp_path: Path) -> None:
    """Two at once in one VM; the deleted one's process is gone, the other goes on."""
    commands = site.compute.virtual_machine_run_commands
    pids = {}
    for name in ("one", "two"):
        os.mkfifo(tmp_path / name)
        script = f"echo $$ > {tmp_path / name}; exec sleep 60"
        await commands.begin_create_or_update(GROUP, "web-1", name, managed(script), polling=False)
        pids[name] = int(await asyncio.to_thread((tmp_path / name).read_text))
    view = (await commands.get_by_virtual_machine(GROUP, "web-1", "one", expand="instanceView")).instance_view
    assert view.execution_state == "Running"
    assert alive(pids["one"])
    await delete(site, "web-1", "one")
    assert not alive(pids["one"])
    assert alive(pids["two"])
    with pytest.raises(ResourceNotFoundError):
        await commands.get_by_virtual_machine(GROUP, "web-1", "one")
    assert [command.name async for command in commands.list_by_virtual_machine(GROUP, "web-1")] == ["two"]
    await delete(site, "web-1", "two")
    assert not alive(pids["two"])
    await delete(site, "web-1", "two")  # 204: nothing there is no error


async def test_status_codes_of_put_and_delete(site: Site) -> None:
    """201 for a new name, 200 for the same again, 202 and then 204 for its end."""
    url = site.vm_url("web-2", "/runCommands/codes")
    statuses = []
    for _ in range(2):
        async with site.http.put(url, headers=site.bearer(), json=managed("true")) as response:
            statuses.append(response.status)
            assert "Azure-AsyncOperation" in response.headers
            await polled(site, response.headers["Azure-AsyncOperation"])
    for _ in range(2):
        async with site.http.delete(url, headers=site.bearer()) as response:
            statuses.append(response.status)
        if response.status == 202:
            await polled(site, response.headers["Azure-AsyncOperation"])
    assert statuses == [201, 200, 202, 204]


async def test_async_execution_ends_the_operation_when_the_script_has_started(
    site: Site, tmp_path: Path
) -> None:
    """The operation is done while the script still waits."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    found = await put(site, "web-1", "async", managed(f"cat {gate}", asyncExecution=True))
    assert (found.provisioning_state, found.instance_view.execution_state) == ("Succeeded", "Running")
    with pytest.raises(ResourceExistsError, match="still in progress"):
        await put(site, "web-1", "async", managed("true"))
    await delete(site, "web-1", "async")


async def test_a_vm_takes_25_run_commands(site: Site) -> None:
    """The 26th is refused until one is deleted."""
    commands = site.compute.virtual_machine_run_commands
    for number in range(25):
        await commands.begin_create_or_update(GROUP, "web-2", f"c{number}", managed("true"), polling=False)
    with pytest.raises(HttpResponseError, match=r"maximum number of managed Run commands \(max=25"):
        await commands.begin_create_or_update(GROUP, "web-2", "c25", managed("true"))
    await delete(site, "web-2", "c0")
    await put(site, "web-2", "c25", managed("true"))
    for number in range(1, 26):
        await commands.begin_delete(GROUP, "web-2", f"c{number}", polling=False)


async def test_not_running_agent_missing_and_bad_bodies(site: Site) -> None:
    """Each refusal has its code."""
    site.vms["web-2"].power_state = "stopped"
    with pytest.raises(ResourceExistsError) as stopped:
        await put(site, "web-2", "x", managed("true"))
    assert stopped.value.error.code == "OperationNotAllowed"
    site.vms["web-2"].power_state, site.vms["web-2"].vm_agent_ready = "running", False
    with pytest.raises(HttpResponseError, match="has not reported status for VM agent"):
        await put(site, "web-2", "x", managed("true"))
    site.vms["web-2"].vm_agent_ready = True
    await delete(site, "web-2", "x")
    unnamed = managed("true", parameters=[{"name": "", "value": "x"}])
    for body in ({"location": "westeurope", "properties": {}}, unnamed, managed("true", timeoutInSeconds=0)):
        with pytest.raises(HttpResponseError) as refused:
            await put(site, "web-2", "x", body)
        assert refused.value.status_code == 400


async def test_a_vm_without_a_build_of_the_handler_takes_no_managed_command(site: Site) -> None:
    """As ARM64 answers; the action goes on."""
    site.cloud.faults.add(Fault("arm", "run_command_put", mode="arm64"))
    with pytest.raises(ResourceNotFoundError, match="for CPU Architecture 'Arm64' was not found") as refused:
        await put(site, "web-1", "x", managed("true"))
    assert refused.value.error.code == "ExtensionNotFoundForCPUArchitecture"
    body = {"commandId": "RunShellScript", "script": ["true"]}
    await (await site.compute.virtual_machines.begin_run_command(GROUP, "web-1", body)).result()


@pytest.mark.parametrize("updates", [True, False])
async def test_whether_a_run_command_updates_the_vm_is_a_choice(tmp_path: Path, updates: bool) -> None:
    """It could not be verified that Azure does so."""
    vm = ShellVm("web-1")
    options = CloudOptions(run_commands_update_vm=updates)
    cloud = LocalCloud(tmp_path, [vm], options=options)
    await cloud.start()
    tls = ssl.create_default_context(cafile=str(cloud.ca_file))
    token = cloud.tokens.mint("https://management.azure.com").text
    url = f"{cloud.arm_url}{vm.spec.vm_id}"
    try:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http:
            body = managed("sleep 60")
            async with http.put(f"{url}/runCommands/a?{API}", json=body, ssl=tls) as response:
                assert response.status == 201
            async with http.get(f"{url}?{API}", ssl=tls) as response:
                state = (await response.json())["properties"]["provisioningState"]
        assert state == ("Updating" if updates else "Succeeded")
    finally:
        await cloud.stop()
