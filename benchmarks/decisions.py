"""What a decision costs: the pure core alone, on one core, without any I/O."""

from __future__ import annotations

import timeit
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.large_fleet import StillVm, report_of
from benchmarks.options import Options
from vm_health.machine import step
from vm_health.model import Evidence, HealthReport, PowerState, ProbeOutcome, ProbeResult, Snapshot, Status
from vm_health.policy import Policy
from vm_health.state import VmState

_LOOKS = 20_000
_GOAL_MICROSECONDS = 20.0  # 50,000 decisions a second


def measure(options: Options) -> list[Figure]:
    """Time a VM that is fine and stays so, and one that is down and waits for its next attempt."""
    now = datetime.now(UTC)
    fine = report_of(StillVm(1), 8080)
    units = (replace(fine.sample.units[0], active_state="failed", sub_state="failed"), *fine.sample.units[1:])
    down = replace(fine, status=Status.CRITICAL, sample=replace(fine.sample, units=units))
    figures = []
    for what, report, goal in (
        ("decision on a healthy VM", fine, _GOAL_MICROSECONDS),
        ("decision on a VM whose unit is down", down, None),
    ):
        values = tuple(_time(report, now) for _ in range(options.repeat_or(5)))
        rate = 1e6 / sorted(values)[len(values) // 2]
        note = f"{rate:,.0f} a second; a bare function call beside it: {_bare():.2f} µs"
        figures.append(Figure(what, "µs", values, goal, note))
    return figures


def _time(report: HealthReport, now: datetime) -> float:
    report = replace(report, sample=replace(report.sample, taken_at=now - timedelta(seconds=1)))
    probe = ProbeResult(ProbeOutcome.OK, "/health answered 200", report)
    snapshot = Snapshot(report, now - timedelta(seconds=20), now - timedelta(seconds=15))
    evidence = Evidence(report.vm_id, PowerState.RUNNING, snapshot, True, probe)
    policy, state = Policy(), VmState()
    for _ in range(25):  # until nothing changes any more
        state = replace(step(state, evidence, policy, now).state, outbox=())
    assert step(state, evidence, policy, now).state == state
    return timeit.timeit(lambda: step(state, evidence, policy, now), number=_LOOKS) / _LOOKS * 1e6


def _bare() -> float:
    def nothing(path: Path, policy: object, now: object, hold: object = None) -> object:
        return path

    here = Path()
    return timeit.timeit(lambda: nothing(here, None, None), number=200_000) / 200_000 * 1e6
