"""The bill: sizes are the agent's own, parts add up, and the document's table is what the command prints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vm_agent.aggregate import Aggregates, Aggregator
from vm_agent.envelopes import keyed, metric_items, report_item
from vm_health.wire import decode_report, encode_report
from vm_watchdog import tick
from vm_watchdog.cli import main
from vm_watchdog.cost import ASSUMED, PRICES, Assumptions, Fleet, estimate, shards_for
from vm_watchdog.cost_sizes import METRIC_BYTES, event_bytes, metric_count, typical_report

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "cost.md"
KEY = "00000000-0000-4000-8000-000000000009"


@pytest.mark.parametrize("units", [1, 5, 30])
def test_the_size_of_a_report_is_that_of_the_agents_own_event(units: int) -> None:
    report = typical_report(units)
    sent = len(keyed(report_item(report, {"telemetry_dropped": 0.0}).text, KEY).encode())
    assert event_bytes(report) == pytest.approx(sent, rel=0.03)


def test_the_typical_report_is_one_that_the_watchdog_takes() -> None:
    report = typical_report(5)
    assert decode_report(encode_report(report)) == report


@pytest.mark.parametrize("units", [1, 5, 30])
def test_the_metrics_are_those_that_the_agent_sends(units: int) -> None:
    sent: list[Aggregates] = []
    aggregator = Aggregator(300, sent.append)
    aggregator.add(typical_report(units), 0)
    aggregator.flush()
    items = [keyed(item.text, KEY) for item in metric_items(sent[0])]
    assert len(items) == metric_count(units)
    assert sum(map(len, items)) / len(items) == pytest.approx(METRIC_BYTES, rel=0.05)


@pytest.mark.parametrize("vms", [1, 499, 500, 501, 1_000, 1_001, 4_000, 8_001, 10_000])
def test_a_tick_is_cut_as_the_watchdog_cuts_it(vms: int) -> None:
    shards = tick.shards_for(vms, 500)
    assert shards_for(vms, 500) == (0 if shards == 1 else shards)


def test_the_parts_add_up_and_the_grants_are_free() -> None:
    found = estimate(Fleet(1))
    assert found.usd == pytest.approx(sum(part.usd for part in found.parts))
    parts = {part.name: part for part in found.parts}
    assert parts["Functions, executions"].usd == 0
    assert parts["Log Analytics"].usd == 0
    compute = parts["Functions, compute"]
    # 43,800 ticks of 1.9 s (1.851 begun) with 2 GB, and 6 looks and alerts of 2 s
    assert compute.quantity == pytest.approx((43_800 * 1.9 + 12) * 2)
    assert compute.usd == pytest.approx((compute.quantity - 100_000) * 0.000026)


def test_the_log_is_what_was_sent_less_a_quarter_and_five_gb() -> None:
    found = estimate(
        Fleet(1_000, metrics_seconds=86_400), Assumptions(incidents_a_vm=0, own_logs_an_execution=0)
    )
    logs = next(part for part in found.parts if part.name == "Log Analytics")
    reports = 1_000 * 43_800 * found.report_bytes
    metrics = 1_000 * 730 / 24 * 14 * METRIC_BYTES
    assert logs.quantity == pytest.approx((reports + metrics) * 0.75 / 1e9)
    assert logs.usd == pytest.approx((logs.quantity - 5) * 2.30)


@pytest.mark.parametrize(
    ("dearer", "cheaper"),
    [
        (Fleet(1_000), Fleet(999)),
        (Fleet(1_000, interval_seconds=30), Fleet(1_000)),
        (Fleet(1_000), Fleet(1_000, probes=False)),
        (Fleet(1_000), Fleet(1_000, report_seconds=120)),
        (Fleet(1_000), Fleet(1_000, metrics_seconds=600)),
        (Fleet(1_000, units=6), Fleet(1_000)),
    ],
)
def test_more_costs_more(dearer: Fleet, cheaper: Fleet) -> None:
    assert estimate(dearer).usd > estimate(cheaper).usd


def test_a_tick_never_costs_more_than_the_interval_it_lies_in() -> None:
    found = estimate(Fleet(10_000, interval_seconds=10), Assumptions(incidents_a_vm=0))
    assert found.tick_seconds > 10
    assert found.parts[0].quantity == pytest.approx(730 * 3_600 * 2)


def test_every_assumption_has_words_and_every_price_its_numbers() -> None:
    assert set(ASSUMED) == set(Assumptions.__dataclass_fields__)
    assert all(price.usd > 0 and price.per > 0 for price in PRICES.values())
    assert {name for name, price in PRICES.items() if not price.verified} == {"queues", "blobs"}


# --- the command -----------------------------------------------------------------------------------------


def test_one_fleet_with_its_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "--vms", "200", "--no-probe", "--report-seconds", "120"], {}) == 0
    text = capsys.readouterr().out
    assert text.startswith("200 VMs with 5 units, looked at every 60 s without probes: ")
    for words in ("a report of", "bytes every 120 s", "2026-11", "(?)", "not counted:"):
        assert words in text


def test_as_json_it_is_the_same_bill(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["cost", "--vms", "10,200", "--units", "3", "--interval", "30", "--json"]
    assert main(arguments, {"WATCHDOG_NONSENSE": "1"}) == 0
    [ten, many] = json.loads(capsys.readouterr().out)["estimates"]
    assert (ten["vms"], ten["units"], ten["interval_seconds"]) == (10, 3, 30)
    expected = estimate(replace(Fleet(200), units=3, interval_seconds=30))
    assert many["usd"] == round(expected.usd, 2)


def test_the_documents_table_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "--vms", "1,10,100,1000,10000", "--markdown"], {}) == 0
    assert capsys.readouterr().out in DOCUMENT.read_text(encoding="utf-8")


def test_the_documents_cheaper_fleet_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--report-seconds", "120", "--metrics-seconds", "900", "--markdown"]
    assert main(["cost", "--vms", "1,10,100,1000,10000", *arguments], {}) == 0
    assert capsys.readouterr().out in DOCUMENT.read_text(encoding="utf-8")
