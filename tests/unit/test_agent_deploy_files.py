"""What `deploy` ships: the ready drop-in and the worked example say the same, and nothing is left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from vm_agent.config import load
from vm_agent.lock_command import RUNTIME_DIRECTORY

SYSTEMD = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
ORIGINAL = {
    "StartLimitIntervalSec": "300",
    "StartLimitBurst": "5",
    "Restart": "on-failure",
    "RestartSec": "10",
    "WatchdogSec": "300",
    "MemoryMax": "4G",
    "CPUQuota": "200%",
}
STEPS = {"RestartSteps": "5", "RestartMaxDelaySec": "300"}
PLACE = {"StartLimitIntervalSec": "Unit", "StartLimitBurst": "Unit"}


def settings(name: str) -> Mapping[str, tuple[str, str]]:
    """Section and value of each setting; none of these files gives one twice."""
    found: dict[str, tuple[str, str]] = {}
    section = ""
    for line in (SYSTEMD / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            assert key not in found, f"{name}: {key} twice"
            found[key] = (section, value)
    return found


@pytest.mark.parametrize("name", ["watched-service.conf", "faucet_worker.service"])
def test_a_watched_service_gets_the_original_settings(name: str) -> None:
    given = settings(name)
    for key, value in ORIGINAL.items():
        assert given[key] == (PLACE.get(key, "Service"), value), key


def test_the_drop_in_holds_nothing_else_and_the_steps_are_apart() -> None:
    assert settings("watched-service.conf").keys() == ORIGINAL.keys()
    assert settings("watched-service-steps.conf") == {key: ("Service", value) for key, value in STEPS.items()}


def test_a_deploy_lock_outlives_a_restart_of_the_agent() -> None:
    lines = (SYSTEMD / "vm-agent.service").read_text(encoding="utf-8").splitlines()
    wanted = {"RuntimeDirectory=vm-agent", "RuntimeDirectoryMode=0755", "RuntimeDirectoryPreserve=yes"}
    assert wanted <= set(lines)
    assert RUNTIME_DIRECTORY == "/run/vm-agent"
    assert load({}).deploy_lock_file == f"{RUNTIME_DIRECTORY}/deploy.lock"


def test_the_drop_in_warns_before_it_is_installed() -> None:
    head = (SYSTEMD / "watched-service.conf").read_text(encoding="utf-8").partition("[Unit]")[0]
    assert "KILLS A SERVICE THAT NEVER PINGS" in head
    assert "WatchdogSec=0" in head
