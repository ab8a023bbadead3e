"""KQL gate 2: the fleet query, executed on sample rows whose right answer is known.

Covers what a parser can't: which row is the newest, what is filtered, what is joined. The rows are what goes
wrong in real fleets: several snapshots a VM in no order, other events, ids in mixed case or missing, long
reports, VMs that fell silent.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from devcloud.kql import KqlEngine, KqlRefused
from devcloud.log_tables import LogTables

WINDOW = timedelta(minutes=30)
_PART_CHARS = 8192
_PART_NAMES = ("report", "report2", "report3", "report4", "report5", "report6")


HEALTH, CANARY = "vm.health", "watchdog.canary"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One event as the fleet query must give it back."""

    name: str
    vm_id: str
    taken_at: datetime
    received_at: datetime
    report: str

    def row(self, *, name: str = "", vm_id: str | None = None) -> dict[str, Any]:
        """The AppEvents row; a report that is too long for one property continues in the next."""
        parts = [self.report[i : i + _PART_CHARS] for i in range(0, len(self.report), _PART_CHARS)]
        properties = dict(zip(_PART_NAMES, parts, strict=False))
        shown_id = self.vm_id if vm_id is None else vm_id
        return {
            "Name": name or self.name,
            "TimeGenerated": self.taken_at,
            "_TimeReceived": self.received_at,
            "Properties": properties | {"vm_id": shown_id},
        }


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows for AppEvents, and the one right answer to "the newest snapshot of every VM"."""

    rows: tuple[dict[str, Any], ...]
    expected: frozenset[Snapshot]


def fleet_sample(now: datetime, seed: int) -> Sample:
    """A fleet's rows in an order that ``seed`` chooses."""

    def snapshot(vm: str, age_seconds: float, report: str, late_seconds: float = 5) -> Snapshot:
        taken_at = now - timedelta(seconds=age_seconds)
        vm_id = f"/subscriptions/s/resourcegroups/rg/providers/microsoft.compute/virtualmachines/{vm}"
        # Never received in the order taken: the snapshot that arrived last is not the newest one.
        return Snapshot(HEALTH, vm_id, taken_at, taken_at + timedelta(seconds=late_seconds), report)

    def canary(age_seconds: float, vm_id: str = "watchdog-canary", late_seconds: float = 4) -> Snapshot:
        taken_at = now - timedelta(seconds=age_seconds)
        return Snapshot(CANARY, vm_id, taken_at, taken_at + timedelta(seconds=late_seconds), "")

    long_report = "".join(f"[{i:08d}]" for i in range(4200))  # 42,000 characters: all six properties
    newest = {
        "web-1": snapshot("web-1", 10, '{"status":"HEALTHY"}'),
        "web-2": snapshot("web-2", 70, '{"status":"CRITICAL"}'),
        "mixed": snapshot("mixed", 20, '{"n":"newest"}'),
        "long": snapshot("long", 30, long_report),
        "canary": canary(45),
        # Who may send telemetry may send either event with any id: neither hides the other.
        "false health": replace(snapshot("", 2, "{}"), vm_id="watchdog-canary"),
    }
    newest["false canary"] = replace(canary(3), vm_id=newest["web-1"].vm_id)
    older = [
        snapshot("web-1", 70, '{"status":"CRITICAL"}', late_seconds=65),
        snapshot("web-1", 130, '{"status":"WARNING"}', late_seconds=5),
        snapshot("web-2", 130, '{"status":"HEALTHY"}', late_seconds=128),
        snapshot("web-2", 190, '{"status":"HEALTHY"}'),
        snapshot("mixed", 80, '{"n":"older"}'),
        snapshot("long", 90, "short"),
    ]
    rows = [found.row() for found in newest.values()]
    rows += [found.row() for found in older if "mixed" not in found.vm_id]
    # The same VM, once as ARM writes its id and once in lower case, is one VM.
    rows += [found.row(vm_id=found.vm_id.upper()) for found in older if "mixed" in found.vm_id]
    rows += [canary(age, late_seconds=late).row() for age, late in ((105, 101), (165, 2))]
    rows += [
        canary(1).row(name="watchdog.other"),
        snapshot("web-1", 1, '{"not":"health"}').row(name="vm.repair"),
        snapshot("web-9", 1, '{"not":"health"}').row(name="vm.repair"),
        snapshot("web-2", 1, '{"no":"id"}').row(vm_id=""),
        snapshot("silent", WINDOW.total_seconds() + 60, '{"too":"old"}').row(),
    ]
    assert len(long_report) > 5 * _PART_CHARS
    random.Random(seed).shuffle(rows)
    return Sample(tuple(rows), frozenset(newest.values()))


def run_fleet_query(kql: str, sample: Sample) -> list[Snapshot]:
    """Execute ``kql`` over the sample's rows; raises ``KqlRefused``, or ``KeyError`` for a missing column."""
    tables = LogTables()
    try:
        tables.add("AppEvents", sample.rows)
        records = KqlEngine(tables).query(kql, WINDOW).records()
    finally:
        tables.close()
    return [
        Snapshot(row["Name"], row["VmId"], row["TakenAt"], row["ReceivedAt"], row["Report"])
        for row in records
    ]


def execution_fault(kql: str, seeds: range = range(2)) -> str | None:
    """What is wrong with ``kql``'s answers over shuffled samples.

    None where all are right, and where the local engine can't run it: what it doesn't know says nothing about
    the query.
    """
    for seed in seeds:
        sample = fleet_sample(datetime.now(UTC), seed)
        try:
            found = run_fleet_query(kql, sample)
        except KqlRefused as error:
            return None if error.code == "NotRunLocally" else f"refused: {error}"
        except KeyError as error:
            return f"no column {error}"
        if len(found) != len(sample.expected) or frozenset(found) != sample.expected:
            wrong = [answer.vm_id.rpartition("/")[2] for answer in found if answer not in sample.expected]
            return f"{len(found)} rows in place of {len(sample.expected)}, wrong ones for {sorted(wrong)}"
    return None
