"""Evidence to verdict: the design's table row by row, then what the table leaves to clocks and freshness."""

from __future__ import annotations

import pytest

from tests.builders import (
    NO_PROBE,
    NOW,
    UNREACHABLE,
    a_report,
    a_snapshot,
    a_unit,
    answers,
    evidence,
)
from vm_health.model import Cause, Evidence, PowerState, ProbeResult, Snapshot, Status
from vm_health.policy import Policy
from vm_health.verdict import Verdict, judge

POLICY = Policy()
MAX_AGE = POLICY.snapshot_max_age_seconds
FINE = a_snapshot(age=30)
FRESH_DOWN = a_snapshot(a_report(down="web.service"), age=30)
STALE = a_snapshot(age=MAX_AGE + 60)
STALE_DOWN = a_snapshot(a_report(down="web.service"), age=MAX_AGE + 60)
WARNS = a_report(disk=85)
DOWN = a_report(down="web.service")
RUNNING = PowerState.RUNNING


def verdict_on(found: Evidence, policy: Policy = POLICY) -> Verdict:
    return judge(found, policy, NOW)


Row = tuple[str, PowerState, Snapshot | None, ProbeResult, Status, Cause]
TABLE: list[Row] = [
    ("running, fresh and fine, 200", RUNNING, FINE, answers(), Status.HEALTHY, Cause.OK),
    ("running, fresh and fine, no probe", RUNNING, FINE, NO_PROBE, Status.HEALTHY, Cause.OK),
    (
        "running, fresh with warnings, 200",
        RUNNING,
        a_snapshot(WARNS),
        answers(WARNS),
        Status.WARNING,
        Cause.DISK_USAGE,
    ),
    (
        "running, fresh with warnings, no probe",
        RUNNING,
        a_snapshot(WARNS),
        NO_PROBE,
        Status.WARNING,
        Cause.DISK_USAGE,
    ),
    (
        "running, fresh and fine, 503 unit down",
        RUNNING,
        FINE,
        answers(DOWN),
        Status.CRITICAL,
        Cause.SERVICE_DOWN,
    ),
    ("running, stale, 503 unit down", RUNNING, STALE, answers(DOWN), Status.CRITICAL, Cause.SERVICE_DOWN),
    ("running, never, 503 unit down", RUNNING, None, answers(DOWN), Status.CRITICAL, Cause.SERVICE_DOWN),
    (
        "running, fresh unit down, unreachable",
        RUNNING,
        FRESH_DOWN,
        UNREACHABLE,
        Status.CRITICAL,
        Cause.SERVICE_DOWN,
    ),
    (
        "running, fresh unit down, no probe",
        RUNNING,
        FRESH_DOWN,
        NO_PROBE,
        Status.CRITICAL,
        Cause.SERVICE_DOWN,
    ),
    (
        "running, fresh and fine, unreachable",
        RUNNING,
        FINE,
        UNREACHABLE,
        Status.WARNING,
        Cause.ENDPOINT_UNREACHABLE,
    ),
    ("running, stale, 200", RUNNING, STALE, answers(), Status.WARNING, Cause.TELEMETRY_DELAYED),
    ("running, never, 200", RUNNING, None, answers(), Status.WARNING, Cause.TELEMETRY_DELAYED),
    ("running, stale, unreachable", RUNNING, STALE, UNREACHABLE, Status.CRITICAL, Cause.VM_SILENT),
    (
        "running, stale unit down, unreachable",
        RUNNING,
        STALE_DOWN,
        UNREACHABLE,
        Status.CRITICAL,
        Cause.VM_SILENT,
    ),
    ("running, never, unreachable", RUNNING, None, UNREACHABLE, Status.CRITICAL, Cause.VM_SILENT),
    ("running, stale, no probe", RUNNING, STALE, NO_PROBE, Status.UNKNOWN, Cause.NO_SECOND_WITNESS),
    (
        "running, stale unit down, no probe",
        RUNNING,
        STALE_DOWN,
        NO_PROBE,
        Status.UNKNOWN,
        Cause.NO_SECOND_WITNESS,
    ),
    ("running, never, no probe", RUNNING, None, NO_PROBE, Status.UNKNOWN, Cause.NO_SECOND_WITNESS),
]
OTHER_POWERS = [
    (PowerState.STOPPED, Status.STOPPED, Cause.POWERED_OFF),
    (PowerState.DEALLOCATED, Status.STOPPED, Cause.POWERED_OFF),
    (PowerState.CREATING, Status.MAINTENANCE, Cause.POWER_CHANGING),
    (PowerState.STARTING, Status.MAINTENANCE, Cause.POWER_CHANGING),
    (PowerState.STOPPING, Status.MAINTENANCE, Cause.POWER_CHANGING),
    (PowerState.DEALLOCATING, Status.MAINTENANCE, Cause.POWER_CHANGING),
    (PowerState.UNKNOWN, Status.UNKNOWN, Cause.POWER_UNKNOWN),
]


@pytest.mark.parametrize(
    ("power", "snapshot", "probe", "status", "cause"),
    [row[1:] for row in TABLE],
    ids=[row[0] for row in TABLE],
)
def test_running(
    power: PowerState, snapshot: Snapshot | None, probe: ProbeResult, status: Status, cause: Cause
) -> None:
    verdict = verdict_on(evidence(power, probe, snapshot))
    assert (verdict.status, verdict.cause) == (status, cause)
    assert verdict.reason


@pytest.mark.parametrize("snapshot", [None, FINE, FRESH_DOWN, STALE], ids=["never", "fine", "down", "stale"])
@pytest.mark.parametrize(
    "probe", [NO_PROBE, answers(), answers(DOWN), UNREACHABLE], ids=["none", "200", "503", "dead"]
)
@pytest.mark.parametrize(("power", "status", "cause"), OTHER_POWERS)
def test_not_running_whatever_else_is_seen(
    power: PowerState, status: Status, cause: Cause, snapshot: Snapshot | None, probe: ProbeResult
) -> None:
    verdict = verdict_on(evidence(power, probe, snapshot))
    assert (verdict.status, verdict.cause) == (status, cause)
    assert verdict.observation is None
    assert not verdict.subjects


def test_every_power_state_has_a_row() -> None:
    assert {power for power, _, _ in OTHER_POWERS} | {RUNNING} == set(PowerState)


@pytest.mark.parametrize(("age", "status"), [(MAX_AGE, Status.HEALTHY), (MAX_AGE + 1, Status.UNKNOWN)])
def test_a_snapshot_is_stale_past_its_age(age: float, status: Status) -> None:
    assert verdict_on(evidence(snapshot=a_snapshot(age=age))).status is status


@pytest.mark.parametrize(
    ("probe", "status", "cause"),
    [
        (NO_PROBE, Status.UNKNOWN, Cause.TELEMETRY_UNAVAILABLE),
        (UNREACHABLE, Status.UNKNOWN, Cause.TELEMETRY_UNAVAILABLE),
        (answers(a_report(age=MAX_AGE + 1)), Status.UNKNOWN, Cause.TELEMETRY_UNAVAILABLE),
        (answers(), Status.HEALTHY, Cause.OK),
        (answers(DOWN), Status.CRITICAL, Cause.SERVICE_DOWN),
    ],
    ids=["no probe", "unreachable", "stale sample", "200", "503 unit down"],
)
def test_a_failed_query_is_never_taken_for_silence(probe: ProbeResult, status: Status, cause: Cause) -> None:
    verdict = verdict_on(evidence(probe=probe, telemetry=False))
    assert (verdict.status, verdict.cause) == (status, cause)


def test_an_endpoint_that_serves_an_old_sample_is_no_witness() -> None:
    """A hung sampler behind a live endpoint: neither silent nor fine."""
    stuck = answers(a_report(age=MAX_AGE + 1))
    verdict = verdict_on(evidence(probe=stuck, snapshot=STALE))
    assert (verdict.status, verdict.cause) == (Status.WARNING, Cause.SAMPLE_STALE)
    assert verdict.observation is None
    stuck_and_down = answers(a_report(down="web.service", age=MAX_AGE + 1))
    assert verdict_on(evidence(probe=stuck_and_down)).cause is Cause.SAMPLE_STALE


@pytest.mark.parametrize(
    ("snapshot_age", "sample_age", "source", "status"),
    [(60, 0, "endpoint", Status.HEALTHY), (60, 120, "telemetry", Status.CRITICAL)],
)
def test_the_newest_report_wins(snapshot_age: float, sample_age: float, source: str, status: Status) -> None:
    """The endpoint says up, the snapshot says down: whoever looked last is right."""
    found = evidence(
        probe=answers(a_report(age=sample_age)),
        snapshot=a_snapshot(a_report(down="web.service"), age=snapshot_age),
    )
    verdict = verdict_on(found)
    assert verdict.status is status
    assert verdict.observation is not None
    assert verdict.observation.source == source


def test_a_clock_that_runs_ahead_does_not_keep_old_news_young() -> None:
    """Taken "in an hour" but received ten minutes ago: ten minutes old."""
    ahead = a_snapshot(a_report(down="web.service"), age=-3_600, received_age=600)
    assert verdict_on(evidence(snapshot=ahead)).cause is Cause.NO_SECOND_WITNESS


def test_a_clock_that_runs_ahead_hides_no_fresh_news() -> None:
    ahead = a_snapshot(a_report(down="web.service"), age=-3_600, received_age=10)
    verdict = verdict_on(evidence(snapshot=ahead))
    assert verdict.cause is Cause.SERVICE_DOWN
    assert verdict.observation is not None
    assert (NOW - verdict.observation.observed_at).total_seconds() == 10


def test_a_moment_in_the_future_counts_as_now() -> None:
    future = a_snapshot(age=-30, received_age=-20)
    verdict = verdict_on(evidence(snapshot=future))
    assert verdict.observation is not None
    assert verdict.observation.observed_at == NOW


def test_a_clock_that_runs_behind_makes_telemetry_old_and_nothing_worse() -> None:
    behind = a_snapshot(a_report(down="web.service"), age=3_600, received_age=10)
    assert verdict_on(evidence(snapshot=behind)).status is Status.UNKNOWN
    assert verdict_on(evidence(snapshot=behind, probe=answers())).cause is Cause.TELEMETRY_DELAYED


def test_two_units_down_are_both_named() -> None:
    both = a_report(down=["web.service", "db.service"], disk=95)
    verdict = verdict_on(evidence(probe=answers(both)))
    assert verdict.cause is Cause.SERVICE_DOWN
    assert verdict.subjects == ("web.service", "db.service")
    assert "web.service is down" in verdict.reason
    assert "db.service is down" in verdict.reason


def test_a_long_list_is_cut_and_says_so() -> None:
    units = [a_unit(f"u{number}.service", down=True) for number in range(8)]
    verdict = verdict_on(evidence(probe=answers(a_report(units=units))))
    assert len(verdict.subjects) == 8
    assert "and 3 more" in verdict.reason


def test_the_watchdogs_own_limits_judge_the_sample_not_the_agents_findings() -> None:
    report = a_report(disk=85)
    generous = Policy(thresholds=POLICY.thresholds.__class__(disk_warning_percent=86))
    assert judge(evidence(probe=answers(report), snapshot=FINE), generous, NOW).status is Status.HEALTHY


def test_only_what_a_vm_says_of_its_units_needs_no_second_look() -> None:
    assert verdict_on(evidence(probe=answers(DOWN))).self_reported
    assert not verdict_on(evidence(probe=answers(a_report(disk=95)))).self_reported
    assert not verdict_on(evidence(probe=UNREACHABLE, snapshot=STALE)).self_reported


def test_the_reason_says_who_saw_it_and_how_old_it_is() -> None:
    assert verdict_on(evidence(snapshot=FRESH_DOWN)).reason.endswith("(seen by telemetry)")
    assert "telemetry is 360 s old" in verdict_on(evidence(snapshot=STALE, probe=UNREACHABLE)).reason
    assert "connection refused" in verdict_on(evidence(snapshot=STALE, probe=UNREACHABLE)).reason
    assert "no telemetry arrived" in verdict_on(evidence()).reason
