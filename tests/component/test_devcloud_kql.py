"""The local KQL engine and its tables: real KQL, true columns, rows that come late and leave."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from devcloud.kql import KqlEngine, KqlRefused
from devcloud.log_tables import TABLES, LogTables
from tests.component.devcloud_site import ROOT

NOW = datetime.now(UTC)
FLEET_QUERY = (ROOT / "vm_watchdog" / "queries" / "fleet.kql").read_text(encoding="utf-8")


@pytest.fixture
def tables() -> Iterator[LogTables]:
    found = LogTables()
    yield found
    found.close()


def test_only_kusto_s_nothing(tables: LogTables) -> None:
    """What is missing is "" for strings and null for the rest, through joins too."""
    tables.add("AppEvents", [{"Name": "left", "Properties": {"k": "1"}}, {"Name": "bare"}])
    engine = KqlEngine(tables)
    kql = """
    AppEvents | project Name, K = tostring(Properties.k)
    | join kind=leftouter (
        AppEvents | where Name == "absent" | project K = tostring(Properties.k), Other = Name) on K
    | project Name, K, Other, Joined = strcat(Other, "|", K), Length = strlen(Other)
    | order by Name asc
    """
    first, second = engine.query(kql).records()
    assert first == {"Name": "bare", "K": "", "Other": "", "Joined": "|", "Length": 0}
    assert second == {"Name": "left", "K": "1", "Other": "", "Joined": "|1", "Length": 0}
    assert engine.query(
        'AppEvents | where isempty(Properties.none) and Properties.none == "" | count'
    ).rows == [(2,)]
    assert engine.query("AppEvents | summarize max(ItemCount)").rows == [(None,)]


def test_rows_are_checked_and_completed(tables: LogTables) -> None:
    """Unknown columns and tables are refused; standard columns are filled in."""
    with pytest.raises(ValueError, match="AppEvents has no column 'Nmae'"):
        tables.add("AppEvents", [{"Nmae": "x"}])
    with pytest.raises(ValueError, match="'AppEvent': unknown; known are AppEvents, AppMetrics, AppTraces"):
        tables.add("AppEvent", [])
    with pytest.raises(ValueError, match="aware"):
        tables.add("AppEvents", [{"TimeGenerated": datetime(2026, 1, 1)}])  # noqa: DTZ001
    tables.add("AppTraces", [{"Message": "m"}, {"Message": "n"}])
    rows = KqlEngine(tables).query("AppTraces").records()
    assert {row["Type"] for row in rows} == {"AppTraces"}
    assert len({row["_ItemId"] for row in rows}) == 2
    assert list(rows[0]) == list(TABLES["AppTraces"])


def test_rows_appear_after_the_ingestion_delay_and_leave_when_old() -> None:
    """A clock of the test's own: a minute's delay, two hours' life."""
    clock = [NOW]
    tables = LogTables(delay=timedelta(minutes=1), keep=timedelta(hours=2), now=lambda: clock[0])

    def count() -> int:
        return int(tables.run("SELECT count(*) FROM AppEvents")[1][0][0])

    tables.add("AppEvents", [{"Name": "a"}])
    assert count() == 0
    clock[0] += timedelta(seconds=61)
    assert count() == 1
    clock[0] += timedelta(hours=2)
    tables.add("AppEvents", [{"Name": "b"}])
    clock[0] += timedelta(seconds=61)
    assert count() == 1
    tables.close()


def test_a_query_sees_the_tables_and_nothing_else(tables: LogTables) -> None:
    """No file of this machine can be read through a query."""
    engine = KqlEngine(tables)
    for kql in ("['/etc/passwd'] | take 1", 'externaldata(x:string)["/etc/passwd"]', "stored | take 1"):
        with pytest.raises(KqlRefused):
            engine.query(kql)


def test_the_fleet_query_over_a_thousand_rows_is_fast(tables: LogTables) -> None:
    """The product's own query: under 0.1 s of CPU at its best of five; 1,000 rows go in within a second."""
    rows = [
        {
            "Name": "vm.health",
            "TimeGenerated": NOW - timedelta(seconds=number),
            "Properties": {"vm_id": f"/VM/{number % 250}", "report": "x" * 3_000},
        }
        for number in range(1_000)
    ]
    engine = KqlEngine(tables)
    began = time.process_time()
    tables.add("AppEvents", rows)
    assert engine.query("AppEvents | count").rows == [(1_000,)]
    assert time.process_time() - began < 1
    times = []
    for _ in range(5):
        began = time.process_time()
        found = engine.query(FLEET_QUERY, timedelta(hours=1))
        times.append(time.process_time() - began)
    assert len(found.rows) == 250
    assert found.records()[0]["Report"] == "x" * 3_000
    assert min(times) < 0.1
