"""What Prometheus gets, read by the Prometheus project's own parsers."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open
from prometheus_client.parser import text_string_to_metric_families as read_text

from tests.unit.agent_builders import a_report
from tests.unit.endpoint_builders import HOSTILE, a_full_report
from vm_agent.board import as_stale
from vm_agent.exposition import Family, printable, write
from vm_agent.prometheus import own_lines, report_lines
from vm_health.model import HealthReport

OWN = {"samples": 7, "telemetry_waiting": 2, "spool_bytes": 12.5}
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def exposition(report: HealthReport, open_metrics: bool) -> str:
    text = report_lines(report, open_metrics=open_metrics) + own_lines(1.25, OWN, open_metrics=open_metrics)
    return text.encode("utf-8").decode("utf-8")


def families(report: HealthReport, open_metrics: bool) -> list[Metric]:
    return list((read_open if open_metrics else read_text)(exposition(report, open_metrics)))


def series(found: Iterable[Metric]) -> Series:
    samples = [sample for family in found for sample in family.samples]
    read = {(sample.name, frozenset(sample.labels.items())): float(sample.value) for sample in samples}
    assert len(read) == len(samples), "a series is told twice"
    return read


def value(found: Series, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


@pytest.mark.parametrize("open_metrics", [False, True])
def test_the_numbers_arrive(open_metrics: bool) -> None:
    found = series(families(a_full_report(""), open_metrics))
    assert value(found, "vm_health_status", status="CRITICAL") == 1
    assert value(found, "vm_health_status", status="HEALTHY") == 0
    assert (
        value(found, "vm_health_finding", code="service_down", subject="db.service", status="CRITICAL") == 1
    )
    assert value(found, "vm_health_disk_usage_percent", mount="/data") == 99
    assert value(found, "vm_health_inode_usage_percent", mount="/") == 3
    assert value(found, "vm_health_memory_usage_percent") == 30
    assert value(found, "vm_health_service_active", unit="web.service") == 1
    assert value(found, "vm_health_service_active", unit="db.service") == 0
    assert value(found, "vm_health_recent_restarts", unit="db.service") == 7
    assert value(found, "vm_health_service_restarts_total", unit="web.service") == 3
    assert value(found, "vm_health_heartbeat_age_seconds", path="/run/beat", unit="web.service") == 5
    assert value(found, "vm_health_heartbeat_missing", path="/run/gone") == 1
    assert value(found, "vm_health_pressure_percent", resource="cpu", share="some") == 1.5
    assert value(found, "vm_health_repair_circuit_open", unit="web.service") == 1
    assert value(found, "vm_health_sample_timestamp_seconds") == 1795521600
    assert value(found, "vm_health_sample_age_seconds") == 1.25
    assert value(found, "vm_agent_samples_total") == 7
    assert value(found, "vm_agent_telemetry_waiting") == 2
    assert value(found, "vm_agent_spool_bytes") == 12.5


def test_both_formats_tell_the_same_series() -> None:
    report = a_full_report()
    assert series(families(report, open_metrics=False)) == series(families(report, open_metrics=True))


@pytest.mark.parametrize("open_metrics", [False, True])
def test_every_family_has_a_kind_and_help_and_keeps_to_its_name(open_metrics: bool) -> None:
    found = families(a_full_report(), open_metrics)
    assert {family.type for family in found} <= {"gauge", "counter", "info"}
    assert all(family.documentation for family in found)
    assert all(family.name.startswith(("vm_health_", "vm_agent_")) for family in found)
    counters = {family.name for family in found if family.type == "counter"}
    assert {"vm_health_service_restarts", "vm_agent_samples"} == {
        name.removesuffix("_total") for name in counters
    }


@pytest.mark.parametrize("open_metrics", [False, True])
def test_hostile_names_stay_in_their_labels(open_metrics: bool) -> None:
    found = series(families(a_full_report(), open_metrics))
    assert value(found, "vm_health_disk_usage_percent", mount="/data" + printable(HOSTILE)) == 99
    assert len(found) == len(series(families(a_full_report(""), open_metrics)))
    assert exposition(a_full_report(), open_metrics).count("# EOF\n") == int(open_metrics)


@pytest.mark.parametrize("open_metrics", [False, True])
def test_of_an_old_sample_no_number_is_told(open_metrics: bool) -> None:
    names = {name for name, _ in series(families(as_stale(a_report(), 60, "old"), open_metrics))}
    told = {"vm_health_agent_info", "vm_health_status", "vm_health_finding"}
    own = {"vm_agent_samples_total", "vm_agent_telemetry_waiting", "vm_agent_spool_bytes"}
    times = {"vm_health_sample_timestamp_seconds", "vm_health_sample_age_seconds"}
    assert names == told | own | times


def test_values_are_written_as_prometheus_reads_them() -> None:
    family = Family("x", "gauge", "Some help.")
    for place, number in enumerate((float("nan"), float("inf"), float("-inf"), 1e300, 2.0**60, -0.5, 3)):
        family.add(number, place=str(place))
    family.add(4, place="6")  # told twice: the last one counts, or the whole scrape would be lost
    family.add(None, place="7")
    (read,) = read_text(write([family], open_metrics=False))
    assert [str(float(sample.value)) for sample in read.samples] == [
        *("nan", "inf", "-inf", "1e+300", "1.152921504606847e+18", "-0.5", "4.0")
    ]
