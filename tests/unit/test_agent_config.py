"""Settings: what is accepted, what is refused in which words, and that the sample file tells the truth."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vm_agent.config import AgentConfig, deploy_lock_file, load, load_remediation, who_asks
from vm_agent.settings import PREFIX, SETTINGS
from vm_health.errors import ConfigError
from vm_health.rules import Thresholds

ROOT = Path(__file__).parents[2]
KEY = "00000000-0000-4000-8000-000000000009"
VM = (
    "/subscriptions/00000000-0000-4000-8000-000000000001/resourceGroups/Rg"
    "/providers/Microsoft.Compute/virtualMachines/Vm"
)


def faults_of(**variables: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load({f"VM_AGENT_{name}": value for name, value in variables.items()})
    return caught.value.faults


def given(**variables: str) -> AgentConfig:
    return load({f"VM_AGENT_{name}": value for name, value in variables.items()})


def test_no_settings_at_all_watch_the_machine_and_report_to_nobody() -> None:
    """It works with no configuration."""
    config = given()
    assert (config.units, config.disk_mounts, config.heartbeat_files) == ((), (), ())
    assert (config.sample_interval_seconds, config.report_interval_seconds) == (15.0, 60.0)
    assert (config.listen_address, config.listen_port) == ("0.0.0.0", 8080)
    assert (config.telemetry, config.telemetry_auth, config.vm_id, config.nudge_url) == (None, "none", "", "")
    assert config.limits == Thresholds()


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("UNITS", "nginx, db@1.service ,nginx", "units", ("nginx.service", "db@1.service")),
        ("UNITS", "a.b", "units", ("a.b.service",)),
        ("UNITS", "", "units", ()),
        ("HEARTBEAT_FILES", "/run/a,/run/b c=d", "heartbeat_files", (("", "/run/a"), ("", "/run/b c=d"))),
        ("HEARTBEAT_FILES", "web = /run/a", "heartbeat_files", (("web.service", "/run/a"),)),
        ("UNIT_SOURCE", "dbus", "unit_source", "dbus"),
        ("SYSTEM_BUS", "unix:guid=1,path=/run/bus", "system_bus", "/run/bus"),
        ("SYSTEM_BUS", "tcp:host=x;unix:path=/a", "system_bus", "/a"),
        ("LOG_FILES", "/var/log/a,/var/log/b", "log_files", ("/var/log/a", "/var/log/b")),
        ("LOG_PATTERN", "a|b", "log_pattern", re.compile("a|b")),
        ("LOG_ERRORS", "3", "limits", Thresholds(log_errors=3)),
        ("SCHEDULED_EVENTS", "on", "scheduled_events", True),
        ("STARTUP_GRACE_SECONDS", "300", "limits", Thresholds(startup_grace_seconds=300)),
        ("STARTUP_GRACE_SECONDS", "0", "limits", Thresholds(startup_grace_seconds=0)),
        ("DEPLOY_LOCK_FILE", "", "deploy_lock_file", "/run/vm-agent/deploy.lock"),
        ("DEPLOY_LOCK_FILE", "/run/deploy", "deploy_lock_file", "/run/deploy"),
        ("DEPLOY_LOCK_FILE", "Off", "deploy_lock_file", ""),
        ("LISTEN_PORT", "0", "listen_port", 0),
        ("LISTEN_ADDRESS", "[::1]", "listen_address", "::1"),
        ("TELEMETRY_AUTH", "ENTRA", "telemetry_auth", "entra"),
        ("VM_ID", VM, "vm_id", VM.lower()),
        ("ENDPOINT", "http://vm1.internal:8080/", "endpoint", "http://vm1.internal:8080"),
        ("NUDGE_URL", "https://f.example.net/api/nudge", "nudge_url", "https://f.example.net/api/nudge"),
        ("NUDGE_URL", "http://10.1.2.3/api/nudge", "nudge_url", "http://10.1.2.3/api/nudge"),
    ],
)
def test_accepted(name: str, text: str, field: str, value: object) -> None:
    assert getattr(given(**{name: text}), field) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("UNITS", "nginx;reboot"),
        ("UNITS", "-.mount"),
        ("UNITS", "getty@.service"),  # a template: systemctl refuses the whole call for it
        ("UNITS", ",".join(f"u{number}" for number in range(65))),
        ("DISK_MOUNTS", "data"),
        ("HEARTBEAT_FILES", "/run/a\nb"),
        ("HEARTBEAT_FILES", "web=run/a"),
        ("HEARTBEAT_FILES", "=/run/a"),
        ("HEARTBEAT_FILES", "we b=/run/a"),
        ("UNIT_SOURCE", "bus"),
        ("SYSTEM_BUS", "/run/bus"),
        ("SYSTEM_BUS", "unix:abstract=/x"),
        ("LOG_PATTERN", "("),
        ("LOG_PATTERN", "a" * 513),
        ("LOG_WINDOW_SECONDS", "1"),
        ("JOURNAL", "maybe"),
        ("GIT_CHECKOUTS", "app"),
        ("SAMPLE_INTERVAL_SECONDS", "0"),
        ("SAMPLE_INTERVAL_SECONDS", "nan"),
        ("LISTEN_PORT", "65536"),
        ("LISTEN_PORT", "8080x"),
        ("LISTEN_PORT", "٨٠"),  # Arabic digits: isdigit() alone would take them
        ("LISTEN_ADDRESS", "localhost"),
        ("TELEMETRY_AUTH", "yes"),
        ("IMDS_URL", "http://metadata.example.com"),
        ("NUDGE_URL", "http://f.example.net/api/nudge"),
        ("NUDGE_URL", "https://user:pass@f.example.net/"),
        ("ENDPOINT", "ftp://vm"),
        ("VM_ID", "vm1"),
        ("STATE_DIR", "state"),
        ("STARTUP_GRACE_SECONDS", "3601"),
        ("STARTUP_GRACE_SECONDS", "-1"),
        ("DEPLOY_LOCK_FILE", "run/lock"),
        ("CRASH_LOOP_RESTARTS", "0"),
        ("DISK_WARNING_PERCENT", "101"),
    ],
)
def test_refused_with_name_value_and_what_it_must_be(name: str, text: str) -> None:
    (fault,) = faults_of(**{name: text})
    assert fault.startswith(f"VM_AGENT_{name} must be ")
    assert f"was {text[:200]!r}" in fault


def test_all_faults_are_told_at_once_and_the_nearest_known_name() -> None:
    faults = faults_of(UNIT="nginx", LISTEN_PORT="x", DISK_WARNING_PERCENT="95", XYZZY_PLUGH="1")
    assert faults[0] == "VM_AGENT_UNIT is not a setting; did you mean VM_AGENT_UNITS?"
    assert faults[1].startswith("VM_AGENT_XYZZY_PLUGH is not a setting")
    assert faults[2].startswith("VM_AGENT_LISTEN_PORT must be a whole number from 0 to 65535")
    assert faults[3] == (
        "VM_AGENT_DISK_WARNING_PERCENT (95) must not be above VM_AGENT_DISK_CRITICAL_PERCENT (90)"
    )


def test_azures_own_name_of_the_connection_string_is_read_and_ours_wins() -> None:
    def text(host: str) -> str:
        return f"InstrumentationKey={KEY};IngestionEndpoint=https://{host}/"

    plain = {"APPLICATIONINSIGHTS_CONNECTION_STRING": text("a.in.applicationinsights.azure.com")}
    config = load(plain)
    assert config.telemetry is not None
    assert config.telemetry.track_url == "https://a.in.applicationinsights.azure.com/v2.1/track"
    config = load({**plain, "VM_AGENT_APPLICATIONINSIGHTS_CONNECTION_STRING": text("b.example.net")})
    assert config.telemetry is not None
    assert config.telemetry.host == "b.example.net"


def test_no_secret_in_a_fault_or_in_the_configurations_repr() -> None:
    (fault,) = faults_of(APPLICATIONINSIGHTS_CONNECTION_STRING="InstrumentationKey=hunter2")
    assert "hunter2" not in fault
    config = given(
        NUDGE_KEY="hunter2",
        APPLICATIONINSIGHTS_CONNECTION_STRING=f"InstrumentationKey={KEY}",
    )
    assert "hunter2" not in repr(config)
    assert KEY not in repr(config)
    assert config.nudge_key.reveal() == "hunter2"


def test_a_file_that_was_asked_for_must_exist() -> None:
    (fault,) = faults_of(CONFIG="/nowhere/agent.toml")
    assert fault == "VM_AGENT_CONFIG must be a file that exists, was '/nowhere/agent.toml'"


def test_a_fault_elsewhere_does_not_stop_a_repair() -> None:
    config = load_remediation({"VM_AGENT_LISTEN_PORT": "x", "VM_AGENT_ALLOW_LIST": "/etc/a"})
    assert config.allow_list == "/etc/a"
    with pytest.raises(ConfigError):
        load_remediation({"VM_AGENT_ALLOW_LIST": "a"})


def test_a_fault_elsewhere_does_not_stop_a_deployments_lock(tmp_path: Path) -> None:
    broken = {"VM_AGENT_LISTEN_PORT": "x"}
    assert deploy_lock_file(broken) == "/run/vm-agent/deploy.lock"
    file = tmp_path / "agent.toml"
    file.write_text('deploy_lock_file = ""\n')
    assert deploy_lock_file({**broken, "VM_AGENT_CONFIG": str(file)}) == ""
    with pytest.raises(ConfigError, match="VM_AGENT_DEPLOY_LOCK_FILE must be off, or an absolute path"):
        deploy_lock_file({"VM_AGENT_DEPLOY_LOCK_FILE": "lock"})


@pytest.mark.parametrize(
    ("environ", "who"), [({}, ""), ({"USER": "root"}, "root"), ({"USER": "root", "SUDO_USER": "ada"}, "ada")]
)
def test_who_calls_is_who_called_sudo(environ: dict[str, str], who: str) -> None:
    assert who_asks(environ) == who


def test_env_example_holds_every_setting_with_its_default_and_help() -> None:
    text = (ROOT / ".env.example").read_text()
    lines = [line.lstrip("#") for line in text.splitlines() if line.startswith(("#VM_AGENT_", "VM_AGENT_"))]
    told = dict(line.split("=", 1) for line in lines)
    expected = {PREFIX + setting.name: setting.default for setting in SETTINGS}
    assert told == {**expected, "VM_AGENT_CONFIG": "/etc/vm-agent/agent.toml"}
    assert [setting.name for setting in SETTINGS if f"# {setting.help}\n" not in text] == []
    assert load({name: value for name, value in told.items() if name != "VM_AGENT_CONFIG"}) == given()
