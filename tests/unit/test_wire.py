"""Wire: reports survive the way to the watchdog, and nothing else is taken for a report."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import VM_ID, a_report, a_sample, a_unit, at
from vm_health.errors import WireError
from vm_health.model import (
    Cause,
    CollectorFailure,
    DeployLock,
    DiskSample,
    Finding,
    GitSample,
    HealthReport,
    HeartbeatSample,
    LogSample,
    MemorySample,
    RepairSample,
    Sample,
    ScheduledEvent,
    Status,
    SystemSample,
    UnitSample,
)
from vm_health.rules import Thresholds, evaluate
from vm_health.wire import (
    MAX_REPORT_CHARS,
    PROPERTY_CHARS,
    REPORT_PROPERTIES,
    decode_report,
    encode_report,
    report_properties,
    report_to_dict,
)
from vm_health.wire_sample import PRESSURES

T = TypeVar("T")


def a_few(items: st.SearchStrategy[T]) -> st.SearchStrategy[tuple[T, ...]]:
    return st.lists(items, max_size=3).map(tuple)


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
counts = st.integers(0, 2**53)
percents = st.integers(0, 10_000).map(lambda hundredths: hundredths / 100)
moments = st.datetimes(
    datetime(2000, 1, 2),  # noqa: DTZ001 - hypothesis adds the zone
    datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
numbers = st.floats(allow_nan=False, allow_infinity=False)
unit_names = st.from_regex(r"[A-Za-z0-9:_.@][A-Za-z0-9:_.@-]{0,30}\.(service|socket|timer)", fullmatch=True)
units = st.builds(
    UnitSample,
    name=unit_names,
    load_state=texts,
    active_state=texts,
    sub_state=texts,
    service_type=texts,
    result=texts,
    restarts=counts,
    recent_restarts=counts,
    main_pid=counts,
    active_since=st.none() | moments,
    memory_bytes=counts,
    started_at=st.none() | moments,
)


def in_the_agents_order(pressure: dict[str, float]) -> dict[str, float]:
    return {name: pressure[name] for name in PRESSURES if name in pressure}


loads = st.floats(0, 1_000)
systems = st.builds(
    SystemSample,
    cpu_percent=st.none() | percents,
    load1=loads,
    load5=loads,
    load15=loads,
    cores=counts,
    uptime_seconds=loads,
    pressure=st.dictionaries(st.sampled_from(PRESSURES), percents).map(in_the_agents_order),
    clock_synchronized=st.none() | st.booleans(),
    reboot_required=st.booleans(),
)
samples = st.builds(
    Sample,
    taken_at=moments,
    units=a_few(units),
    disks=a_few(st.builds(DiskSample, texts, counts, counts, percents, st.none() | percents)),
    memory=st.none() | st.builds(MemorySample, counts, counts, percents, counts, percents),
    heartbeats=a_few(st.builds(HeartbeatSample, texts, st.none() | numbers, texts, texts)),
    failures=a_few(st.builds(CollectorFailure, texts, texts)),
    system=st.none() | systems,
    logs=a_few(st.builds(LogSample, texts, counts, texts)),
    checkouts=a_few(st.builds(GitSample, texts, texts, texts, st.booleans(), counts, texts)),
    scheduled_events=a_few(st.builds(ScheduledEvent, texts, texts, texts, st.none() | moments, texts)),
    deploy_lock=st.none() | st.builds(DeployLock, moments, texts),
)
findings = st.builds(
    Finding,
    st.sampled_from(Cause),
    st.sampled_from(Status),
    texts,
    texts,
    st.none() | numbers,
    st.none() | numbers,
)
reports = st.builds(
    HealthReport,
    vm_id=st.sampled_from(["", VM_ID]),
    host=texts,
    agent_version=texts,
    boot_id=texts,
    sequence=counts,
    status=st.sampled_from(Status),
    findings=a_few(findings),
    sample=samples,
    age_seconds=st.integers(0, 10**9).map(lambda millis: millis / 1_000),
    endpoint=texts,
    repairs=a_few(st.builds(RepairSample, unit_names, counts, st.none() | moments, st.booleans())),
)


@given(reports)
def test_any_report_comes_back_as_it_was(report: HealthReport) -> None:
    text = encode_report(report)
    assert decode_report(text) == report
    assert encode_report(decode_report(text)) == text


def changed(**fields: Any) -> str:
    """A good report with fields replaced."""
    return json.dumps(report_to_dict(a_report()) | fields)


def with_unit(**fields: Any) -> str:
    unit = report_to_dict(a_report())["units"][0] | fields
    return changed(units=[unit])


def faults(text: str) -> tuple[str, ...]:
    with pytest.raises(WireError) as refused:
        decode_report(text)
    return refused.value.faults


def test_the_unchanged_report_is_good() -> None:
    assert decode_report(changed()) == a_report()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "must be JSON"),
        ("{", "must be JSON"),
        ("[]", "must be a JSON object, is a list"),
        ("null", "must be a JSON object, is null"),
        ('"report"', "must be a JSON object, is a string"),
        ("[" * 100_000, "must be at most 48000 characters"),
        ("[" * 40_000, "must be JSON"),
        ('{"schema":' + "[" * 20_000 + "]" * 20_000 + "}", "must be JSON"),
        (changed(host="x" * MAX_REPORT_CHARS), "must be at most 48000 characters"),
        (changed(schema=2), "schema must be 1"),
        (changed(schema=None), "schema must be"),
        (changed(schema=True), "schema must be"),
        (changed(host=7), "host must be a string"),
        (changed(host="x" * 1_025), "host must be a string of at most 1024"),
        (changed(agent_version=None), "agent_version must be a string"),
        (changed(vm_id="web-1"), "vm_id must be the ARM id"),
        (changed(vm_id=VM_ID + "/../other"), "vm_id must be the ARM id"),
        (changed(sequence=-1), "sequence must be a whole number"),
        (changed(sequence=1.0), "sequence must be a whole number"),
        (changed(sequence=2**63), "sequence must be a whole number"),
        (changed(sequence=True), "sequence must be a whole number"),
        (changed(status="FINE"), "status must be one of"),
        (changed(status=["HEALTHY"]), "status must be one of"),
        (changed(age_seconds=-0.1), "age_seconds must be a number not below 0"),
        (changed(age_seconds="5"), "age_seconds must be a number"),
        (changed(age_seconds=10**400), "age_seconds must be a number"),
        (changed(age_seconds="1" * 5_000), "age_seconds must be a number"),
        (changed().replace('"age_seconds": 0.0', '"age_seconds": 1e999'), "age_seconds must be a number"),
        (changed().replace('"age_seconds": 0.0', '"age_seconds": NaN'), "must be JSON (NaN is not JSON)"),
        (changed().replace('"age_seconds": 0.0', '"age_seconds": -Infinity'), "must be JSON (-Infinity"),
        (changed().replace('"age_seconds": 0.0', '"age_seconds": ' + "9" * 5_000), "must be JSON"),
        (changed(taken_at="2026-11-24T12:00:00"), "taken_at must be an ISO 8601 time with an offset"),
        (changed(taken_at="yesterday"), "taken_at must be"),
        (changed(taken_at=1_700_000_000), "taken_at must be"),
        (changed(taken_at=None), "taken_at must be"),
        (changed(taken_at="0001-01-01T00:00:00+14:00"), "taken_at must be"),
        (changed(units={}), "units must be a list of at most 500"),
        (changed(units=[7]), "units[0] must be an object"),
        (changed(units=[{}] * 501), "units must be a list of at most 500"),
        (changed(memory=[]), "memory must be an object"),
        (changed(disks=[{"mount": "/"}]), "disks[0].total_bytes must be"),
        (changed(heartbeats=[{"path": "/x", "age_seconds": "old"}]), "heartbeats[0].age_seconds must be"),
        (changed(endpoint=None), "endpoint must be a string"),
        (with_unit(name="a;b.service"), "units[0].name must be a systemd unit name"),
        (with_unit(name="-x.service"), "units[0].name must be a systemd unit name"),
        (with_unit(name="$(x).service"), "units[0].name must be a systemd unit name"),
        (with_unit(name="web.service\n"), "units[0].name must be a systemd unit name"),
        (with_unit(name=""), "units[0].name must be a systemd unit name"),
        (with_unit(active_state=None), "units[0].active_state must be a string"),
        (with_unit(main_pid="1"), "units[0].main_pid must be a whole number"),
        (with_unit(active_since="noon"), "units[0].active_since must be"),
        (with_unit(started_at="noon"), "units[0].started_at must be"),
        (changed(deploy_lock=[]), "deploy_lock must be an object"),
        (changed(deploy_lock={}), "deploy_lock.until must be"),
        (changed(deploy_lock={"until": "2026-11-24T12:00:00"}), "deploy_lock.until must be"),
        (changed(deploy_lock={"until": "2026-11-24T12:00:00Z", "holder": 7}), "deploy_lock.holder must be"),
    ],
    ids=lambda value: str(value)[:70],
)
def test_whatever_is_not_a_report_is_refused_by_name(text: str, named: str) -> None:
    assert any(fault.startswith(named) for fault in faults(text)), faults(text)


def test_all_faults_are_told_at_once() -> None:
    names = {fault.split()[0] for fault in faults(changed(host=1, sequence=-1, taken_at="x", units=[3, {}]))}
    assert {"host", "sequence", "taken_at", "units[0]", "units[1].name", "units[1].load_state"} <= names


def test_a_thousand_faults_make_no_long_error() -> None:
    assert len(faults(changed(disks=[{}] * 500))) == 20
    assert len(str(WireError(faults(changed(host=["x" * 500] * 50))))) < 500


def test_nesting_of_any_depth_is_refused_in_good_order() -> None:
    """Also where parsing just succeeds and showing the value just would not."""
    text = changed(host=0)
    for depth in range(1, sys.getrecursionlimit() + 1):
        nested = "[" * depth + "]" * depth
        assert faults(text.replace('"host": 0', f'"host": {nested}'))


@pytest.mark.parametrize(
    "put", [lambda text: changed(host=text), lambda text: changed(heartbeats=[{"path": text}])]
)
def test_text_that_no_other_system_could_take_is_refused(put: Callable[[str], str]) -> None:
    """A lone surrogate is legal in JSON and breaks every page, row and log that it reaches."""
    assert any("must be a string" in fault for fault in faults(put("\ud800")))


def test_unknown_fields_and_findings_of_a_newer_agent_are_ignored() -> None:
    value = report_to_dict(a_report(disk=85))
    value |= {"gpu": {"deep": [1]}}
    value["units"][0]["restart_policy"] = "always"
    value["findings"].append({"code": "gpu_on_fire", "status": "BURNING", "subject": 1})
    assert decode_report(json.dumps(value)) == a_report(disk=85)


def test_fields_of_an_older_agent_may_be_missing() -> None:
    value = report_to_dict(a_report())
    for name in (
        "boot_id",
        "endpoint",
        "age_seconds",
        "sequence",
        "heartbeats",
        "failures",
        "memory",
        "disks",
    ):
        del value[name]
    report = decode_report(json.dumps(value))
    assert (report.boot_id, report.endpoint, report.age_seconds, report.sample.memory) == ("", "", 0.0, None)
    assert report.sample.units == a_report().sample.units


def test_an_agent_from_before_start_times_and_deploy_locks_is_read() -> None:
    """Both are simply not there, and that is what the watchdog is told."""
    value = report_to_dict(a_report())
    assert "deploy_lock" not in value
    assert "started_at" not in value["units"][0]
    sample = decode_report(json.dumps(value)).sample
    assert (sample.deploy_lock, sample.units[0].started_at) == (None, None)


def test_a_deploy_lock_and_a_start_travel_in_utc() -> None:
    text = with_unit(started_at="2026-11-24T13:59:50+02:00")
    value = json.loads(text) | {
        "deploy_lock": {"until": "2026-11-24T14:20:00+02:00", "holder": "x", "new": 1}
    }
    sample = decode_report(json.dumps(value)).sample
    assert sample.deploy_lock == DeployLock(at(1200), "x")
    assert sample.units[0].started_at == at(-10)
    assert (
        report_to_dict(a_report(units=sample.units))["units"][0]["started_at"] == "2026-11-24T11:59:50+00:00"
    )


def test_ids_are_folded_and_times_become_utc() -> None:
    local = datetime(2026, 11, 24, 14, 0, tzinfo=timezone(timedelta(hours=2)))
    report = decode_report(changed(vm_id=VM_ID.upper(), taken_at=local.isoformat()))
    assert report.vm_id == VM_ID
    assert report.sample.taken_at.isoformat() == "2026-11-24T12:00:00+00:00"


def test_the_longest_texts_an_agent_may_send_make_no_finding_that_is_refused() -> None:
    """Findings quote what was seen: a text that is just allowed in the sample is longer in the message."""
    longest = "x" * 1_024
    sample = replace(
        a_sample(failures=[CollectorFailure(longest, longest)]),
        heartbeats=(HeartbeatSample(longest, None, longest),),
        logs=(LogSample(longest, 3, longest),),
        checkouts=(GitSample(longest, problem=longest),),
        disks=(DiskSample(longest, 1, 0, 99.0),),
    )
    report = replace(a_report(), sample=sample, findings=evaluate(sample, Thresholds()))
    assert len(report.findings) == 5
    assert decode_report(encode_report(report)) == report


def a_large_report(unit_count: int) -> HealthReport:
    return a_report(
        units=[a_unit(f"worker-with-a-long-name@{number:04}.service") for number in range(unit_count)]
    )


@pytest.mark.parametrize(("unit_count", "parts"), [(1, 1), (60, 2), (180, 6)])
def test_a_long_report_is_split_and_joined_again(unit_count: int, parts: int) -> None:
    report = a_large_report(unit_count)
    properties = report_properties(report)
    assert list(properties) == list(REPORT_PROPERTIES[:parts])
    assert max(map(len, properties.values())) <= PROPERTY_CHARS
    assert decode_report("".join(properties.values())) == report


def test_a_report_longer_than_all_properties_is_an_error_and_not_cut() -> None:
    with pytest.raises(WireError, match="at most 48000 characters"):
        report_properties(a_large_report(250))


def test_all_properties_together_hold_the_longest_report() -> None:
    assert len(REPORT_PROPERTIES) * PROPERTY_CHARS >= MAX_REPORT_CHARS


def test_every_character_counts_as_one() -> None:
    """Application Insights counts characters, the prober bytes: ASCII makes them the same."""
    assert encode_report(a_report(vm_id="", up="web.service")).isascii()
    assert encode_report(decode_report(changed(host="Zürich 🌉"))).isascii()
