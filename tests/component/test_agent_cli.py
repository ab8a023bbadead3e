"""Commands as people call them: real processes, output, exit codes; `install` into a directory."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import tomllib
from pathlib import Path

from devcloud.tls import make_certificates
from tests.component.agent_site import ROOT, Playback, Reply, Site, shown, until
from vm_health.wire import decode_report

pytest_plugins = ["tests.component.agent_fixtures"]
BASE = {"VM_AGENT_UNITS": "web", "VM_AGENT_UNIT_SOURCE": "systemctl", "VM_AGENT_JOURNAL": "off"}


def listening(place: Site, **settings: str) -> dict[str, str]:
    """Start the agent; returns the settings with which it is found."""
    agent = place.run_agent(**BASE, VM_AGENT_STATE_DIR=str(place.directory / "state"), **settings)
    scheme = "https" if "VM_AGENT_TLS_CERT_FILE" in settings else "http"
    port = agent.log().split(f"health={scheme}://127.0.0.1:")[1].split("/")[0]
    found = {"VM_AGENT_LISTEN_ADDRESS": "127.0.0.1", "VM_AGENT_LISTEN_PORT": port, **settings}
    until(lambda: place.command("status", **found).returncode != 3)
    return found


def test_status_says_what_only_the_running_agent_knows(place: Site, server: Playback) -> None:
    server.default = lambda request: Reply(503)
    given = listening(
        place,
        VM_AGENT_APPLICATIONINSIGHTS_CONNECTION_STRING=server.connection_string,
        VM_AGENT_TOKEN="a-token-that-is-long-enough",
        VM_AGENT_RESTART="on",
    )
    done = place.command("status", **given)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("HEALTHY")
    assert "  sampled   0 s ago" in done.stdout
    until(lambda: "0 sent, 1 waiting, 0 dropped" in place.command("status", **given).stdout)
    place.systemd_says(shown("failed/failed", 0))
    until(lambda: place.command("status", **given).returncode == 2)
    text = place.command("status", **given).stdout
    assert "\x1b" not in text
    assert "not restarted by the agent" in text  # there is no allow-list
    done = place.command("status", "--json", **given)
    assert decode_report(done.stdout).findings[0].subject == "web.service"
    assert "telemetry" not in place.command("status", **{**given, "VM_AGENT_TOKEN": ""}).stdout


def test_status_over_tls_trusts_the_agents_own_certificate_alone(place: Site, tmp_path: Path) -> None:
    ours = make_certificates(tmp_path / "ours", ["vm1.example.net"])
    others = make_certificates(tmp_path / "others", ["vm1.example.net"])
    given = listening(
        place, VM_AGENT_TLS_CERT_FILE=str(ours.cert_file), VM_AGENT_TLS_KEY_FILE=str(ours.key_file)
    )
    assert place.command("status", **given).returncode == 0
    done = place.command("status", **{**given, "VM_AGENT_TLS_CERT_FILE": str(others.cert_file)})
    assert done.returncode == 3
    assert "CERTIFICATE_VERIFY_FAILED" in done.stderr


def test_status_without_an_agent_says_where_to_look(place: Site, server: Playback) -> None:
    done = place.command("status", VM_AGENT_LISTEN_PORT="1")
    assert (done.returncode, done.stdout) == (3, "")
    assert "no answer from http://127.0.0.1:1" in done.stderr
    assert "systemctl status vm-agent" in done.stderr
    port = server.url.rpartition(":")[2]
    done = place.command("status", VM_AGENT_LISTEN_PORT=port)
    assert done.returncode == 3
    assert "answers 200, but not as the agent does" in done.stderr
    assert "Traceback" not in done.stderr


def test_colours_are_for_terminals(place: Site) -> None:
    def on_a_terminal(**more: str) -> bytes:
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "vm_agent", "check"]
        environment = {**place.environment(BASE), "TERM": "xterm", **more}
        environment.pop("" if more else "NO_COLOR", None)
        subprocess.run(
            command, env=environment, stdout=theirs, stderr=theirs, check=False, timeout=30, cwd=ROOT
        )
        os.close(theirs)
        text = os.read(ours, 65536)
        os.close(ours)
        return text

    assert b"\x1b[32mHEALTHY" in on_a_terminal()
    assert b"\x1b" not in on_a_terminal(NO_COLOR="1")
    assert "\x1b" not in place.command("check", **BASE).stdout


def test_a_log_file_beside_the_journal(place: Site) -> None:
    file = place.directory / "logs" / "vm_health.log"
    agent = place.run_agent(**BASE, VM_AGENT_LOG_FILE=str(file))
    until(lambda: "status=HEALTHY" in agent.log())
    assert " INFO status status=HEALTHY" in file.read_text()
    (place.directory / "file").write_text("")
    agent = place.run_agent(**BASE, VM_AGENT_LOG_FILE=str(place.directory / "file" / "log"))
    assert "log file cannot be written" in agent.log()


def test_the_journal_gets_levels(place: Site) -> None:
    environment = place.environment({**BASE, "VM_AGENT_LISTEN_PORT": "0", "JOURNAL_STREAM": "8:1"})
    with subprocess.Popen(
        [sys.executable, "-m", "vm_agent", "run"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("<6>INFO vm-agent runs ")
        process.terminate()


def test_no_state_directory_is_a_finding_and_no_crash(place: Site, server: Playback) -> None:
    (place.directory / "state").write_text("no directory")
    agent = place.run_agent(
        **BASE,
        VM_AGENT_STATE_DIR=str(place.directory / "state"),
        VM_AGENT_APPLICATIONINSIGHTS_CONNECTION_STRING=server.connection_string,
    )

    def subjects() -> set[str]:
        return {one.subject for one in decode_report(agent.ask("/health")[2].decode()).findings}

    until(lambda: "spool" in subjects())
    assert server.requests
    assert agent.log().count("telemetry cannot be spooled") == 1


def test_the_last_metrics_are_sent_when_the_agent_ends(place: Site, server: Playback) -> None:
    agent = place.run_agent(
        **BASE,
        VM_AGENT_STATE_DIR=str(place.directory / "state"),
        VM_AGENT_APPLICATIONINSIGHTS_CONNECTION_STRING=server.connection_string,
    )
    until(lambda: json.loads(agent.ask("/metrics")[2])["agent"]["samples"] >= 3)
    assert agent.terminate() < 3
    items = [item["data"]["baseData"] for request in server.requests for item in request.items()]
    metrics = {item["metrics"][0]["name"]: item["metrics"][0] for item in items if "metrics" in item}
    assert metrics["health.service_active"]["count"] >= 3
    assert metrics["health.service_active"]["value"] == metrics["health.service_active"]["count"]
    assert not list((place.directory / "state" / "spool").iterdir())


def test_install_into_an_image_twice(place: Site, tmp_path: Path) -> None:
    """Files as they must be; the second time nothing is touched, and a changed allow-list only grows."""
    root = tmp_path / "image"
    root.mkdir()
    os.umask(0o077)
    try:
        done = place.command("install", "--units", "web,db", "--root", str(root), "--restart")
    finally:
        os.umask(0o022)
    assert (done.returncode, done.stderr) == (0, "")
    assert "left out   systemctl daemon-reload" in done.stdout
    unit = root / "etc/systemd/system/vm-agent.service"
    assert unit.read_text() == (ROOT / "deploy/systemd/vm-agent.service").read_text()
    settings = root / "etc/vm-agent/agent.toml"
    assert tomllib.loads(settings.read_text())["units"] == ["web.service", "db.service"]
    modes = {path: (root / path).stat().st_mode & 0o777 for path in ("etc", "etc/vm-agent/allow-units")}
    assert modes == {"etc": 0o755, "etc/vm-agent/allow-units": 0o644}
    assert settings.stat().st_mode & 0o777 == 0o640
    settings.write_text("units = []\n")
    allow_list = root / "etc/vm-agent/allow-units"
    allow_list.write_text("# ours\nold.service\n")
    done = place.command("install", "--units", "web", "--root", str(root))
    assert settings.read_text() == "units = []\n"
    assert allow_list.read_text() == "# ours\nold.service\nweb.service\n"
    done = place.command("install", "--units", "web", "--root", str(root))
    words = {line.split()[0] for line in done.stdout.splitlines()}
    assert words == {"unchanged", "kept", "left"}
    assert f"kept       {settings}" in done.stdout


def test_a_dry_run_tells_and_does_nothing(place: Site, tmp_path: Path) -> None:
    root = tmp_path / "image"
    root.mkdir()
    done = place.command("install", "--units", "web", "--root", str(root), "--dry-run")
    assert done.returncode == 0
    assert "would write" in done.stdout
    assert "would run  systemctl enable" in done.stdout
    assert list(root.iterdir()) == []
