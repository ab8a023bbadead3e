"""The running agent: a real process, asked over real sockets."""

from __future__ import annotations

import json

from tests.component.agent_site import VM_ID, Playback, Reply, Site, shown, until
from vm_health.model import Cause, Status
from vm_health.wire import decode_report

pytest_plugins = ["tests.component.agent_fixtures"]


def test_health_follows_the_unit_and_sigterm_ends_it_at_once(place: Site) -> None:
    agent = place.run_agent()
    until(lambda: agent.ask("/health")[0] == 200)
    status, headers, body = agent.ask("/health")
    report = decode_report(body.decode())
    assert (status, report.status, report.vm_id) == (200, Status.HEALTHY, VM_ID)
    assert report.endpoint == f"http://127.0.0.1:{agent.port}"
    assert (headers["cache-control"], headers["server"]) == ("no-store", "vm-agent")
    assert int(headers["content-length"]) == len(body)
    place.systemd_says(shown("failed/failed", 0))
    until(lambda: agent.ask("/health")[0] == 503)
    report = decode_report(agent.ask("/health")[2].decode())
    assert report.findings[0].code is Cause.SERVICE_DOWN
    assert report.age_seconds < 5
    assert agent.terminate() < 1.0
    assert agent.process.returncode == 0
    assert "status=CRITICAL reason='web.service is down (failed/failed)'" in agent.log()


def test_other_paths_and_methods(place: Site) -> None:
    agent = place.run_agent()
    until(lambda: agent.ask("/health")[0] == 200)
    status, headers, body = agent.ask("/health", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 100
    assert agent.ask("/health?strict=0")[0] == 200
    assert json.loads(agent.ask("/metrics")[2])["agent"]["samples"] >= 1
    assert b"web.service  active/running" in agent.ask("/")[2]
    assert agent.ask("/nope")[0] == 404
    status, headers, _ = agent.ask("/health", "POST")
    assert (status, headers["allow"]) == (405, "GET, HEAD")


def test_a_stuck_systemd_neither_blocks_the_endpoint_nor_the_end(place: Site) -> None:
    (place.directory / "hang").touch()
    agent = place.run_agent()
    until(place.calls)
    status, _, body = agent.ask("/health")
    report = decode_report(body.decode())
    assert (status, report.status) == (503, Status.UNKNOWN)
    assert [finding.code for finding in report.findings] == [Cause.SAMPLE_STALE]
    assert agent.terminate() < 1.0


def test_a_taken_port_is_named_with_its_setting(place: Site) -> None:
    agent = place.run_agent()
    done = place.command("run", VM_AGENT_LISTEN_ADDRESS="127.0.0.1", VM_AGENT_LISTEN_PORT=str(agent.port))
    assert done.returncode == 3
    assert f"VM_AGENT_LISTEN_PORT must be a free port, was {agent.port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_telemetry_is_sent_at_once_on_a_change_and_no_secret_is_logged(place: Site, server: Playback) -> None:
    agent = place.run_agent(
        VM_AGENT_APPLICATIONINSIGHTS_CONNECTION_STRING=server.connection_string,
        VM_AGENT_NUDGE_URL=f"{server.url}/api/nudge",
        VM_AGENT_NUDGE_KEY="hunter2",
        VM_AGENT_REPORT_INTERVAL_SECONDS="3600",
    )
    until(lambda: server.requests)
    first = server.requests[0]
    assert first.path == "/v2.1/track"
    event = first.items()[0]["data"]["baseData"]
    assert decode_report(event["properties"]["report"]).status is Status.HEALTHY
    place.systemd_says(shown("failed/failed", 0))
    until(lambda: len(server.requests) >= 3)
    nudges = [request for request in server.requests if request.path == "/api/nudge"]
    assert [json.loads(nudge.body) for nudge in nudges] == [{"vm_id": VM_ID}]
    assert nudges[0].headers["x-functions-key"] == "hunter2"
    assert "authorization" not in first.headers
    assert server.connection_string not in agent.log()
    assert "hunter2" not in agent.log()
    assert "00000009" not in agent.log()


def test_a_nudge_follows_no_redirect(place: Site, server: Playback) -> None:
    server.default = lambda request: Reply(307, headers={"Location": f"{server.url}/elsewhere"})
    agent = place.run_agent(VM_AGENT_NUDGE_URL=f"{server.url}/api/nudge", VM_AGENT_NUDGE_KEY="hunter2")
    until(lambda: "status=HEALTHY" in agent.log())
    place.systemd_says(shown("failed/failed", 0))
    until(lambda: "could not be nudged" in agent.log())
    assert [request.path for request in server.requests] == ["/api/nudge"]


def test_vm_id_is_asked_in_the_background_until_it_is_known(place: Site, server: Playback) -> None:
    server.replies = [Reply(503), Reply(200, {"resourceId": VM_ID.upper()})]
    agent = place.run_agent(VM_AGENT_VM_ID="", VM_AGENT_IMDS_URL=server.url)
    until(lambda: agent.ask("/health")[0] == 200)
    until(lambda: decode_report(agent.ask("/health")[2].decode()).vm_id == VM_ID)
    assert server.requests[0].path == "/metadata/instance/compute?api-version=2021-02-01"
    assert server.requests[0].headers["metadata"] == "true"
