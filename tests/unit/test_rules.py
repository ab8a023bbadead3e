"""Rules: what counts as a finding, to the last decimal of every limit."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from tests.builders import NOW, a_sample, a_unit, at
from vm_health.model import (
    Cause,
    CollectorFailure,
    DiskSample,
    Finding,
    GitSample,
    HeartbeatSample,
    LogSample,
    Sample,
    Status,
    SystemSample,
    UnitSample,
)
from vm_health.rules import Thresholds, evaluate, is_starting, overall, threshold_faults

LIMITS = Thresholds()


def found(sample: Sample, limits: Thresholds = LIMITS) -> list[tuple[Cause, Status]]:
    return [(finding.code, finding.status) for finding in evaluate(sample, limits)]


def test_a_healthy_sample_has_no_finding() -> None:
    assert evaluate(a_sample(), LIMITS) == ()
    assert overall(()) is Status.HEALTHY


DISK_WARNING = (Cause.DISK_USAGE, Status.WARNING)
DISK_CRITICAL = (Cause.DISK_USAGE, Status.CRITICAL)
MEMORY = (Cause.MEMORY_USAGE, Status.WARNING)
STALE = (Cause.HEARTBEAT_STALE, Status.WARNING)


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ({"disk": 79.99}, []),
        ({"disk": 80.0}, []),
        ({"disk": 80.01}, [DISK_WARNING]),
        ({"disk": 90.0}, [DISK_WARNING]),
        ({"disk": 90.01}, [DISK_CRITICAL]),
        ({"disk": 100.0}, [DISK_CRITICAL]),
        ({"memory": 89.99}, []),
        ({"memory": 90.0}, []),
        ({"memory": 90.01}, [MEMORY]),
        ({"memory": None}, []),
        ({"heartbeat_age": 299.9}, []),
        ({"heartbeat_age": 300.0}, []),
        ({"heartbeat_age": 300.1}, [STALE]),
        ({"heartbeat_age": -3600.0}, []),
        ({"heartbeat_age": None}, [(Cause.HEARTBEAT_MISSING, Status.WARNING)]),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_limits_at_under_and_over(what: dict[str, Any], expected: list[tuple[Cause, Status]]) -> None:
    assert found(a_sample(**what)) == expected


@pytest.mark.parametrize(
    ("restarts", "expected"), [(4, []), (5, []), (6, [(Cause.CRASH_LOOP, Status.WARNING)])]
)
def test_crash_loop_is_more_than_five_restarts(restarts: int, expected: list[tuple[Cause, Status]]) -> None:
    assert found(a_sample(units=[a_unit(recent_restarts=restarts)])) == expected


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        (None, []),
        (80.0, []),
        (80.01, [(Cause.INODE_USAGE, Status.WARNING)]),
        (90.0, [(Cause.INODE_USAGE, Status.WARNING)]),
        (90.01, [(Cause.INODE_USAGE, Status.CRITICAL)]),
    ],
)
def test_inodes_have_the_limits_of_disks(used: float | None, expected: list[tuple[Cause, Status]]) -> None:
    sample = replace(a_sample(), disks=(DiskSample("/", 1, 1, 10.0, used),))
    assert found(sample) == expected


@pytest.mark.parametrize(
    ("errors", "limit", "warns"), [(0, 0, False), (1, 0, True), (3, 3, False), (4, 3, True)]
)
def test_recent_errors_in_a_log(errors: int, limit: int, warns: bool) -> None:
    sample = replace(a_sample(), logs=(LogSample("web.service", errors, "boom"),))
    findings = evaluate(sample, Thresholds(log_errors=limit))
    assert [(finding.code, finding.status) for finding in findings] == [
        (Cause.LOG_ERRORS, Status.WARNING)
    ] * warns
    assert all(finding.message.endswith("in the log of web.service, the last: boom") for finding in findings)


@pytest.mark.parametrize(
    ("checkout", "text"),
    [
        (GitSample("/srv/app", "abc", "main"), None),
        (GitSample("/srv/app", is_dirty=True), "checkout /srv/app has local changes"),
        (GitSample("/srv/app", behind=3), "checkout /srv/app is 3 commits behind its upstream"),
        (
            GitSample("/srv/app", is_dirty=True, behind=3),
            "checkout /srv/app has local changes and is 3 commits behind its upstream",
        ),
        (GitSample("/srv/app", problem="is no repository"), "checkout /srv/app is no repository"),
    ],
)
def test_checkouts(checkout: GitSample, text: str | None) -> None:
    findings = evaluate(replace(a_sample(), checkouts=(checkout,)), LIMITS)
    assert [finding.message for finding in findings] == ([] if text is None else [text])
    assert all(finding.code is Cause.GIT_OUT_OF_SYNC for finding in findings)


@pytest.mark.parametrize(("synchronized", "warns"), [(True, False), (None, False), (False, True)])
def test_the_clock(synchronized: bool | None, warns: bool) -> None:
    sample = replace(a_sample(), system=SystemSample(clock_synchronized=synchronized))
    assert found(sample) == [(Cause.CLOCK_UNSYNCHRONIZED, Status.WARNING)] * warns


def test_every_limit_is_a_setting() -> None:
    limits = Thresholds(
        disk_warning_percent=10,
        disk_critical_percent=20,
        memory_warning_percent=10,
        crash_loop_restarts=1,
        heartbeat_max_age_seconds=1,
    )
    sample = a_sample(disk=15, memory=11, heartbeat_age=2, units=[a_unit(recent_restarts=2)])
    assert {code for code, _ in found(sample, limits)} == {
        Cause.DISK_USAGE,
        Cause.MEMORY_USAGE,
        Cause.CRASH_LOOP,
        Cause.HEARTBEAT_STALE,
    }


@pytest.mark.parametrize(
    ("active", "sub", "service_type", "is_up"),
    [
        ("active", "running", "simple", True),
        ("active", "running", "notify", True),
        ("active", "exited", "oneshot", True),
        ("active", "exited", "simple", False),
        ("active", "exited", "forking", False),
        ("active", "listening", "simple", True),
        ("active", "waiting", "simple", True),
        ("reloading", "reload", "notify", True),
        ("refreshing", "refresh", "simple", True),
        ("activating", "auto-restart", "simple", False),
        ("activating", "start", "notify", False),
        ("deactivating", "stop-sigterm", "simple", False),
        ("failed", "failed", "simple", False),
        ("inactive", "dead", "simple", False),
        ("inactive", "dead", "oneshot", False),
        ("maintenance", "cleaning", "simple", False),
        ("", "", "simple", False),
    ],
)
def test_unit_states_of_systemd(active: str, sub: str, service_type: str, is_up: bool) -> None:
    unit = UnitSample("web.service", "loaded", active, sub, service_type)
    assert found(a_sample(units=[unit])) == ([] if is_up else [(Cause.SERVICE_DOWN, Status.CRITICAL)])


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"load_state": "not-found", "active_state": "inactive", "sub_state": "dead"},
            "inactive/dead, not-found",
        ),
        ({"load_state": "masked", "active_state": "inactive", "sub_state": "dead"}, "inactive/dead, masked"),
        ({"result": "signal"}, "failed/failed, result signal"),
        ({"result": "success"}, "failed/failed"),
        (
            {"active_state": "activating", "sub_state": "auto-restart", "result": "exit-code"},
            "activating/auto-restart, result exit-code",
        ),
    ],
)
def test_a_unit_that_is_down_says_how(fields: dict[str, Any], text: str) -> None:
    (finding,) = evaluate(a_sample(units=[a_unit(down=True, **fields)]), LIMITS)
    assert finding.message == f"web.service is down ({text})"
    assert finding.subject == "web.service"


def a_starting_unit(started_at: datetime | None, sub_state: str = "start", **fields: Any) -> UnitSample:
    return a_unit(
        active_state="activating", sub_state=sub_state, main_pid=0, **{"started_at": started_at, **fields}
    )


STARTING = [(Cause.SERVICE_STARTING, Status.HEALTHY)]
DOWN = [(Cause.SERVICE_DOWN, Status.CRITICAL)]


@pytest.mark.parametrize(
    ("started_at", "sub_state", "expected"),
    [
        (at(0), "start", STARTING),
        (at(-12), "start-pre", STARTING),
        (at(-60), "start-post", STARTING),
        (at(-60.1), "start", DOWN),
        (at(-86_400), "start", DOWN),
        (at(2), "start", STARTING),  # begun while the VM was looked at
        (at(86_400), "start", STARTING),  # the clock was set back
        (None, "start", DOWN),  # nothing says that it has just begun
        (at(-1), "auto-restart", DOWN),  # crashed: systemd waits before it starts it again
        (at(-1), "auto-restart-queued", DOWN),
    ],
)
def test_a_unit_that_is_starting_is_down_only_after_the_grace(
    started_at: datetime | None, sub_state: str, expected: list[tuple[Cause, Status]]
) -> None:
    unit = a_starting_unit(started_at, sub_state)
    assert found(a_sample(units=[unit])) == expected
    assert is_starting(unit, NOW, LIMITS) is (expected == STARTING)


@pytest.mark.parametrize("state", ["failed/failed", "inactive/dead", "deactivating/stop", "active/exited"])
def test_only_activating_is_starting(state: str) -> None:
    active, _, sub = state.partition("/")
    assert found(a_sample(units=[a_unit(active_state=active, sub_state=sub, started_at=at(-1))])) == DOWN


def test_a_start_is_told_with_its_age_and_changes_no_status() -> None:
    findings = evaluate(a_sample(units=[a_starting_unit(at(-12))]), LIMITS)
    text = "web.service is starting (for 12 s, activating/start)"
    assert findings == (Finding(Cause.SERVICE_STARTING, Status.HEALTHY, "web.service", text, 12.0, 60.0),)
    assert overall(findings) is Status.HEALTHY
    ahead = evaluate(a_sample(units=[a_starting_unit(at(500))]), LIMITS)
    assert ahead[0].value == 0.0


def test_trouble_comes_before_what_is_only_starting() -> None:
    units = [a_starting_unit(at(-5), recent_restarts=6), a_unit("db.service", down=True)]
    findings = evaluate(a_sample(units=units, disk=85), LIMITS)
    assert [finding.code for finding in findings] == [
        Cause.SERVICE_DOWN,
        Cause.CRASH_LOOP,
        Cause.DISK_USAGE,
        Cause.SERVICE_STARTING,
    ]
    assert overall(findings) is Status.CRITICAL


def test_the_grace_is_a_setting_and_none_is_none() -> None:
    sample = a_sample(units=[a_starting_unit(at(-100))])
    assert found(sample, Thresholds(startup_grace_seconds=100)) == STARTING
    for started_at in (at(-1), at(0), at(1)):
        sample = a_sample(units=[a_starting_unit(started_at)])
        assert found(sample, Thresholds(startup_grace_seconds=0)) == DOWN


@pytest.mark.parametrize("age", [None, 3_600.0])
@pytest.mark.parametrize(
    ("fields", "is_judged"),
    [
        ({"active_since": at(-60)}, False),
        ({"active_since": at(-60.1)}, True),
        ({"active_since": at(30)}, False),
        ({"started_at": at(-60)}, False),
        ({"started_at": at(-61), "active_since": at(-59)}, False),
        (
            {"started_at": at(-59), "active_since": at(-86_400)},
            False,
        ),  # starts again and was never active yet
        ({"started_at": at(-61), "active_since": at(-61)}, True),
        ({}, True),
    ],
)
def test_a_heartbeat_is_not_judged_before_its_unit_could_beat(
    age: float | None, fields: dict[str, Any], is_judged: bool
) -> None:
    beat = HeartbeatSample("/run/app/heartbeat", age, unit="web.service")
    sample = replace(a_sample(units=[a_unit(**fields)]), heartbeats=(beat,))
    code = Cause.HEARTBEAT_MISSING if age is None else Cause.HEARTBEAT_STALE
    assert found(sample) == [(code, Status.WARNING)] * is_judged
    assert found(sample, Thresholds(startup_grace_seconds=0)) == [(code, Status.WARNING)]


@pytest.mark.parametrize("unit", ["", "other.service", "gone.service"])
def test_a_heartbeat_of_nobody_or_of_another_unit_is_judged(unit: str) -> None:
    units = [a_unit(active_since=NOW), a_unit("other.service", active_since=at(-900))]
    beat = HeartbeatSample("/run/app/heartbeat", None, unit=unit)
    sample = replace(a_sample(units=units), heartbeats=(beat,))
    assert found(sample) == [(Cause.HEARTBEAT_MISSING, Status.WARNING)]


def test_numbers_and_limits_stand_in_the_finding() -> None:
    (finding,) = evaluate(a_sample(disk=91.23), LIMITS)
    assert finding == Finding(
        Cause.DISK_USAGE, Status.CRITICAL, "/", "disk / is 91.2 % full (limit 90 %)", 91.23, 90.0
    )


def test_a_failed_collector_is_a_finding_beside_the_rest() -> None:
    sample = a_sample(disk=95, failures=[CollectorFailure("memory", "no /proc/meminfo")])
    assert found(sample) == [DISK_CRITICAL, (Cause.COLLECTOR_FAILED, Status.WARNING)]


def test_an_unreadable_heartbeat_says_why() -> None:
    sample = Sample(a_sample().taken_at, heartbeats=(HeartbeatSample("/x", None, "not readable"),))
    assert [finding.message for finding in evaluate(sample, LIMITS)] == ["heartbeat file /x is not readable"]


def test_the_worst_comes_first_and_equals_keep_the_order_of_the_sample() -> None:
    units = [
        a_unit("b.service", recent_restarts=9),
        a_unit("a.service", down=True),
        a_unit("c.service", down=True),
    ]
    findings = evaluate(a_sample(units=units, disk=95, memory=95), LIMITS)
    assert [(finding.status, finding.subject) for finding in findings] == [
        (Status.CRITICAL, "a.service"),
        (Status.CRITICAL, "c.service"),
        (Status.CRITICAL, "/"),
        (Status.WARNING, "b.service"),
        (Status.WARNING, "memory"),
    ]
    assert overall(findings) is Status.CRITICAL


def test_default_thresholds_are_usable() -> None:
    assert threshold_faults(LIMITS) == []


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        (Thresholds(disk_warning_percent=-1), ["disk_warning_percent"]),
        (Thresholds(disk_critical_percent=101), ["disk_critical_percent"]),
        (Thresholds(memory_warning_percent=float("nan")), ["memory_warning_percent"]),
        (Thresholds(disk_warning_percent=95), ["disk_warning_percent"]),
        (Thresholds(crash_loop_restarts=0), ["crash_loop_restarts"]),
        (Thresholds(log_errors=-1), ["log_errors"]),
        (Thresholds(heartbeat_max_age_seconds=0), ["heartbeat_max_age_seconds"]),
        (Thresholds(heartbeat_max_age_seconds=float("nan")), ["heartbeat_max_age_seconds"]),
        (Thresholds(startup_grace_seconds=-1), ["startup_grace_seconds"]),
        (Thresholds(startup_grace_seconds=3_601), ["startup_grace_seconds"]),
        (Thresholds(startup_grace_seconds=float("nan")), ["startup_grace_seconds"]),
        (
            Thresholds(memory_warning_percent=200, crash_loop_restarts=-5),
            ["memory_warning_percent", "crash_loop_restarts"],
        ),
    ],
)
def test_every_threshold_fault_is_named(limits: Thresholds, named: list[str]) -> None:
    assert [fault.split()[0] for fault in threshold_faults(limits)] == named
