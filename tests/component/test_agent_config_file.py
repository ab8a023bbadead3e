"""The agent's file of settings, read from a disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from vm_agent.config import load
from vm_health.errors import ConfigError


def test_the_file_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('units = ["nginx", "db"]\nlisten_port = 9000\ndisk_warning_percent = 70.5\n')
    config = load({"VM_AGENT_CONFIG": str(file), "VM_AGENT_LISTEN_PORT": "9001"})
    assert config.units == ("nginx.service", "db.service")
    assert config.listen_port == 9001
    assert config.limits.disk_warning_percent == 70.5


def test_faults_of_the_file_name_the_key_and_the_file(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('unit = "nginx"\nlisten_port = "x"\n')
    with pytest.raises(ConfigError) as caught:
        load({"VM_AGENT_CONFIG": str(file)})
    assert caught.value.faults == (
        f"unit in {file} is not a setting; did you mean units?",
        f"listen_port in {file} must be a whole number from 0 to 65535, was 'x'",
    )


@pytest.mark.parametrize("content", ["units = [", "\x00", "units: nginx"])
def test_a_file_that_is_no_toml_is_a_fault_not_a_traceback(tmp_path: Path, content: str) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(content)
    with pytest.raises(ConfigError, match="must be TOML"):
        load({"VM_AGENT_CONFIG": str(file)})
