"""The command line's own words, and the plan of ``install``: all without touching the machine."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from vm_agent.cli import main
from vm_agent.config import as_the_service, install_request, load
from vm_agent.install_plan import (
    ALLOW_LIST,
    CONFIG_FILE,
    PROGRAM,
    Machine,
    Run,
    Wanted,
    WriteFile,
    allow_list_text,
    config_text,
    drop_in,
    names_in,
    plan,
)
from vm_agent.polkit_rule import RULES_FILE
from vm_agent.status import address_of, hint
from vm_health.errors import ConfigError
from vm_health.version import VERSION

DEPLOY = Path(__file__).parents[2] / "deploy" / "systemd"
SOURCES = {path.name: path.read_text(encoding="utf-8") for path in DEPLOY.iterdir()}
TARGET = "InstrumentationKey=00000000-0000-4000-8000-000000000009"


@pytest.mark.parametrize(
    "command", ["run", "check", "status", "install", "lock", "unlock", "remediate", "version"]
)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"], {})
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: vm-agent {command}" in text
    assert command == "version" or "vm-agent " in text.split("options:")[1] or "VM_AGENT_" in text


def test_the_help_of_run_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"], {})
    text = capsys.readouterr().out
    for name in ("VM_AGENT_RESTART", "VM_AGENT_SPOOL_MAX_BYTES", "VM_AGENT_METRICS_INTERVAL_SECONDS"):
        assert name in text


def test_version_and_nonsense(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"], {}) == 0
    assert capsys.readouterr().out == f"vm-agent {VERSION}\n"
    with pytest.raises(SystemExit) as ended:
        main(["frobnicate"], {})
    assert ended.value.code == 2


def test_what_nobody_foresaw_is_not_known_and_no_warning(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken(dict[str, str]):
        def get(self, *_: object) -> str:  # type: ignore[override]
            raise RuntimeError("the unforeseen")

    assert main(["check"], Broken()) == 3
    assert "the unforeseen" in capsys.readouterr().err


def test_flags_turn_on_what_settings_leave_off() -> None:
    assert not load({}).restart
    assert load({}, restart=True).restart
    assert load({"VM_AGENT_RESTART": "on"}).restart
    url = {"VM_AGENT_ALERT_WEBHOOK_URL": "https://example.net/hook"}
    assert load(url, alert=True).alert
    with pytest.raises(ConfigError, match="VM_AGENT_ALERT_WEBHOOK_URL must be set for alerts"):
        load({"VM_AGENT_ALERT": "on"})
    assert "example.net" not in repr(load(url))


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({}, "http://127.0.0.1:8080"),
        ({"VM_AGENT_LISTEN_ADDRESS": "::"}, "http://[::1]:8080"),
        ({"VM_AGENT_LISTEN_ADDRESS": "10.0.0.4", "VM_AGENT_LISTEN_PORT": "99"}, "http://10.0.0.4:99"),
        ({"VM_AGENT_TLS_CERT_FILE": "/c", "VM_AGENT_TLS_KEY_FILE": "/k"}, "https://127.0.0.1:8080"),
    ],
)
def test_where_status_asks(settings: dict[str, str], address: str) -> None:
    assert address_of(load(settings)) == address
    assert address in hint(load(settings), "refused")
    assert "its log names" in hint(load({"VM_AGENT_LISTEN_PORT": "0"}), "")


def test_the_services_environment_file_is_read_and_ours_wins(tmp_path: Path) -> None:
    file = tmp_path / "agent.env"
    file.write_text('# ours\nVM_AGENT_LISTEN_PORT="9090"\n\nVM_AGENT_VM_ID=$(id)\nnonsense\n; x=y\n')
    found = as_the_service({"VM_AGENT_VM_ID": "mine"}, str(file))
    assert found == {"VM_AGENT_LISTEN_PORT": "9090", "VM_AGENT_VM_ID": "mine"}
    assert as_the_service({"A": "b"}, str(tmp_path / "none")) == {"A": "b"}


def written(steps: list[WriteFile | Run]) -> dict[str, str]:
    return {step.path: step.text for step in steps if isinstance(step, WriteFile)}


def commands(steps: list[WriteFile | Run]) -> list[str]:
    return [" ".join(step.command) for step in steps if isinstance(step, Run)]


def test_the_plan_on_a_machine_as_it_should_be() -> None:
    steps = plan(Wanted(("web.service",), restart=True, connection_string=TARGET), Machine(), SOURCES)
    files = written(steps)
    assert list(files) == [
        "/etc/sysusers.d/vm-agent.conf",
        ALLOW_LIST,
        CONFIG_FILE,
        "/etc/systemd/system/vm-agent.service",
        RULES_FILE,
    ]
    assert names_in(files[ALLOW_LIST].splitlines()) == ["web.service"]
    assert '"web.service"' in files[RULES_FILE]
    assert PROGRAM in files["/etc/systemd/system/vm-agent.service"]
    assert tomllib.loads(files[CONFIG_FILE]) == {
        "units": ["web.service"],
        "applicationinsights_connection_string": TARGET,
        "restart": True,
    }
    assert commands(steps) == [
        "systemd-sysusers /etc/sysusers.d/vm-agent.conf",
        "systemctl daemon-reload",
        "systemctl enable vm-agent.service",
        "systemctl restart vm-agent.service",
    ]
    kept = {step.path: (step.keep, step.for_agent) for step in steps if isinstance(step, WriteFile)}
    assert {path for path, (keep, _) in kept.items() if keep} == {CONFIG_FILE}  # it may hold a secret: 0640
    assert kept[CONFIG_FILE] == (True, True)


def test_where_polkit_knows_no_rules_a_timer_of_roots_repairs() -> None:
    old = Machine(("/usr/bin/python3", "-m", "vm_agent"), "/srv/vm agent", polkit_has_rules=False)
    steps = plan(Wanted(("web.service",), restart=True), old, SOURCES)
    files = written(steps)
    assert RULES_FILE not in files
    assert "restart" not in tomllib.loads(files[CONFIG_FILE])
    assert "systemctl enable vm-agent.service vm-agent-repair.timer" in commands(steps)
    repair = files["/etc/systemd/system/vm-agent-repair.service.d/10-program.conf"]
    assert "VM_AGENT_STATE_DIR=/var/lib/vm-agent-remediate" in repair
    assert repair.endswith('"PYTHONPATH=/srv/vm agent" /usr/bin/python3 -m vm_agent check --restart\n')
    watching = plan(Wanted(("web.service",)), old, SOURCES)
    assert not any("repair" in path for path in written(watching))


def test_the_allow_list_grows_and_keeps_its_comments() -> None:
    there = ("# ours", "db.service  # careful", "")
    assert allow_list_text(there, ["web.service", "db.service"]) == (
        "# ours\ndb.service  # careful\n\nweb.service\n"
    )
    files = written(plan(Wanted(("web.service",)), Machine(allowed=there), SOURCES))
    assert '"db.service",\n        "web.service"' in files[RULES_FILE]


def test_a_skeleton_without_wishes_says_what_could_be_there_and_sets_nothing() -> None:
    text = config_text(Wanted(), repairs=True)
    assert tomllib.loads(text) == {}
    assert '#units = ["nginx.service"]' in text
    uncommented = "\n".join(line.removeprefix("#") for line in text.splitlines() if not line.startswith("# "))
    known = load({}).__dataclass_fields__.keys() | {"applicationinsights_connection_string"}
    assert tomllib.loads(uncommented).keys() <= known


def test_a_drop_in_expands_nothing() -> None:
    text = drop_in(("/opt/my agent/$bin/vm-agent",), "", "run")
    assert 'ExecStart="/opt/my agent/$$bin/vm-agent" run' in text


def test_what_install_is_asked_for() -> None:
    given = {"APPLICATIONINSIGHTS_CONNECTION_STRING": TARGET}
    assert install_request(given, "web,db") == (("web.service", "db.service"), TARGET)
    assert install_request({"VM_AGENT_UNITS": "web"}, "") == (("web.service",), "")
    with pytest.raises(ConfigError, match="must be at most 64 systemd unit names"):
        install_request({}, "web;id")
