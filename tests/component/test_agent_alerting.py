"""Alerts from the VM against a real server: sent at least once, whatever fails or is restarted in between."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.component.agent_site import Playback, Reply, Site, shown, until
from tests.unit.agent_builders import NOW, a_down_unit, a_report, a_unit
from vm_agent.alerting import Alerter
from vm_alerts.channels.webhook import Webhook
from vm_health.backoff import BackoffPolicy
from vm_health.model import DeployLock, HealthReport
from vm_health.rules import Thresholds

pytest_plugins = ["tests.component.agent_fixtures"]
BEGAN = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
FINE, DOWN = a_report(), a_report(a_down_unit())


class Bench:
    """An alerter without its thread, on a clock that the test moves."""

    def __init__(self, server: Playback, directory: Path) -> None:
        self._server, self._directory = server, directory
        self.seconds = 0.0
        self.alerter = self.new_alerter()

    @property
    def now(self) -> datetime:
        return BEGAN + timedelta(seconds=self.seconds)

    def new_alerter(self, *names: str) -> Alerter:
        return Alerter(
            str(self._directory),
            [Webhook(f"{self._server.url}/{name}/s3cret", name) for name in names or ("webhook",)],
            Thresholds(),
            retries=BackoffPolicy((5.0, 10.0)),
            now=lambda: self.now,
            monotonic=lambda: self.seconds,
        )

    def restart(self) -> None:
        """The process dies and another one starts."""
        self.alerter._lock.release()
        self.alerter = self.new_alerter()

    def look(self, report: HealthReport, **more: Any) -> None:
        self.seconds += 15
        seen = replace(report, sample=replace(report.sample, taken_at=self.now))
        self.alerter.consider(seen, self.now, **more)

    def told(self) -> list[str]:
        """The kinds of what the server was sent and took."""
        return [json.loads(request.body)["kind"] for request in self._server.requests]


@pytest.fixture
def bench(server: Playback, tmp_path: Path) -> Bench:
    return Bench(server, tmp_path / "state")


def test_fired_given_up_and_resolved_in_the_webhooks_words(bench: Bench, server: Playback) -> None:
    bench.look(FINE)
    bench.look(DOWN)
    bench.look(DOWN, gave_up=("web.service",), attempts=6)
    bench.look(FINE)
    bench.look(FINE)
    assert bench.alerter.send_due() is None
    assert bench.told() == ["fired", "gave_up", "resolved"]
    bodies = [json.loads(request.body) for request in server.requests]
    assert bodies[0]["title"] == "CRITICAL: web.service on vm1"
    assert bodies[1]["title"] == "PEOPLE NEEDED: web.service on vm1 is still down after 6 attempts"
    assert bodies[2]["title"].startswith("RESOLVED: web.service on vm1 after ")
    assert len({body["incident_id"] for body in bodies}) == 1
    assert [request.headers["x-watchdog-key"] for request in server.requests] == [
        body["key"] for body in bodies
    ]
    assert bench.alerter.counts == (3, 0)


def test_during_a_deployment_nobody_is_called(bench: Bench) -> None:
    """What is still wrong behind the lock is told then; what it had told before stays open meanwhile."""

    def locked(report: HealthReport) -> HealthReport:
        lock = DeployLock(bench.now + timedelta(minutes=5), "release 1.2")
        return replace(report, sample=replace(report.sample, deploy_lock=lock))

    bench.look(FINE)
    for report in (DOWN, DOWN, DOWN, FINE, DOWN):
        bench.look(locked(report))
    assert bench.alerter.send_due() is None
    assert bench.told() == []
    for _ in range(2):
        bench.look(DOWN)
    bench.alerter.send_due()
    assert bench.told() == ["fired"]
    for report in (FINE, FINE, FINE):
        bench.look(locked(report))
    bench.alerter.send_due()
    assert bench.told() == ["fired"]
    for _ in range(2):
        bench.look(FINE)
    bench.alerter.send_due()
    assert bench.told() == ["fired", "resolved"]


def test_a_unit_that_is_starting_calls_nobody(bench: Bench) -> None:
    began = a_unit(active_state="activating", sub_state="start", started_at=NOW)
    for _ in range(4):
        bench.look(a_report(began))
    bench.alerter.send_due()
    assert bench.told() == []


def test_what_was_not_taken_is_sent_after_a_restart_and_nothing_else(bench: Bench, server: Playback) -> None:
    server.default = lambda request: Reply(503)
    bench.look(DOWN)
    assert bench.alerter.send_due() == 5.0
    server.requests.clear()
    server.default = lambda request: Reply()
    bench.restart()
    bench.look(DOWN)  # nothing new: but what an earlier process owes is known again
    assert bench.alerter.send_due() is None
    assert bench.told() == ["fired"]
    bench.restart()
    bench.look(DOWN)
    bench.alerter.send_due()
    assert bench.told() == ["fired"]


def test_an_incident_is_resolved_by_a_process_that_did_not_open_it(bench: Bench) -> None:
    bench.look(DOWN)
    bench.alerter.send_due()
    bench.restart()
    bench.look(FINE)
    bench.restart()
    bench.look(FINE)
    bench.alerter.send_due()
    assert bench.told() == ["fired", "resolved"]


def test_retry_after_outweighs_our_own_wait_and_order_is_kept(bench: Bench, server: Playback) -> None:
    server.replies = [Reply(429, headers={"Retry-After": "120"})]
    bench.look(DOWN)
    assert bench.alerter.send_due() == 120.0
    bench.look(FINE)
    bench.look(FINE)
    assert bench.alerter.send_due() == 90.0
    assert len(server.requests) == 1
    bench.seconds += 90
    assert bench.alerter.send_due() is None
    assert bench.told() == ["fired", "fired", "resolved"]


def test_a_channel_that_is_down_holds_up_no_other(bench: Bench, server: Playback) -> None:
    server.default = lambda request: Reply(500 if request.path.startswith("/bad/") else 200)
    bench.alerter = bench.new_alerter("bad", "good")
    bench.look(DOWN)
    assert bench.alerter.send_due() == 5.0
    assert [request.path.split("/")[1] for request in server.requests] == ["bad", "good"]
    assert bench.alerter.counts == (1, 1)


def test_a_notice_that_is_refused_for_good_steps_back_and_is_given_up_after_a_day(
    bench: Bench, server: Playback
) -> None:
    server.default = lambda request: Reply(400 if b'"kind":"fired"' in request.body else 200)
    bench.look(DOWN)
    bench.look(FINE)
    bench.look(FINE)
    bench.alerter.send_due()
    bench.seconds += 10
    bench.alerter.send_due()
    assert bench.told() == ["fired", "resolved", "fired"]
    bench.seconds += 24 * 3600
    assert bench.alerter.send_due() is None
    assert bench.alerter.counts == (1, 0)


def test_a_redirect_is_not_followed(bench: Bench, server: Playback) -> None:
    server.replies = [Reply(307, headers={"Location": f"{server.url}/elsewhere"})]
    bench.look(DOWN)
    bench.alerter.send_due()
    assert [request.path for request in server.requests] == ["/webhook/s3cret"]


@pytest.mark.parametrize("content", ["", "{", '{"schema": 9}', '{"schema": 1, "state": "{", "unsent": []}'])
def test_a_damaged_file_costs_what_was_in_it_and_no_more(bench: Bench, tmp_path: Path, content: str) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "alerts.json").write_text(content)
    bench.look(DOWN)
    bench.alerter.send_due()
    assert bench.told() == ["fired"]


def test_without_a_directory_alerts_go_out_and_the_report_says_what_is_wrong(
    server: Playback, tmp_path: Path
) -> None:
    (tmp_path / "state").write_text("no directory")
    bench = Bench(server, tmp_path / "state")
    bench.look(DOWN)
    bench.alerter.send_due()
    assert bench.told() == ["fired"]
    (failure,) = bench.alerter.failures()
    assert (failure.collector, "do not survive a restart" in failure.message) == ("alerts", True)


def test_of_two_that_follow_one_vm_one_sends(bench: Bench) -> None:
    bench.look(FINE)
    other = bench.new_alerter()
    other.consider(DOWN, bench.now)
    assert other.send_due() is None
    assert bench.told() == []


def test_a_warning_whose_number_moves_writes_nothing(bench: Bench, tmp_path: Path) -> None:
    for percent in (85.0, 85.1, 85.2):
        bench.look(a_report(disk_percent=percent))
    before = (tmp_path / "state" / "alerts.json").stat().st_mtime_ns
    bench.look(a_report(disk_percent=85.3))
    assert (tmp_path / "state" / "alerts.json").stat().st_mtime_ns == before


def settings(place: Site, server: Playback) -> dict[str, str]:
    return {
        "VM_AGENT_UNITS": "web",
        "VM_AGENT_UNIT_SOURCE": "systemctl",
        "VM_AGENT_JOURNAL": "off",
        "VM_AGENT_STATE_DIR": str(place.directory / "state"),
        "VM_AGENT_ALERT_WEBHOOK_URL": f"{server.url}/hook/s3cret",
    }


def test_check_alert_remembers_between_looks(place: Site, server: Playback) -> None:
    given = settings(place, server)
    place.systemd_says(shown("failed/failed", 0))
    for _ in range(2):
        done = place.command("check", "--alert", **given)
        assert (done.returncode, "s3cret" in done.stderr) == (2, False)
    place.systemd_says(shown())
    for _ in range(2):
        assert place.command("check", "--alert", **given).returncode == 0
    kinds = [json.loads(request.body)["kind"] for request in server.requests]
    assert kinds == ["fired", "resolved"]


def test_the_running_agent_sends_alerts_without_telling_the_secret(place: Site, server: Playback) -> None:
    server.replies = [Reply(500, headers={"Retry-After": "0"})]
    agent = place.run_agent(**settings(place, server), VM_AGENT_ALERT="on")
    place.systemd_says(shown("failed/failed", 0))
    until(lambda: "alert waits" in agent.log())
    agent.terminate()
    again = place.run_agent(**settings(place, server), VM_AGENT_ALERT="on")
    until(lambda: "alert sent" in again.log())
    assert len({json.loads(request.body)["key"] for request in server.requests}) == 1
    assert "s3cret" not in agent.log() + again.log()


def test_alerts_without_a_channel_are_a_fault_of_the_settings(place: Site) -> None:
    done = place.command("check", "--alert")
    assert done.returncode == 3
    assert "VM_AGENT_ALERT_WEBHOOK_URL must be set for alerts" in done.stderr
    done = place.command("check", VM_AGENT_ALERT_WEBHOOK_URL="http://example.com/s3cret")
    assert "VM_AGENT_ALERT_WEBHOOK_URL must be an https URL" in done.stderr
    assert "s3cret" not in done.stderr
