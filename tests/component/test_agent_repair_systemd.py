"""Local repair and `install` on a real systemd, through polkit, as the agent's own user."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

from devcloud.vms.base import VmSpec
from devcloud.vms.bridge import BridgeNetwork
from devcloud.vms.factory import create_vm
from devcloud.vms.machine import AGENT_UNIT
from tests.component.agent_vm import AS_AGENT, AgentVm, agent_vm, findings_of, unit_of
from tests.component.vm_fixtures import APP, app, eventually, need
from tests.conftest import require
from vm_agent.polkit_rule import RULES_FILE, rule
from vm_health.model import HealthReport, Status

STATE_FILE = "/var/lib/vm-agent/restart_backoff.json"


def overdue(box: AgentVm, attempts: int) -> None:
    """Say that so many attempts were made, and that the wait for the next one is over."""
    state = {"name": APP, "attempts": attempts, "not_before": "2026-01-01T00:00:00+00:00"}
    state |= {"last_attempt_at": None, "up_since": None, "circuit_open": False}
    box.vm.write_file(STATE_FILE, json.dumps({"schema": 1, "units": [state]}))


def attempts_of(report: HealthReport) -> int:
    return max((repair.attempts for repair in report.repairs), default=0)


async def test_a_killed_worker_comes_back_and_the_backoff_outlives_the_agent(tmp_path: Path) -> None:
    """kill -9 of the worker, twice, with a kill -9 of the agent between: it counts on where it was."""
    require(shutil.which("pkaction"), "polkit (package polkitd)")
    async with agent_vm(tmp_path, [app()], VM_AGENT_RESTART="on") as box:
        box.vm.write_file(RULES_FILE, rule([APP]))
        await box.drop_in(AGENT_UNIT, "RestartSec=200ms")
        overdue(box, attempts=1)
        killed = await box.vm.kill_unit(APP)
        report = await box.until(lambda report: unit_of(report, APP).is_up and report.repairs, "it is up")
        assert attempts_of(report) == 2
        second = await box.vm.main_pid(APP)
        assert second not in (0, killed)
        saved = box.vm.outside(STATE_FILE)
        assert json.loads(saved.read_text())["units"][0]["attempts"] == 2
        assert saved.stat().st_mode & 0o777 == 0o600

        await box.vm.kill_unit(AGENT_UNIT, signal.SIGKILL)

        async def is_back() -> bool:
            shown = await box.agent()
            return (shown["NRestarts"], shown["ActiveState"]) == ("1", "active")

        await eventually(is_back, "a new agent")
        await box.vm.kill_unit(APP)
        report = await box.until(lambda report: not unit_of(report, APP).is_up, "it is down again")
        assert attempts_of(report) == 2
        found = await box.until(lambda report: "local repair: attempt 3 of 6 in" in text(report), "its plan")
        assert found.repairs[0].not_before is not None

        await box.shell(f"systemctl reset-failed {APP}; systemctl start {APP}; systemctl stop {APP}")
        overdue(box, attempts=2)
        report = await box.until(
            lambda report: "not restarted: it was stopped on purpose" in text(report), "who stops it decides"
        )
        assert report.status is Status.CRITICAL


def text(report: HealthReport) -> str:
    found = findings_of(report, APP).get("service_down")
    return found.message if found else ""


async def test_install_makes_a_machine_run_the_agent_and_may_be_repeated(tmp_path: Path) -> None:
    """On a machine that has the program and nothing else: user, files, rule, service, answer."""
    need("systemd")
    require(shutil.which("systemd-sysusers"), "systemd-sysusers")
    bridge = BridgeNetwork()
    network = await bridge.start()
    vm = create_vm("systemd", VmSpec("web-1", network.address(1)), tmp_path, network, None, [app()])
    try:
        await vm.start()
        box = AgentVm(vm)
        program = '#!/bin/sh\nexec /opt/vm-agent/bin/python -P -m vm_agent "$@"\n'
        vm.write_file("/opt/vm-agent/bin/vm-agent", program, 0o755)
        install = "/opt/vm-agent/bin/vm-agent install --units app --restart"
        told = await box.shell(f"umask 077; {install} --dry-run")
        assert "would write /etc/vm-agent/agent.toml" in told.stdout
        assert not vm.outside("/etc/vm-agent").exists()

        told = await box.shell(f"umask 077; {install}")
        assert f"ran        systemctl restart {AGENT_UNIT}" in told.stdout
        assert "answers    http://127.0.0.1:8080/health says " in told.stdout
        answer = await box.look()
        assert answer is not None
        assert unit_of(answer[1], APP).is_up
        settings = vm.outside("/etc/vm-agent/agent.toml").stat()
        assert (settings.st_uid, settings.st_mode & 0o777) == (0, 0o640)
        shown = await box.agent()
        assert (shown["User"], shown["ActiveState"], shown["UnitFileState"]) == (
            "vm-agent",
            "active",
            "enabled",
        )

        told = await box.shell(install)
        assert "wrote" not in told.stdout
        assert "kept       /etc/vm-agent/agent.toml" in told.stdout
        status = await vm.run_script("/opt/vm-agent/bin/vm-agent status", {}, 20)
        assert (status.exit_code, "  unit      app.service" in status.stdout) == (
            answer[1].status.exit_code,
            True,
        )
        refused = await vm.run_script(f"{AS_AGENT} {install}", {}, 20)
        assert (refused.exit_code, "install must be run as root" in refused.stderr) == (3, True)
    finally:
        await vm.stop()
        await bridge.stop()
