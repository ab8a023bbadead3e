"""Every ``.kql`` file of the product passes Microsoft's parser, and the fleet query gives the right rows.

Neither gate alone is enough, so mutants of the fleet query show that the two together are.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from devcloud.log_tables import TABLES
from tests.kql.execution import execution_fault, fleet_sample, run_fleet_query
from tests.kql.kusto_checker import KustoChecker, declared_columns
from tests.kql.mutants import FLEET_MUTANTS, Gate, Mutant
from tests.kql.tools import missing_tool

ROOT = Path(__file__).resolve().parents[2]
QUERY_FILES = sorted(
    path for folder in ("vm_watchdog/queries", "infra") for path in (ROOT / folder).rglob("*.kql")
)
FLEET_QUERY = (ROOT / "vm_watchdog" / "queries" / "fleet.kql").read_text(encoding="utf-8")
# The table reference lists these for no table; they exist in the service (see ../shared/kql/README.md).
STANDARD_COLUMNS = {"_TimeReceived": "datetime", "_ItemId": "string"}


@pytest.fixture(scope="session")
def checker() -> KustoChecker:
    """Microsoft's parser with the log tables declared; loading it takes a second."""
    try:
        return KustoChecker.load(ROOT / ".tools" / "node_modules", TABLES)
    except (ImportError, FileNotFoundError) as error:
        missing_tool(f"KQL parser: {error}")


def parser_fault(checker: KustoChecker, kql: str) -> str | None:
    """What gate 1 has against ``kql``, if anything."""
    checked = checker.check(kql)
    if checked.errors:
        return "; ".join(map(str, checked.errors))
    declared = declared_columns(kql)
    if declared is not None and checked.columns != declared:
        return f"returns {checked.columns}, its header promises {declared}"
    return None


def test_there_are_queries_to_check() -> None:
    assert ROOT / "vm_watchdog" / "queries" / "fleet.kql" in QUERY_FILES


@pytest.mark.parametrize("path", QUERY_FILES, ids=[path.relative_to(ROOT).as_posix() for path in QUERY_FILES])
def test_query_file_passes_the_parser_and_returns_what_its_header_says(
    checker: KustoChecker, path: Path
) -> None:
    kql = path.read_text(encoding="utf-8")
    assert declared_columns(kql), "the header must name the result: // returns: Name:type, ..."
    assert parser_fault(checker, kql) is None


def test_fleet_query_gives_the_newest_snapshot_of_every_vm_in_whatever_order_rows_come() -> None:
    assert run_fleet_query(FLEET_QUERY, fleet_sample(datetime.now(UTC), seed=0))  # the engine does run it
    assert execution_fault(FLEET_QUERY, seeds=range(10)) is None


@pytest.mark.parametrize("mutant", FLEET_MUTANTS, ids=[mutant.name for mutant in FLEET_MUTANTS])
def test_the_two_gates_catch_a_mutant_of_the_fleet_query(
    checker: KustoChecker, mutant: Mutant, record_property: Callable[[str, object], None]
) -> None:
    mutated = mutant.apply(FLEET_QUERY)
    assert mutated != FLEET_QUERY
    faults = {Gate.PARSER: parser_fault(checker, mutated), Gate.EXECUTION: execution_fault(mutated)}
    caught = [gate for gate in Gate if faults[gate]]
    record_property("caught by", ", ".join(caught))
    said = "; ".join(f"{gate}: {faults[gate] or 'saw nothing'}" for gate in Gate)
    print(f"{mutant.name}: {said}")  # noqa: T201 - shown by pytest -s and with a failure
    # Named one by one, so that a gate that goes blind is seen even while the other still catches the mutant.
    assert mutant.gate in caught
    assert mutant.gate is Gate.PARSER or Gate.PARSER not in caught


def test_each_gate_is_needed() -> None:
    assert len(FLEET_MUTANTS) >= 10
    assert {mutant.gate for mutant in FLEET_MUTANTS} == set(Gate)


def test_the_parser_knows_columns_functions_and_types(checker: KustoChecker) -> None:
    assert [error.words for error in checker.check("AppEvents | project Nope").errors] == ["Nope"]
    assert checker.check("AppEvents | extend A = nope(Name)").errors
    assert checker.check("AppEvents | where Name > 5").errors
    assert checker.check("AppEvents | project Name, N = ItemCount + 1").columns == (
        ("Name", "string"),
        ("N", "long"),
    )


def test_a_header_that_cannot_be_read_is_an_error() -> None:
    assert declared_columns("AppEvents") is None
    assert declared_columns("// returns: A:string, B:long\nAppEvents") == (("A", "string"), ("B", "long"))
    with pytest.raises(ValueError, match="Name:type"):
        declared_columns("// returns: A string\nAppEvents")


def test_the_tables_have_their_true_columns() -> None:
    reference = ROOT.parent / "shared" / "kql" / "log_analytics_schema.json"
    if not reference.is_file():
        pytest.skip("the table reference is not beside this checkout")
    truth = json.loads(reference.read_text(encoding="utf-8"))
    for table, columns in TABLES.items():
        assert columns == truth[table] | STANDARD_COLUMNS, table
