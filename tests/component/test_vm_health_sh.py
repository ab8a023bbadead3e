"""`deploy/vm_health.sh` with the real agent behind it: exit codes, arguments, and the service's settings."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

from devcloud.vms.base import VmSpec
from devcloud.vms.bridge import BridgeNetwork
from devcloud.vms.factory import create_vm
from tests.component.agent_site import ROOT, Site, shown
from tests.component.vm_fixtures import APP, app, need
from tests.conftest import require
from vm_health.model import Status
from vm_health.wire import decode_report

pytest_plugins = ["tests.component.agent_fixtures"]

SCRIPT = ROOT / "deploy" / "vm_health.sh"
QUIET = {
    "VM_AGENT_UNITS": "web",
    "VM_AGENT_DISK_WARNING_PERCENT": "99",
    "VM_AGENT_DISK_CRITICAL_PERCENT": "99.9",
}


def run(place: Site, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the script where no agent is installed: it uses the one beside it."""
    return subprocess.run(
        [str(SCRIPT), *arguments],
        env=place.environment({**QUIET, **settings}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_shellcheck_finds_nothing() -> None:
    require(shutil.which("shellcheck"), "shellcheck")
    scripts = [str(path) for path in sorted((ROOT / "deploy").rglob("*.sh"))]
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("settings", "state", "code", "word"),
    [
        ({}, "active/running", 0, "HEALTHY"),
        ({"VM_AGENT_DISK_WARNING_PERCENT": "0.001"}, "active/running", 1, "WARNING"),
        ({}, "failed/failed", 2, "CRITICAL"),
        ({"VM_AGENT_LISTEN_PORT": "many"}, "active/running", 2, "VM_AGENT_LISTEN_PORT"),
    ],
    ids=["healthy", "warning", "critical", "not known is critical"],
)
def test_exit_codes(place: Site, settings: dict[str, str], state: str, code: int, word: str) -> None:
    place.systemd_says(shown(state))
    done = run(place, **settings)
    assert done.returncode == code, done.stderr
    assert word in done.stdout + done.stderr
    assert "\x1b" not in done.stdout


def test_json_is_the_report_and_nothing_else(place: Site) -> None:
    done = run(place, "--json")
    assert decode_report(done.stdout).status is Status.HEALTHY
    assert [unit["name"] for unit in json.loads(done.stdout)["units"]] == ["web.service"]


def test_help_teaches_and_an_unknown_argument_is_named(place: Site) -> None:
    done = run(place, "--help")
    assert done.returncode == 0
    assert all(
        word in done.stdout for word in ("--restart", "--alert", "--json", "exit codes", "VM_AGENT_UNITS")
    )
    done = run(place, "--fix")
    assert (done.returncode, done.stdout) == (2, "")
    assert "unknown argument '--fix'" in done.stderr


def test_colours_are_for_terminals(place: Site) -> None:
    ours, theirs = pty.openpty()
    environment = place.environment({**QUIET, "TERM": "xterm"})
    environment.pop("NO_COLOR", None)
    try:
        done = subprocess.run([str(SCRIPT)], env=environment, stdout=theirs, timeout=30, check=False)
        shown_there = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 0
    assert "\x1b[32mHEALTHY\x1b[0m" in shown_there


async def test_it_has_the_settings_of_the_service_and_runs_none_of_them(tmp_path: Path) -> None:
    """On a VM: units come from agent.env, the environment wins, and what a value holds is never executed."""
    need("systemd")
    bridge = BridgeNetwork()
    network = await bridge.start()
    hostile = "InstrumentationKey=$(touch /tmp/owned)`touch /tmp/owned`;x=\\ \" '"
    settings = {"VM_AGENT_UNITS": APP, "VM_AGENT_VM_ID": "", "APPLICATIONINSIGHTS_CONNECTION_STRING": hostile}
    vm = create_vm("systemd", VmSpec("web-1", network.address(1)), tmp_path, network, settings, [app()])
    script = "/opt/vm-agent/src/deploy/vm_health.sh"
    try:
        await vm.start()
        done = await vm.run_script(script, {}, 20)
        assert done.exit_code == 2  # the setting is faulty, and so was read
        assert "APPLICATIONINSIGHTS_CONNECTION_STRING" in done.stderr
        assert not vm.outside("/tmp/owned").exists()

        given = {"APPLICATIONINSIGHTS_CONNECTION_STRING": "", "VM_AGENT_DISK_MOUNTS": "/tmp"}
        done = await vm.run_script(f"{script} --json", given, 20)
        assert done.exit_code == 0, done.stdout + done.stderr
        report = json.loads(done.stdout)
        assert [unit["name"] for unit in report["units"]] == [APP]
        assert [disk["mount"] for disk in report["disks"]] == ["/tmp"]

        done = await vm.run_script(
            f"setpriv --reuid nobody --regid nogroup --clear-groups {script} --json", given, 20
        )
        assert "agent.env is not readable for nobody" in done.stderr
    finally:
        await vm.stop()
        await bridge.stop()
