"""`vm-agent check` as an operator's shell sees it: output and exit code."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.component.agent_site import Site, shown
from vm_agent.settings import PREFIX, SETTINGS
from vm_health.model import Cause, Status
from vm_health.wire import decode_report

pytest_plugins = ["tests.component.agent_fixtures"]
DOWN = "failed/failed"


@pytest.mark.parametrize(
    ("state", "settings", "exit_code", "word"),
    [
        ("active/running", {}, 0, "HEALTHY"),
        (
            "active/running",
            {"VM_AGENT_DISK_WARNING_PERCENT": "0", "VM_AGENT_DISK_CRITICAL_PERCENT": "100"},
            1,
            "WARNING",
        ),
        ("active/running", {"VM_AGENT_HEARTBEAT_FILES": "/nowhere/beat"}, 1, "WARNING"),
        (DOWN, {}, 2, "CRITICAL"),
    ],
)
def test_exit_code_and_first_word(
    place: Site, state: str, settings: dict[str, str], exit_code: int, word: str
) -> None:
    place.systemd_says(shown(state))
    done = place.command("check", VM_AGENT_UNITS="web", **settings)
    assert (done.returncode, done.stdout.split()[0], done.stderr) == (exit_code, word, "")
    assert "\x1b" not in done.stdout  # a pipe gets no colours


def test_json_is_the_report_itself(place: Site) -> None:
    place.systemd_says(shown(DOWN))
    done = place.command("check", "--json", VM_AGENT_UNITS="web")
    report = decode_report(done.stdout)
    assert (report.status, report.findings[0].code) == (Status.CRITICAL, Cause.SERVICE_DOWN)
    assert report.sample.disks[0].total_bytes > 0
    assert report.sample.memory is not None
    assert len(report.boot_id) == 36


def test_all_units_cost_one_call(place: Site) -> None:
    place.systemd_says(shown() + "\n" + shown(name="db.service"))
    done = place.command("check", VM_AGENT_UNITS="web,db")
    assert done.returncode == 0
    (call,) = place.calls()
    assert call.startswith("show ")
    assert call.endswith("-- web.service db.service")


def test_without_a_working_systemd_the_rest_is_still_seen(place: Site) -> None:
    place.systemd_says("")
    done = place.command("check", "--json", VM_AGENT_UNITS="web")
    report = decode_report(done.stdout)
    assert (done.returncode, report.sample.units) == (1, ())
    assert [(finding.code, finding.subject) for finding in report.findings] == [
        (Cause.COLLECTOR_FAILED, "units")
    ]
    assert report.sample.memory is not None


def test_bad_settings_are_listed_without_a_traceback(place: Site) -> None:
    done = place.command("check", VM_AGENT_UNIT="web", VM_AGENT_LISTEN_PORT="x")
    assert (done.returncode, done.stdout) == (3, "")
    assert "did you mean VM_AGENT_UNITS?" in done.stderr
    assert "VM_AGENT_LISTEN_PORT must be" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("extra", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_on_a_terminal_unless_they_are_not_wanted(
    place: Site, extra: dict[str, str], coloured: bool
) -> None:
    ours, theirs = os.openpty()
    environment = {**place.environment({"TERM": "xterm"}), **extra}
    if coloured:
        environment.pop("NO_COLOR", None)
    process = subprocess.Popen([sys.executable, "-m", "vm_agent", "check"], env=environment, stdout=theirs)
    os.close(theirs)
    process.wait(30)
    assert (b"\x1b[" in os.read(ours, 4096)) is coloured
    os.close(ours)


def test_help_teaches_by_examples_and_lists_every_setting(place: Site) -> None:
    assert "vm-agent check --json | jq" in place.command("--help").stdout
    told = place.command("run", "--help").stdout
    assert [PREFIX + setting.name for setting in SETTINGS if PREFIX + setting.name not in told] == []
    assert place.command("version").stdout.startswith("vm-agent 0.")
