"""Inventory and Run Command: the adapters and Azure's SDK against the local ARM."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
import pytest_asyncio
from azure.mgmt.compute.aio import ComputeManagementClient

from devcloud.calls import Call
from devcloud.faults import Fault
from tests.builders import SUBSCRIPTION
from tests.component.devcloud_site import Site
from tests.fakes import FakeInventory, FakeRunner
from vm_health.errors import NotFoundError, PermanentError, TransientError
from vm_health.model import PowerState
from vm_health.state import RestartUnit
from vm_watchdog.adapters.compute_inventory import ComputeInventory
from vm_watchdog.adapters.run_command import COMMAND_PREFIX, AzureRunCommand
from vm_watchdog.ports import CommandResult, CommandRunner, Inventory, StartKind, Target

pytest_plugins = ["tests.component.devcloud_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="session")


T = TypeVar("T")
# Operations of the local ARM, for faults: managed run commands, and the action (that name covers both lanes).
PUT, GET, ACTION = "run_command_put", "run_commands_get", "run_command"


class OneClient:
    """Gives the test's client for every subscription: it trusts the local certificates."""

    def __init__(self, client: ComputeManagementClient) -> None:
        self._client = client

    async def get(self, _subscription: str) -> ComputeManagementClient:
        return self._client


@pytest.fixture
def inventory(site: Site) -> ComputeInventory:
    return ComputeInventory(OneClient(site.compute), [SUBSCRIPTION])  # type: ignore[arg-type]


@pytest.fixture
def runner(site: Site) -> AzureRunCommand:
    return AzureRunCommand(OneClient(site.compute))  # type: ignore[arg-type]


def id_of(site: Site, name: str) -> str:
    return site.vms[name].spec.vm_id.lower()


async def target_of(inventory: ComputeInventory, site: Site, name: str = "web-1") -> Target:
    target = await inventory.get_target(id_of(site, name))
    assert target is not None
    return target


# --- inventory -------------------------------------------------------------------------------------------


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


# --- run command -----------------------------------------------------------------------------------------

RESTART = RestartUnit("web.service", 1, "20261124T120000-0a1b2c3d-7")


AN_AGENT = """#!/bin/sh
echo "$@" > "$0.called"
echo "some chatter"
cat "$0.says"
exit "$(cat "$0.exit")"
"""


class Agent:
    """``vm-agent`` on the PATH of the scripts: a real program that says what the test tells it to."""

    def __init__(self, directory: Path) -> None:
        self._program = directory / "vm-agent"
        self._program.write_text(AN_AGENT)
        self._program.chmod(0o755)
        self.answers('VM_AGENT_RESULT {"result":"restarted","unit":"web.service"}')

    def answers(self, output: str, exit_code: int = 0) -> None:
        """Say ``output`` from now on."""
        self._program.with_name("vm-agent.says").write_text(output + "\n")
        self._program.with_name("vm-agent.exit").write_text(str(exit_code))

    @property
    def called_with(self) -> str | None:
        """The arguments of the last call."""
        called = self._program.with_name("vm-agent.called")
        return called.read_text().strip() if called.exists() else None

    async def was_called(self) -> bool:
        """Tell whether it ran, to the end of its first line."""
        return bool(self.called_with)


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Agent:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Agent(tmp_path)


@pytest_asyncio.fixture(loop_scope="session")
async def target(inventory: ComputeInventory, site: Site) -> AsyncIterator[Target]:
    """web-1, without a run command from the tests before."""
    yield await target_of(inventory, site)
    site.cloud.faults.clear()
    commands = site.compute.virtual_machine_run_commands
    for command in [one async for one in commands.list_by_virtual_machine("rg-devcloud", "web-1")]:
        await (await commands.begin_delete("rg-devcloud", "web-1", command.name)).result()


async def until(look: Callable[[], Awaitable[T]]) -> T:
    """Look until there is something to see: ARM tells nobody when a script or a deletion has ended."""
    async with asyncio.timeout(5):
        while not (seen := await look()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return seen


def actions(site: Site) -> list[Call]:
    """The calls of the action lane."""
    return [call for call in site.cloud.calls.matching("arm", ACTION) if call.method == "POST"]


async def nothing(look: Awaitable[object]) -> bool:
    """Tell whether there is nothing to see."""
    return not await look


async def command_names(site: Site) -> list[str]:
    commands = site.compute.virtual_machine_run_commands
    return [one.name async for one in commands.list_by_virtual_machine("rg-devcloud", "web-1")]


async def result_of(runner: AzureRunCommand, target: Target, token: str) -> CommandResult:
    """Wait for the command's end as later looks do."""
    result = await until(lambda: runner.take_result(target, token))
    assert result is not None
    return result


async def test_a_restart_runs_the_agent_with_unit_and_token(
    runner: AzureRunCommand, target: Target, agent: Agent
) -> None:
    outcome = await runner.start_restart(target, RESTART)
    assert (outcome.kind, outcome.lane) == (StartKind.STARTED, "managed")
    result = await result_of(runner, target, RESTART.token)
    assert agent.called_with == f"remediate --unit web.service --token {RESTART.token}"
    assert result == CommandResult(True, "restarted", {"result": "restarted", "unit": "web.service"})


async def test_a_result_is_taken_once_and_cleared_away(
    site: Site, runner: AzureRunCommand, target: Target, agent: Agent
) -> None:
    await runner.start_restart(target, RESTART)
    assert await command_names(site) == [COMMAND_PREFIX + RESTART.token]
    await result_of(runner, target, RESTART.token)
    await until(lambda: nothing(command_names(site)))
    assert await runner.take_result(target, RESTART.token) is None


async def test_starting_does_not_wait_for_the_script(
    site: Site, runner: AzureRunCommand, target: Target, agent: Agent
) -> None:
    site.cloud.faults.add(Fault("arm", PUT, mode="stuck"))
    async with asyncio.timeout(2):
        assert (await runner.start_restart(target, RESTART)).kind is StartKind.STARTED
        assert await runner.take_result(target, RESTART.token) is None


async def test_what_was_never_started_has_no_result(runner: AzureRunCommand, target: Target) -> None:
    assert await runner.take_result(target, "never-1") is None


@pytest.mark.parametrize(
    ("output", "exit_code", "expected"),
    [
        (
            'VM_AGENT_RESULT {"result":"refused","reason":"not on the allow-list"}',
            3,
            CommandResult(
                False,
                "refused: not on the allow-list",
                {"result": "refused", "reason": "not on the allow-list"},
            ),
        ),
        ('VM_AGENT_RESULT {"result":"failed"}', 1, CommandResult(False, "failed", {"result": "failed"})),
        (
            "VM_AGENT_RESULT {broken",
            0,
            CommandResult(True, "Succeeded, exit code 0: some chatter\nVM_AGENT_RESULT {broken"),
        ),
        (
            "VM_AGENT_RESULT [1]",
            0,
            CommandResult(True, "Succeeded, exit code 0: some chatter\nVM_AGENT_RESULT [1]"),
        ),
        ("no marker at all", 4, CommandResult(False, "Failed, exit code 4: some chatter\nno marker at all")),
    ],
    ids=["refused", "failed", "broken line", "no object", "no line"],
)
async def test_what_the_agent_said(
    runner: AzureRunCommand,
    target: Target,
    agent: Agent,
    output: str,
    exit_code: int,
    expected: CommandResult,
) -> None:
    agent.answers(output, exit_code)
    await runner.start_restart(target, RESTART)
    assert await result_of(runner, target, RESTART.token) == expected


async def test_hostile_output_is_bounded(runner: AzureRunCommand, target: Target, agent: Agent) -> None:
    agent.answers('VM_AGENT_RESULT {"result":"' + "x" * 900 + '","reason":"' + "y" * 900 + '"}')
    await runner.start_restart(target, RESTART)
    result = await result_of(runner, target, RESTART.token)
    assert len(result.detail) <= 250


async def test_a_vm_without_the_agent_says_so(runner: AzureRunCommand, target: Target) -> None:
    await runner.start_restart(target, RESTART)
    result = await result_of(runner, target, RESTART.token)
    assert (result.succeeded, result.detail) == (False, "failed: vm-agent is not installed on this VM")


@pytest.mark.parametrize(
    "restart",
    [
        RestartUnit("a;b.service", 1, "token"),
        RestartUnit("-x.service", 1, "token"),
        RestartUnit("$(id).service", 1, "token"),
        RestartUnit("web.service\n", 1, "token"),
        RestartUnit("web.service", 1, "../../x"),
        RestartUnit("web.service", 1, "a;b"),
        RestartUnit("web.service", 1, ""),
    ],
)
async def test_a_hostile_name_never_leaves(
    site: Site, runner: AzureRunCommand, target: Target, restart: RestartUnit
) -> None:
    before = len(site.cloud.calls.matching("arm"))
    assert (await runner.start_restart(target, restart)).kind is StartKind.FAILED
    assert len(site.cloud.calls.matching("arm")) == before


# --- outcomes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (409, "Conflict", StartKind.BUSY),
        (409, "OperationNotAllowed", StartKind.NOT_RUNNING),
        (429, "TooManyRequests", StartKind.THROTTLED),
        (401, "ExpiredAuthenticationToken", StartKind.FORBIDDEN),
        (403, "AuthorizationFailed", StartKind.FORBIDDEN),
        (500, "InternalServerError", StartKind.FAILED),
        (503, "ServerBusy", StartKind.FAILED),
    ],
)
async def test_a_refusal_is_an_outcome_with_its_reason(
    site: Site, runner: AzureRunCommand, target: Target, status: int, code: str, kind: StartKind
) -> None:
    """At once, too: what Retry-After asks for would hold up the tick, and the backoff repeats anyway."""
    site.cloud.faults.add(
        Fault("arm", PUT, status=status, error_code=code, headers={"Retry-After": "7"}, times=0)
    )
    async with asyncio.timeout(3):
        outcome = await runner.start_restart(target, RESTART)
    assert (outcome.kind, outcome.lane) == (kind, "managed")
    assert ("wait 7 s" if status == 429 else code) in outcome.detail
    assert len(outcome.detail) <= 310


async def test_no_connection_is_an_outcome(site: Site, runner: AzureRunCommand, target: Target) -> None:
    site.cloud.faults.add(Fault("arm", PUT, mode="disconnect", times=0))
    async with asyncio.timeout(3):
        assert (await runner.start_restart(target, RESTART)).kind is StartKind.FAILED


async def test_a_vm_that_was_stopped_meanwhile(site: Site, runner: AzureRunCommand, target: Target) -> None:
    site.vms["web-1"].power_state = "deallocated"
    outcome = await runner.start_restart(target, RESTART)
    assert outcome.kind is StartKind.NOT_RUNNING
    assert "to be running" in outcome.detail


@pytest.mark.parametrize(
    ("status", "code"), [(400, "OperationNotSupported"), (404, "ResourceNotFound")], ids=["400", "404"]
)
async def test_where_the_managed_lane_is_not_supported_the_action_lane_is_taken(
    site: Site, runner: AzureRunCommand, target: Target, agent: Agent, status: int, code: str
) -> None:
    site.cloud.faults.add(Fault("arm", PUT, status=status, error_code=code, times=0))
    before = len(actions(site))
    outcome = await runner.start_restart(target, RESTART)
    assert (outcome.kind, outcome.lane) == (StartKind.STARTED, "action")
    assert code in outcome.detail
    assert len(actions(site)) == before + 1
    await until(agent.was_called)
    assert agent.called_with == f"remediate --unit web.service --token {RESTART.token}"


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (409, "Conflict", StartKind.BUSY),
        (429, "TooMany", StartKind.THROTTLED),
        (403, "No", StartKind.FORBIDDEN),
    ],
)
async def test_the_action_lane_may_be_refused_as_well(
    site: Site, runner: AzureRunCommand, target: Target, status: int, code: str, kind: StartKind
) -> None:
    site.cloud.faults.add(Fault("arm", PUT, status=400, error_code="NotSupported", times=0))
    site.cloud.faults.add(
        Fault("arm", ACTION, status=status, error_code=code, headers={"Retry-After": "7"}, times=0)
    )
    async with asyncio.timeout(3):
        outcome = await runner.start_restart(target, RESTART)
    assert (outcome.kind, outcome.lane) == (kind, "action")


async def test_a_result_that_can_not_be_read_is_an_error_of_ours(
    site: Site, runner: AzureRunCommand, target: Target
) -> None:
    site.cloud.faults.add(Fault("arm", GET, status=403, error_code="AuthorizationFailed"))
    with pytest.raises(PermanentError, match="reading the result of watchdog-"):
        await runner.take_result(target, RESTART.token)


@pytest.mark.parametrize("fake", [True, False], ids=["fake", "arm"])
async def test_both_runners_start_once_and_give_each_result_once(
    runner: AzureRunCommand, target: Target, agent: Agent, fake: bool
) -> None:
    port: CommandRunner = runner
    if fake:
        port = FakeRunner()
        port.results[RESTART.token] = CommandResult(True, "restarted")
    assert (await port.start_restart(target, RESTART)).kind is StartKind.STARTED
    result = await until(lambda: port.take_result(target, RESTART.token))
    assert result is not None
    assert result.succeeded
    await until(lambda: nothing(port.take_result(target, RESTART.token)))
