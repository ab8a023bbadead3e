"""Run Command's arbiter: the adapter and Azure's SDK against the local ARM, every outcome with its reason."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from devcloud.faults import Fault
from tests.component.arm_site import (
    GROUP,
    Agent,
    OddArm,
    calls_of,
    clear_commands,
    command_names,
    nothing,
    until,
)
from tests.component.devcloud_site import Site
from tests.fakes import FakeRunner
from vm_health.errors import PermanentError, TransientError
from vm_health.state import CommandRef, CommandResult, Lane, RestartUnit, StartKind, StartOutcome
from vm_watchdog.adapters.run_command import AzureRunCommand
from vm_watchdog.ports import CommandRunner, Target
from vm_watchdog.run_command_managed import HUNG_AFTER, MOST_CLEARED
from vm_watchdog.run_command_script import COMMAND_PREFIX

pytest_plugins = ["tests.component.devcloud_fixtures", "tests.component.arm_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="session")

# Operations of the local ARM, for faults. ACTION's name covers both lanes, so that PUT's fault comes first.
PUT, GET, LIST, DELETE = "run_command_put", "run_commands_get", "run_commands_list", "run_commands_delete"
ACTION, VIEW, POLL = "run_command", "instance_view", "poll"
RESTART = RestartUnit("web.service", 1, "20261124T120000-0a1b2c3d-7")
MANAGED = CommandRef(RESTART.token)
BY_HAND: Any = {
    "location": "westeurope",
    "properties": {"source": {"script": "true"}, "timeoutInSeconds": 30},
}


@pytest.fixture
def runner(clients: Any) -> AzureRunCommand:
    return AzureRunCommand(clients)


async def result_of(runner: AzureRunCommand, target: Target, command: CommandRef = MANAGED) -> CommandResult:
    """Wait for the command's end as later looks do."""
    result = await until(lambda: runner.read_result(target, command))
    assert result is not None
    return result


async def by_action(site: Site, runner: AzureRunCommand, target: Target) -> CommandRef:
    """Start a restart where managed commands are not supported."""
    site.cloud.faults.add(Fault("arm", PUT, mode="arm64"))
    outcome = await runner.start_restart(target, RESTART)
    assert (outcome.kind, outcome.lane) == (StartKind.STARTED, Lane.ACTION)
    return CommandRef(RESTART.token, outcome.lane, outcome.operation)


async def start_within(seconds: float, runner: AzureRunCommand, target: Target) -> StartOutcome:
    async with asyncio.timeout(seconds):
        return await runner.start_restart(target, RESTART)


# --- the managed lane ------------------------------------------------------------------------------------


async def test_a_restart_runs_the_agent_with_unit_and_token(
    runner: AzureRunCommand, target: Target, agent: Agent
) -> None:
    outcome = await runner.start_restart(target, RESTART)
    assert (outcome.kind, outcome.lane, outcome.operation) == (StartKind.STARTED, Lane.MANAGED, "")
    result = await result_of(runner, target)
    assert agent.called_with == f"remediate --unit web.service --token {RESTART.token}"
    assert result == CommandResult(True, "restarted", {"result": "restarted", "unit": "web.service"})


async def test_a_restart_costs_a_look_and_a_put(
    site: Site, runner: AzureRunCommand, target: Target, agent: Agent
) -> None:
    """The happy path: nothing is listed."""
    before = len(site.cloud.calls.matching("arm"))
    await runner.start_restart(target, RESTART)
    assert [call.operation for call in site.cloud.calls.matching("arm")[before:]] == [VIEW, PUT]


async def test_a_result_stays_until_it_is_discarded(
    site: Site, runner: AzureRunCommand, target: Target, agent: Agent
) -> None:
    await runner.start_restart(target, RESTART)
    assert await command_names(site) == [COMMAND_PREFIX + RESTART.token]
    for _ in range(2):
        assert (await result_of(runner, target)).succeeded
    await runner.discard(target, MANAGED)
    await until(lambda: nothing(command_names(site)))
    again = await runner.read_result(target, MANAGED)
    assert again is not None
    assert not again.succeeded
    assert again.detail.startswith("the command is gone: reading the result of watchdog-")


async def test_starting_does_not_wait_for_the_script(
    site: Site, runner: AzureRunCommand, target: Target, agent: Agent
) -> None:
    site.cloud.faults.add(Fault("arm", PUT, mode="stuck"))
    assert (await start_within(2, runner, target)).kind is StartKind.STARTED
    assert await runner.read_result(target, MANAGED) is None


async def test_what_was_never_started_is_gone_and_failed(runner: AzureRunCommand, target: Target) -> None:
    result = await runner.read_result(target, CommandRef("never-1"))
    assert result is not None
    assert (result.succeeded, result.detail[:19]) == (False, "the command is gone")


async def test_a_hung_command_is_ended(
    site: Site, runner: AzureRunCommand, target: Target, agent: Agent
) -> None:
    site.cloud.faults.add(Fault("arm", PUT, mode="stuck"))
    await runner.start_restart(target, RESTART)
    assert await runner.cancel(target, MANAGED) == CommandResult(False, "the command hung and was ended")
    await until(lambda: nothing(command_names(site)))
    # And once more: another instance may have done it.
    assert (await runner.cancel(target, MANAGED)).detail == "the command hung and was ended"


async def test_a_hung_command_that_can_not_be_ended_says_why(
    site: Site, runner: AzureRunCommand, target: Target
) -> None:
    site.cloud.faults.add(Fault("arm", DELETE, mode="forbidden"))
    result = await runner.cancel(target, MANAGED)
    assert not result.succeeded
    assert result.detail.startswith("the command hung and could not be ended: 403 AuthorizationFailed")


async def test_a_result_is_worth_more_than_its_clearing_away(
    site: Site, runner: AzureRunCommand, target: Target, agent: Agent
) -> None:
    """Without the right to delete, a restart still tells how it went."""
    site.cloud.permissions.deny("Microsoft.Compute/virtualMachines/runCommands/delete")
    await runner.start_restart(target, RESTART)
    assert (await result_of(runner, target)).succeeded
    site.cloud.permissions.allow_all()
    assert await command_names(site) == [COMMAND_PREFIX + RESTART.token]


async def test_an_agent_that_was_lost_meanwhile_is_the_result(
    site: Site, runner: AzureRunCommand, target: Target
) -> None:
    """ARM accepts the command and then finds nobody who runs it: it never has an exit code."""
    site.cloud.faults.add(Fault("arm", VIEW, status=500, headers={"Retry-After": "0"}))
    site.vms["web-1"].vm_agent_ready = False
    assert (await runner.start_restart(target, RESTART)).kind is StartKind.STARTED
    result = await result_of(runner, target)
    assert result.detail.startswith("the command could not be run: VM 'web-1' has not reported status")


async def test_a_result_that_can_not_be_read_is_an_error_of_ours(
    site: Site, runner: AzureRunCommand, target: Target
) -> None:
    site.cloud.faults.add(Fault("arm", GET, mode="forbidden"))
    with pytest.raises(PermanentError, match=r"reading the result of watchdog-.*runCommands/read"):
        await runner.read_result(target, MANAGED)


# --- what the agent said ---------------------------------------------------------------------------------


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
    assert await result_of(runner, target) == expected


async def test_a_vm_without_the_agent_says_so(runner: AzureRunCommand, target: Target) -> None:
    await runner.start_restart(target, RESTART)
    result = await result_of(runner, target)
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
    outcome = await runner.start_restart(target, restart)
    assert (outcome.kind, outcome.lane) == (StartKind.FAILED, Lane.NONE)
    assert len(site.cloud.calls.matching("arm")) == before


# --- the look before -------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", ["stopped", "deallocated", "deallocating", "stopping"])
async def test_a_vm_that_does_not_run_is_left_alone(
    site: Site, runner: AzureRunCommand, target: Target, power: str
) -> None:
    site.vms["web-1"].power_state = power
    before = len(calls_of(site, PUT))
    outcome = await runner.start_restart(target, RESTART)
    assert outcome == StartOutcome(StartKind.NOT_RUNNING, f"the VM is {power}", Lane.NONE)
    assert len(calls_of(site, PUT)) == before


async def test_an_agent_that_is_not_ready_is_not_asked(
    site: Site, runner: AzureRunCommand, target: Target
) -> None:
    site.vms["web-1"].vm_agent_ready = False
    before = len(calls_of(site, PUT))
    outcome = await runner.start_restart(target, RESTART)
    assert (outcome.kind, outcome.lane) == (StartKind.AGENT_NOT_READY, Lane.NONE)
    assert outcome.detail == ("Azure's VM agent is not ready: VM status blob is found but not yet populated.")
    assert len(calls_of(site, PUT)) == before


@pytest.mark.parametrize(
    "fault",
    [
        Fault("arm", VIEW, mode="forbidden"),
        Fault("arm", VIEW, status=429, headers={"Retry-After": "9"}),
        Fault("arm", VIEW, status=503),
        Fault("arm", VIEW, mode="disconnect", times=2),
    ],
    ids=["403", "429", "503", "no answer"],
)
async def test_without_the_look_the_call_itself_tells(
    site: Site, runner: AzureRunCommand, target: Target, fault: Fault
) -> None:
    site.cloud.faults.add(fault)
    site.vms["web-1"].power_state = "deallocated"
    outcome = await start_within(3, runner, target)
    assert (outcome.kind, outcome.lane) == (StartKind.NOT_RUNNING, Lane.MANAGED)
    assert "requires the VM to be running" in outcome.detail


# --- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "kind", "wait"),
    [
        (409, "Conflict", StartKind.BUSY, None),
        (409, "OperationNotAllowed", StartKind.NOT_RUNNING, None),
        (429, "TooManyRequests", StartKind.THROTTLED, 7.0),
        (401, "ExpiredAuthenticationToken", StartKind.FORBIDDEN, None),
        (403, "AuthorizationFailed", StartKind.FORBIDDEN, None),
        (408, "RequestTimeout", StartKind.FAILED, None),
        (500, "InternalServerError", StartKind.FAILED, None),
        (503, "ServerBusy", StartKind.FAILED, 7.0),
        (504, "GatewayTimeout", StartKind.FAILED, None),
        (412, "PreconditionFailed", StartKind.FAILED, None),
    ],
)
async def test_a_refusal_is_an_outcome_with_its_reason(
    site: Site,
    runner: AzureRunCommand,
    target: Target,
    status: int,
    code: str,
    kind: StartKind,
    wait: float | None,
) -> None:
    """At once, too: what Retry-After asks for would hold up the tick, and the backoff repeats anyway."""
    headers = {} if wait is None else {"Retry-After": f"{wait:.0f}"}
    site.cloud.faults.add(Fault("arm", PUT, status=status, error_code=code, headers=headers, times=0))
    before = len(calls_of(site, PUT))
    outcome = await start_within(3, runner, target)
    assert (outcome.kind, outcome.lane, outcome.retry_after_seconds) == (kind, Lane.MANAGED, wait)
    assert code in outcome.detail
    assert ("it may have been carried out all the same" in outcome.detail) == (status in (408, 500, 503, 504))
    assert len(calls_of(site, PUT)) == before + 1


async def test_a_missing_role_is_named_with_its_scope(
    site: Site, runner: AzureRunCommand, target: Target
) -> None:
    site.cloud.permissions.deny("Microsoft.Compute/virtualMachines/runCommands/write")
    outcome = await runner.start_restart(target, RESTART)
    scope = f"{site.vms['web-1'].spec.vm_id}/runCommands/{COMMAND_PREFIX}{RESTART.token}"
    assert outcome == StartOutcome(
        StartKind.FORBIDDEN,
        "403 AuthorizationFailed: the watchdog's identity may not "
        f"Microsoft.Compute/virtualMachines/runCommands/write on {scope}",
        Lane.MANAGED,
    )


@pytest.mark.parametrize("mode", ["disconnect", "answer_lost"])
async def test_no_answer_is_an_outcome_that_says_what_is_not_known(
    site: Site, runner: AzureRunCommand, target: Target, agent: Agent, mode: str
) -> None:
    """Twice: the HTTP client itself repeats a PUT where an idle connection turns out to be closed."""
    site.cloud.faults.add(Fault("arm", PUT, mode=mode, times=2))
    outcome = await start_within(3, runner, target)
    assert (outcome.kind, outcome.lane) == (StartKind.FAILED, Lane.MANAGED)
    assert outcome.detail.endswith("it may have been carried out all the same")
    if mode == "answer_lost":  # and it has been
        assert (await result_of(runner, target)).succeeded


async def test_an_answer_that_is_too_late_is_an_outcome(site: Site, clients: Any, target: Target) -> None:
    site.cloud.faults.add(Fault("arm", PUT, delay_seconds=30))
    outcome = await start_within(5, AzureRunCommand(clients, call_seconds=0.3), target)
    assert outcome.kind is StartKind.FAILED
    assert outcome.detail == "no answer within 0.3 s; it may have been carried out all the same"


async def test_a_conflict_with_the_very_same_restart_means_that_it_has_started(
    site: Site, runner: AzureRunCommand, target: Target
) -> None:
    """A PUT whose answer got lost is repeated by the HTTP client: what is in progress then is ours."""
    site.cloud.faults.add(Fault("arm", PUT, mode="stuck"))
    await runner.start_restart(target, RESTART)
    outcome = await runner.start_restart(target, RESTART)
    assert (outcome.kind, outcome.lane) == (StartKind.STARTED, Lane.MANAGED)
    assert outcome.detail == "restart sent through Run Command, where it is under way already"


# --- the limit of 25 -------------------------------------------------------------------------------------


async def fill(site: Site, names: Sequence[str]) -> None:
    """Have 25 commands on web-1, and those that end ended."""
    commands = site.compute.virtual_machine_run_commands
    assert len(names) == 25
    pollers = [await commands.begin_create_or_update(GROUP, "web-1", name, BY_HAND) for name in names]
    for poller in pollers:
        await poller.result()


async def test_ended_commands_of_ours_make_room_at_once(
    site: Site, runner: AzureRunCommand, target: Target, agent: Agent
) -> None:
    """One list, a few deletions, one more try: the VM's bucket has no room for 25 deletions."""
    await fill(site, [f"{COMMAND_PREFIX}old-{number}" for number in range(12)] + [f"o{n}" for n in range(13)])
    lists, deletions = len(calls_of(site, LIST)), len(calls_of(site, DELETE))
    outcome = await runner.start_restart(target, RESTART)
    assert (outcome.kind, outcome.lane) == (StartKind.STARTED, Lane.MANAGED)
    assert len(calls_of(site, LIST, lists)) == 1
    assert len(calls_of(site, DELETE, deletions)) == MOST_CLEARED
    names = await command_names(site)
    assert sum(name.startswith("o") for name in names) == 13
    assert (await result_of(runner, target)).succeeded


async def test_where_others_have_all_25_it_is_busy_and_says_so(
    site: Site, runner: AzureRunCommand, target: Target
) -> None:
    await fill(site, [f"theirs-{number}" for number in range(25)])
    puts, deletions = len(calls_of(site, PUT)), len(calls_of(site, DELETE))
    outcome = await runner.start_restart(target, RESTART)
    assert outcome.kind is StartKind.BUSY
    assert outcome.detail == (
        "all 25 run commands that this VM can have are taken: 25 by others, 0 of ours under way, "
        "0 of ours being cleared away"
    )
    assert (len(calls_of(site, PUT, puts)), len(calls_of(site, DELETE, deletions))) == (1, 0)


async def test_where_azure_still_deletes_it_is_busy_and_says_so(
    site: Site, runner: AzureRunCommand, target: Target
) -> None:
    """A deletion takes its time there: the answer that none is left stays for one more try."""
    await fill(site, [f"{COMMAND_PREFIX}old"] + [f"theirs-{number}" for number in range(24)])
    full = Fault(
        "arm", PUT, status=409, error_code="The maximum number of managed Run commands (max=25)", times=2
    )
    site.cloud.faults.add(full)
    outcome = await runner.start_restart(target, RESTART)
    assert (outcome.kind, outcome.lane) == (StartKind.BUSY, Lane.MANAGED)
    assert outcome.detail.endswith("24 by others, 0 of ours under way, 1 of ours being cleared away")


@pytest.mark.parametrize(("age", "kind"), [(1, StartKind.STARTED), (-1, StartKind.BUSY)])
async def test_hung_commands_of_ours_are_ended_and_running_ones_are_not(
    site: Site, clients: Any, target: Target, agent: Agent, age: int, kind: StartKind
) -> None:
    """Hung is what runs for longer than its time-out and a margin."""
    now = datetime.now(UTC) + HUNG_AFTER + timedelta(minutes=age)
    site.cloud.faults.add(Fault("arm", PUT, mode="stuck"))
    commands = site.compute.virtual_machine_run_commands
    name = f"{COMMAND_PREFIX}hung"
    await commands.begin_create_or_update(GROUP, "web-1", name, BY_HAND, polling=False)
    for number in range(24):
        await commands.begin_create_or_update(GROUP, "web-1", f"theirs-{number}", BY_HAND, polling=False)
    outcome = await AzureRunCommand(clients, now=lambda: now).start_restart(target, RESTART)
    assert outcome.kind is kind
    assert (name in await command_names(site)) == (kind is StartKind.BUSY)


async def test_a_list_that_can_not_be_read_is_the_outcome(
    site: Site, runner: AzureRunCommand, target: Target
) -> None:
    await fill(site, [f"theirs-{number}" for number in range(25)])
    site.cloud.faults.add(Fault("arm", LIST, mode="forbidden"))
    outcome = await runner.start_restart(target, RESTART)
    assert outcome.kind is StartKind.FORBIDDEN
    assert "Microsoft.Compute/virtualMachines/runCommands/read" in outcome.detail


# --- the action lane -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault("arm", PUT, mode="arm64"),
        Fault("arm", PUT, status=400, error_code="OperationNotSupported"),
        Fault("arm", PUT, status=404, error_code="ResourceNotFound"),
        Fault("arm", PUT, status=409, error_code="Unsupported features: MultipleExtensionsPerHandler"),
        Fault("arm", PUT, status=400, error_code="InvalidParameter: not supported for this VM"),
    ],
    ids=["ARM64", "400", "404", "409", "400, a parameter that is not supported"],
)
async def test_where_the_managed_lane_is_not_supported_the_action_lane_is_taken(
    site: Site, runner: AzureRunCommand, target: Target, agent: Agent, fault: Fault
) -> None:
    site.cloud.faults.add(fault)
    before = len(calls_of(site, ACTION))
    outcome = await runner.start_restart(target, RESTART)
    assert (outcome.kind, outcome.lane) == (StartKind.STARTED, Lane.ACTION)
    assert (fault.error_code or "ExtensionNotFoundForCPUArchitecture") in outcome.detail
    assert len(calls_of(site, ACTION, before)) == 1
    result = await result_of(runner, target, CommandRef(RESTART.token, outcome.lane, outcome.operation))
    assert result == CommandResult(True, "restarted", {"result": "restarted", "unit": "web.service"})
    assert agent.called_with == f"remediate --unit web.service --token {RESTART.token}"


@pytest.mark.parametrize(
    ("version", "lane"),
    [
        ("2.2.46", Lane.ACTION),
        ("2.4.0.1", Lane.ACTION),
        ("2.4.0.2", Lane.MANAGED),
        ("2.15.0.1", Lane.MANAGED),
        ("Unknown", Lane.MANAGED),
        ("", Lane.MANAGED),
        ("2.x", Lane.MANAGED),
    ],
)
async def test_an_old_vm_agent_is_not_given_a_managed_command(
    site: Site, runner: AzureRunCommand, target: Target, agent: Agent, version: str, lane: Lane
) -> None:
    """ARM takes it and then fails, and some old agents with it (WALinuxAgent#2836)."""
    site.cloud.compute.vm_agent_versions["web-1"] = version
    before = len(calls_of(site, PUT))
    outcome = await runner.start_restart(target, RESTART)
    assert (outcome.kind, outcome.lane) == (StartKind.STARTED, lane)
    assert len(calls_of(site, PUT, before)) == (lane is Lane.MANAGED)
    await until(agent.was_called)


@pytest.mark.parametrize("code", ["InvalidParameter", "InvalidRequestContent", "LocationRequired"])
async def test_a_malformed_request_of_our_own_is_not_tried_again_elsewhere(
    site: Site, runner: AzureRunCommand, target: Target, code: str
) -> None:
    site.cloud.faults.add(Fault("arm", PUT, status=400, error_code=code))
    before = len(calls_of(site, ACTION))
    outcome = await runner.start_restart(target, RESTART)
    assert (outcome.kind, outcome.lane) == (StartKind.FAILED, Lane.MANAGED)
    assert code in outcome.detail
    assert len(calls_of(site, ACTION)) == before


@pytest.mark.parametrize(
    ("status", "code", "kind", "wait"),
    [
        (409, "Conflict", StartKind.BUSY, None),
        (429, "TooMany", StartKind.THROTTLED, 7.0),
        (403, "No", StartKind.FORBIDDEN, None),
        (404, "ResourceNotFound", StartKind.FAILED, None),
        (400, "InvalidParameter", StartKind.FAILED, None),
    ],
)
async def test_the_action_lane_may_be_refused_as_well(
    site: Site,
    runner: AzureRunCommand,
    target: Target,
    status: int,
    code: str,
    kind: StartKind,
    wait: float | None,
) -> None:
    headers = {} if wait is None else {"Retry-After": f"{wait:.0f}"}
    site.cloud.faults.add(Fault("arm", PUT, mode="arm64"))
    site.cloud.faults.add(Fault("arm", ACTION, status=status, error_code=code, headers=headers, times=0))
    outcome = await start_within(3, runner, target)
    assert (outcome.kind, outcome.lane, outcome.retry_after_seconds) == (kind, Lane.ACTION, wait)


async def test_the_action_lane_takes_one_script_at_a_time(
    site: Site, runner: AzureRunCommand, target: Target
) -> None:
    site.cloud.faults.add(Fault("arm", PUT, mode="arm64", times=2))
    site.cloud.faults.add(Fault("arm", ACTION, mode="stuck"))
    assert (await runner.start_restart(target, RESTART)).lane is Lane.ACTION
    outcome = await runner.start_restart(target, replace(RESTART, token="another"))
    assert (outcome.kind, outcome.lane) == (StartKind.BUSY, Lane.ACTION)
    assert "Run command extension execution is in progress" in outcome.detail


async def test_a_running_action_has_no_result_and_can_not_be_cancelled(
    site: Site, runner: AzureRunCommand, target: Target
) -> None:
    site.cloud.faults.add(Fault("arm", PUT, mode="arm64"))
    site.cloud.faults.add(Fault("arm", ACTION, mode="stuck"))
    outcome = await runner.start_restart(target, RESTART)
    command = CommandRef(RESTART.token, outcome.lane, outcome.operation)
    assert await runner.read_result(target, command) is None
    result = await runner.cancel(target, command)
    assert not result.succeeded
    assert "can't be cancelled: its lane may stay blocked for up to 90 minutes" in result.detail


@pytest.mark.parametrize(
    ("output", "exit_code", "succeeded", "detail"),
    [
        ('VM_AGENT_RESULT {"result":"restarted"}', 0, True, "restarted"),
        ('VM_AGENT_RESULT {"result":"duplicate"}', 0, False, "duplicate"),
        ('VM_AGENT_RESULT {"result":"failed","reason":"no"}', 6, False, "failed: no"),
        (
            "no marker",
            0,
            False,
            "the command ended without a result: "
            "Enable succeeded: \n[stdout]\nsome chatter\nno marker\n\n[stderr]",
        ),
    ],
)
async def test_an_actions_result_is_the_agents_word(
    site: Site,
    runner: AzureRunCommand,
    target: Target,
    agent: Agent,
    output: str,
    exit_code: int,
    succeeded: bool,
    detail: str,
) -> None:
    """There is no exit code: what does not say that it restarted did not."""
    agent.answers(output, exit_code)
    result = await result_of(runner, target, await by_action(site, runner, target))
    assert (result.succeeded, result.detail) == (succeeded, detail)


async def test_an_action_that_failed_is_finished(site: Site, runner: AzureRunCommand, target: Target) -> None:
    """The VM's agent was lost meanwhile: 409 at the operation's address."""
    site.cloud.faults.add(Fault("arm", VIEW, status=500))
    site.vms["web-1"].vm_agent_ready = False
    result = await result_of(runner, target, await by_action(site, runner, target))
    assert not result.succeeded
    assert "has not reported status for VM agent" in result.detail


async def test_an_action_that_is_gone_is_finished(
    site: Site, runner: AzureRunCommand, target: Target, agent: Agent
) -> None:
    command = await by_action(site, runner, target)
    gone = replace(command, operation=command.operation.replace("/operations/", "/operations/0"))
    result = await runner.read_result(target, gone)
    assert result is not None
    assert result.detail.startswith("the command is gone: ")


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("arm", POLL, status=429, headers={"Retry-After": "9"}), TransientError),
        (Fault("arm", POLL, status=503), TransientError),
        (Fault("arm", POLL, mode="disconnect", times=2), TransientError),
        (Fault("arm", POLL, mode="forbidden"), PermanentError),
    ],
    ids=["429", "503", "no answer", "403"],
)
async def test_an_action_whose_result_can_not_be_read_is_still_asked_for(
    site: Site,
    runner: AzureRunCommand,
    target: Target,
    agent: Agent,
    fault: Fault,
    error: type[Exception],
) -> None:
    command = await by_action(site, runner, target)
    site.cloud.faults.add(fault)
    async with asyncio.timeout(3):
        with pytest.raises(error, match="reading the result of an action run command"):
            await runner.read_result(target, command)
    assert (await result_of(runner, target, command)).succeeded


@pytest.mark.parametrize(
    "change",
    [
        lambda _: "",
        lambda path: "https://elsewhere.example" + path,
        lambda path: "//elsewhere.example" + path,
        lambda path: path.replace("00000001", "00000002"),
        lambda path: path.replace("Microsoft.Compute", "Microsoft.Storage"),
        lambda path: path.replace("/operations/", "/operations/../../x/"),
        lambda path: path + "#" + path,
        lambda path: path + "{x}",
        lambda path: path + "x" * 9_000,
        lambda path: path.partition("?")[0],
    ],
    ids=["nothing", "URL", "host", "subscription", "provider", "up", "fragment", "braces", "long", "bare"],
)
async def test_a_result_is_asked_for_at_no_other_address(
    site: Site, runner: AzureRunCommand, target: Target, agent: Agent, change: Any
) -> None:
    command = await by_action(site, runner, target)
    before = len(site.cloud.calls.matching("arm"))
    result = await runner.read_result(target, replace(command, operation=change(command.operation)))
    assert result is not None
    assert (result.succeeded, result.detail[:35]) == (False, "how the command ended is not known:")
    assert len(site.cloud.calls.matching("arm")) == before


@pytest.mark.parametrize("location", ["https://127.0.0.2:1/x?y", "", "/x", "::", None])
async def test_an_action_without_a_usable_address_has_started_all_the_same(
    site: Site, target: Target, odd_arm: OddArm, odd_clients: Any, location: str | None
) -> None:
    async def accept(_request: web.Request) -> web.Response:
        return web.Response(status=202, headers={} if location is None else {"Location": location})

    odd_arm.answer_posts_with = accept
    outcome = await AzureRunCommand(odd_clients).start_restart(target, RESTART)
    assert (outcome.kind, outcome.lane, outcome.operation) == (StartKind.STARTED, Lane.ACTION, "")


async def test_a_signed_address_is_kept_whole(target: Target, odd_arm: OddArm, odd_clients: Any) -> None:
    """ARM's has its certificate in the query: thousands of characters."""
    path = (
        f"/subscriptions/{target.subscription_id}/providers/Microsoft.Compute/locations/westeurope"
        "/operations/008ed18d-2ee4-4a1d-b1fe-e50b79bdf79e?p=ce11d024&monitor=true&api-version=2026-04-01"
        f"&t=6389654&c={'MII_-' * 600}&s={'Ab0%3d' * 60}&h=x"
    )

    async def accept(_request: web.Request) -> web.Response:
        return web.Response(status=202, headers={"Location": "https://management.azure.com" + path})

    odd_arm.answer_posts_with = accept
    outcome = await AzureRunCommand(odd_clients).start_restart(target, RESTART)
    assert outcome.operation == path


@pytest.mark.parametrize("fake", [True, False], ids=["fake", "arm"])
async def test_both_runners_start_once_and_keep_a_result_until_it_is_discarded(
    runner: AzureRunCommand, target: Target, agent: Agent, fake: bool
) -> None:
    port: CommandRunner = runner
    if fake:
        port = FakeRunner()
        port.results[RESTART.token] = CommandResult(True, "restarted")
    assert (await port.start_restart(target, RESTART)).kind is StartKind.STARTED
    result = await until(lambda: port.read_result(target, MANAGED))
    assert result is not None
    assert result.succeeded
    assert await port.read_result(target, MANAGED) == result
    await port.discard(target, MANAGED)


async def test_nothing_is_left_by_these_tests(site: Site, target: Target) -> None:
    await clear_commands(site)
    assert await command_names(site) == []
