"""The agent under a real systemd: what becomes of services, and of the agent itself, as it is told."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from devcloud.vms.cgroups import hierarchies
from devcloud.vms.factory import worker_unit
from devcloud.vms.machine import AGENT_UNIT
from devcloud.vms.units import UnitFile, command_line
from tests.component.agent_site import ROOT
from tests.component.agent_vm import AS_AGENT, AgentVm, agent_vm, findings_of, unit_of
from tests.component.vm_fixtures import APP, CRASH_FILE, HEARTBEAT, LOOP, app, eventually
from tests.conftest import require
from vm_agent.polkit_rule import RULES_FILE, rule
from vm_health.model import HealthReport, Status
from vm_health.wire import decode_report

DEPLOY = ROOT / "deploy"
FAUCET = "faucet_worker.service"
HOG = "hog.service"
EAT_FILE = "/var/lib/shop/eat"
_HOG = f"""
import os, time
while not os.path.exists("{EAT_FILE}"):
    time.sleep(0.05)
eaten = bytearray(400 * 2**20)
eaten[::4096] = b"x" * len(eaten[::4096])
time.sleep(600)
"""


async def test_ready_with_the_first_sample_and_status_follows(tmp_path: Path) -> None:
    """systemd shows the agent's own words; a crash of a unit and a stop by hand are CRITICAL."""
    async with agent_vm(tmp_path, [app()]) as box:
        shown = await box.agent()
        assert (shown["Type"], shown["ActiveState"], shown["StatusText"]) == (
            "notify",
            "active",
            "HEALTHY: all is well",
        )
        assert (shown["WatchdogUSec"], shown["NRestarts"]) == ("1min", "0")
        answer = await box.look()
        assert answer is not None
        assert (answer[0], answer[1].status) == (200, Status.HEALTHY)

        await box.vm.kill_unit(APP, signal.SIGKILL)
        report = await box.until(lambda report: not unit_of(report, APP).is_up, "the crash is reported")
        assert report.status is Status.CRITICAL
        assert unit_of(report, APP).result == "signal"
        assert "service_down" in findings_of(report, APP)
        answer = await box.look()
        assert answer is not None
        assert answer[0] == 503
        assert (await box.agent())["StatusText"].startswith(f"CRITICAL: {APP} is down (failed/failed")

        await box.shell(f"systemctl restart {APP}")
        await box.until(lambda report: report.status is Status.HEALTHY, "it is up again")
        await box.shell(f"systemctl stop {APP}")
        report = await box.until(lambda report: not unit_of(report, APP).is_up, "the stop is reported")
        assert (unit_of(report, APP).active_state, unit_of(report, APP).result) == ("inactive", "success")

        await box.shell(f"systemctl stop {AGENT_UNIT}")
        shown = await box.agent()
        assert (shown["ActiveState"], shown["Result"]) == ("inactive", "success")


async def test_crash_loop_to_the_start_limit(tmp_path: Path) -> None:
    """A unit that crashes at each start until systemd gives up is down, and known to loop."""
    worker = worker_unit(LOOP, HEARTBEAT, CRASH_FILE, restart="always", restart_seconds=0.05)
    unit = UnitFile(worker.name, worker.exec_start, "always", 0.05, start_limit_burst=8)
    async with agent_vm(tmp_path, [unit]) as box:

        async def beats() -> bool:
            return box.vm.outside(HEARTBEAT).exists()

        await eventually(beats, "the worker has begun")
        box.vm.write_file(CRASH_FILE, "")
        await box.vm.kill_unit(LOOP)
        report = await box.until(
            lambda report: unit_of(report, LOOP).active_state == "failed", "systemd gave up"
        )
        report = await box.until(
            lambda report: "crash_loop" in findings_of(report, LOOP), "the loop is known"
        )
        assert findings_of(report, LOOP).keys() == {"service_down", "crash_loop"}
        seen = unit_of(report, LOOP)
        assert (seen.result, seen.restarts, seen.recent_restarts) == ("exit-code", 8, 8)
        assert report.status is Status.CRITICAL


async def test_the_drop_in_and_the_worked_example(tmp_path: Path) -> None:
    """Its watchdog kills who never pings and who hangs; the example pings, beats and lives."""
    beat = "/run/faucet_worker/heartbeat"
    units = f"{APP},{FAUCET}"
    async with agent_vm(tmp_path, [app()], VM_AGENT_UNITS=units, VM_AGENT_HEARTBEAT_FILES=beat) as box:
        copy(box, "examples/faucet_worker.py", "/opt/faucet/faucet_worker.py", 0o755)
        copy(box, f"systemd/{FAUCET}", f"/etc/systemd/system/{FAUCET}")
        copy(box, "systemd/watched-service.conf", f"/etc/systemd/system/{APP}.d/50-watched.conf")
        await box.drop_in(APP, "WatchdogSec=1")
        await box.drop_in(FAUCET, "WatchdogSec=1")
        verified = await box.shell(f"systemd-analyze verify {FAUCET} {APP} {AGENT_UNIT}")
        assert verified.stderr == ""
        settings = {"MemoryMax": str(4 * 2**30), "CPUQuotaPerSecUSec": "2s", "RestartUSec": "10s"}
        settings |= {"StartLimitBurst": "5", "StartLimitIntervalUSec": "5min", "Restart": "on-failure"}
        for name in (APP, FAUCET):
            shown = await box.vm.unit_properties(name)
            assert {key: shown[key] for key in settings} == settings
        await box.shell(f"systemctl start {FAUCET}")
        await box.shell(f"systemctl restart {APP}")

        report = await box.until(
            lambda report: unit_of(report, APP).result == "watchdog", "who never pings is killed"
        )
        assert "watchdog" in findings_of(report, APP)["service_down"].message
        assert (await box.vm.unit_properties(FAUCET))["NRestarts"] == "0"
        report = await box.until(lambda report: unit_of(report, FAUCET).is_up, "the example lives")
        assert [beat.age_seconds is not None for beat in report.sample.heartbeats] == [True]

        await box.vm.kill_unit(FAUCET, signal.SIGSTOP)
        report = await box.until(
            lambda report: unit_of(report, FAUCET).result == "watchdog", "who hangs is killed"
        )
        assert unit_of(report, FAUCET).sub_state == "auto-restart"


async def test_a_unit_that_starts_is_down_only_after_the_grace(tmp_path: Path) -> None:
    """One that never says READY=1: systemd's own time of its start counts, over the bus and by systemctl."""
    grace = {"VM_AGENT_STARTUP_GRACE_SECONDS": "4"}
    async with agent_vm(tmp_path, [app()], **grace) as box:
        await box.drop_in(APP, "Type=notify", "TimeoutStartSec=600")
        for _ in range(2):  # each start has a grace of its own
            starting = starts_after(datetime.now(UTC).replace(microsecond=0))
            await box.shell(f"systemctl restart --no-block {APP}")
            report = await box.until(starting, "it starts")
            assert findings_of(report, APP).keys() == {"service_starting"}
            assert report.status is Status.HEALTHY
            report = await box.until(lambda report: report.status is Status.CRITICAL, "it is late")
            assert findings_of(report, APP).keys() == {"service_down"}
            assert unit_of(report, APP).sub_state == "start"
        command = "set -a; . /etc/vm-agent/agent.env; VM_AGENT_UNIT_SOURCE=systemctl vm-agent check --json"
        by_command = unit_of(decode_report((await box.vm.run_script(command, {}, 20)).stdout), APP)
        assert by_command.started_at == unit_of(report, APP).started_at
        assert by_command.active_since == unit_of(report, APP).active_since

        await box.drop_in(APP, "Type=exec", "Restart=always", "RestartSec=60")
        await box.shell(f"systemctl restart {APP}")
        await box.until(lambda report: report.status is Status.HEALTHY, "it runs")
        await box.vm.kill_unit(APP)  # systemd waits before it starts it again: that is no start
        report = await box.until(lambda report: not unit_of(report, APP).is_up, "the crash is seen")
        report = await box.until(
            lambda report: unit_of(report, APP).sub_state == "auto-restart", "systemd waits"
        )
        assert findings_of(report, APP).keys() == {"service_down"}


async def test_a_deploy_lock_is_roots_and_outlives_the_agent(tmp_path: Path) -> None:
    """The unprivileged agent heeds it, holds back while it lasts, and can be restarted by the deployment."""
    async with agent_vm(tmp_path, [app()], VM_AGENT_RESTART="on") as box:
        lock = box.vm.outside("/run/vm-agent/deploy.lock")

        async def owners() -> str:
            return (await box.shell("stat -c '%U %a' /run/vm-agent /run/vm-agent/deploy.lock")).stdout

        await box.shell("vm-agent lock --minutes 20 --holder 'release 1.2'")
        assert await owners() == "vm-agent 755\nroot 644\n"
        report = await box.until(lambda report: report.sample.deploy_lock, "the lock is seen")
        assert report.sample.deploy_lock is not None
        assert report.sample.deploy_lock.holder == "release 1.2"
        await box.vm.kill_unit(APP)
        report = await box.until(lambda report: not unit_of(report, APP).is_up, "it is down")
        assert "not restarted: a deployment holds" in findings_of(report, APP)["service_down"].message
        assert report.repairs == ()
        await box.shell(f"systemctl restart {AGENT_UNIT}")
        assert await owners() == "vm-agent 755\nroot 644\n"
        await box.until(lambda report: report.sample.deploy_lock, "the new agent sees it too")
        told = await box.vm.run_script("vm-agent status", {}, 20)
        assert "(release 1.2): nothing is restarted, no alert is sent" in told.stdout
        await box.shell(f"systemctl stop {AGENT_UNIT}")
        assert lock.exists()
        await box.shell(f"systemctl start {AGENT_UNIT}")
        for refused in ("vm-agent unlock", "vm-agent lock --minutes 60"):
            done = await box.vm.run_script(f"{AS_AGENT.replace('vm-agent', 'nobody', 1)} {refused}", {}, 20)
            assert (done.exit_code, "must be run as root" in done.stderr) == (3, True), done.stderr
        await box.shell("vm-agent unlock")
        report = await box.until(lambda report: report.repairs, "repair goes on")
        assert report.sample.deploy_lock is None


async def test_more_memory_than_allowed(tmp_path: Path) -> None:
    """MemoryMax kills, and the agent says so."""
    limited = any(group.version == 2 or "memory" in group.options for group in hierarchies())
    require(limited, "a memory controller for control groups")
    hog = UnitFile(HOG, exec_start=command_line(["{python}", "-c", _HOG]))
    async with agent_vm(tmp_path, [hog]) as box:
        await box.drop_in(HOG, "MemoryMax=64M", "MemorySwapMax=0")
        await box.shell(f"systemctl restart {HOG}")
        await box.until(lambda report: unit_of(report, HOG).is_up, "it runs")
        box.vm.write_file(EAT_FILE, "")
        report = await box.until(lambda report: not unit_of(report, HOG).is_up, "it was killed")
        assert unit_of(report, HOG).result in ("signal", "oom-kill")
        assert report.status is Status.CRITICAL


async def test_its_user_may_exactly_what_the_rule_names(tmp_path: Path) -> None:
    """Through polkit: restart and reset-failed of the allowed unit, nothing else, and nobody else."""
    require(shutil.which("pkaction"), "polkit (package polkitd)")
    other = worker_unit(LOOP, HEARTBEAT + "2")
    async with agent_vm(tmp_path, [app(), other]) as box:
        box.vm.write_file(RULES_FILE, rule([APP]))
        await box.vm.kill_unit(APP)
        await box.until(lambda report: not unit_of(report, APP).is_up, "it is down")
        bystander = await box.vm.main_pid(LOOP)
        for verb in ("reset-failed", "restart"):
            await box.shell(f"{AS_AGENT} systemctl {verb} {APP}")
        report = await box.until(lambda report: unit_of(report, APP).is_up, "it is up again")
        assert report.status is Status.HEALTHY
        running = await box.vm.main_pid(APP)

        for refused in (
            f"restart {LOOP}",
            f"reset-failed {LOOP}",
            f"stop {APP}",
            f"start {APP}",
            f"kill {APP}",
        ):
            done = await box.vm.run_script(f"{AS_AGENT} systemctl {refused}", {}, 20)
            assert (done.exit_code != 0, "Access denied" in done.stderr) == (True, True), refused
        assert (await box.vm.main_pid(APP), await box.vm.main_pid(LOOP)) == (running, bystander)
        nobody = AS_AGENT.replace("vm-agent", "nobody", 1)
        assert (await box.vm.run_script(f"{nobody} systemctl restart {APP}", {}, 20)).exit_code != 0


async def test_the_agent_repairs_through_the_rule_and_says_where_it_may_not(tmp_path: Path) -> None:
    """Both units are in the allow-list; polkit lets the agent's user restart only one of them."""
    require(shutil.which("pkaction"), "polkit (package polkitd)")
    other = worker_unit(LOOP, HEARTBEAT + "2")
    async with agent_vm(tmp_path, [app(), other], VM_AGENT_RESTART="on") as box:
        box.vm.write_file(RULES_FILE, rule([APP]))
        for unit in (APP, LOOP):
            await box.vm.kill_unit(unit)
        report = await box.until(lambda report: not unit_of(report, APP).is_up, "it is down")
        assert {repair.unit for repair in report.repairs} >= {APP}
        # The first step of the backoff, 10 s, is the confirmation.
        report = await box.until(lambda report: unit_of(report, APP).is_up, "the agent restarted it", 30)
        report = await box.until(
            lambda report: "Access denied" in findings_of(report, LOOP)["service_down"].message,
            "it was refused",
        )
        assert unit_of(report, APP).is_up
        assert not unit_of(report, LOOP).is_up


async def test_repair_by_timer_where_polkit_knows_no_rules(tmp_path: Path) -> None:
    """Root's own look restarts what is allowed and keeps its state where only root writes."""
    async with agent_vm(tmp_path, [app()]) as box:
        for suffix in ("service", "timer"):
            copy(box, f"systemd/vm-agent-repair.{suffix}", f"/etc/systemd/system/vm-agent-repair.{suffix}")
        await box.shell("systemctl daemon-reload")
        verified = await box.shell("systemd-analyze verify vm-agent-repair.service vm-agent-repair.timer")
        assert verified.stderr == ""
        await box.vm.kill_unit(APP)
        await box.until(lambda report: not unit_of(report, APP).is_up, "it is down")
        await box.shell("systemctl start vm-agent-repair.service")
        await box.until(lambda report: unit_of(report, APP).is_up, "it is up again")
        state = box.vm.outside("/var/lib/vm-agent-remediate/restart_backoff.json")
        assert (state.stat().st_uid, state.parent.stat().st_mode & 0o777) == (0, 0o700)
        timer = await box.vm.unit_properties("vm-agent-repair.timer")
        assert timer["ActiveState"] == "inactive"  # nobody who has not asked for it is repaired
        await box.shell("systemctl start vm-agent-repair.timer")
        timer = await box.vm.unit_properties("vm-agent-repair.timer")
        assert (timer["ActiveState"], timer["Result"]) == ("active", "success")


async def test_a_killed_agent_comes_back(tmp_path: Path) -> None:
    async with agent_vm(tmp_path, [app()]) as box:
        await box.drop_in(AGENT_UNIT, "RestartSec=200ms")
        killed = await box.vm.kill_unit(AGENT_UNIT, signal.SIGKILL)
        await replaced(box, killed)


async def test_a_stuck_agent_is_killed_by_its_watchdog_and_comes_back(tmp_path: Path) -> None:
    """Stopped by a signal it pings no more; the journal says where it was, and a new one answers."""
    async with agent_vm(tmp_path, [app()]) as box:
        await box.drop_in(AGENT_UNIT, "WatchdogSec=2", "RestartSec=200ms")
        await box.shell(f"systemctl restart {AGENT_UNIT}")
        stuck = await box.vm.kill_unit(AGENT_UNIT, signal.SIGSTOP)
        await replaced(box, stuck)
        journal = (await box.shell(f"journalctl -u {AGENT_UNIT} -o cat --no-pager")).stdout
        assert "Failed with result 'watchdog'" in journal
        assert "most recent call first" in journal
        assert "sample_for_ever" in journal


@pytest.mark.parametrize(("unit", "most"), [("vm-agent.service", 2.0), ("vm-agent-repair.service", 3.0)])
def test_how_much_the_units_are_exposed(unit: str, most: float) -> None:
    """The figure of systemd's own audit."""
    require(Path("/usr/bin/systemd-analyze").exists(), "systemd-analyze")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(DEPLOY / "systemd" / unit)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    found = re.search(rf"Overall exposure level for {re.escape(unit)}: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) <= most


def starts_after(moment: datetime) -> Callable[[HealthReport], bool]:
    """Tell whether a report shows a start that began at ``moment`` or later and goes on."""

    def holds(report: HealthReport) -> bool:
        unit = unit_of(report, APP)
        began = unit.started_at is not None and unit.started_at >= moment
        return began and unit.active_state == "activating"

    return holds


async def replaced(box: AgentVm, former: int) -> None:
    """Wait for a new agent in place of the process ``former``, and that it finds all well."""

    async def started() -> bool:
        shown = await box.agent()
        return (shown["NRestarts"], shown["ActiveState"]) == ("1", "active")

    await eventually(started, "a new agent")
    assert await box.vm.main_pid(AGENT_UNIT) not in (0, former)
    await box.until(lambda report: report.status is Status.HEALTHY, "it answers")


def copy(box: AgentVm, source: str, target: str, mode: int = 0o644) -> None:
    """Put a file of ``deploy`` into the VM as its head tells to."""
    box.vm.write_file(target, (DEPLOY / source).read_text(encoding="utf-8"), mode)
