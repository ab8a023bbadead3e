"""Small, likely mistakes in the fleet query, each with the gate that has to catch it.

A mutant that neither gate catches is a query fault that would reach a real workspace.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Gate(StrEnum):
    PARSER = "Microsoft's parser"
    EXECUTION = "execution on sample rows"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of text: ``old`` (found exactly once in the query) becomes ``new``."""

    name: str
    gate: Gate
    old: str
    new: str

    def apply(self, kql: str) -> str:
        """The mutated query; raises ``ValueError`` where the text to change is not there exactly once."""
        if kql.count(self.old) != 1:
            raise ValueError(
                f"mutant {self.name!r}: {self.old!r} stands {kql.count(self.old)} times in the query"
            )
        return kql.replace(self.old, self.new)


FLEET_MUTANTS = (
    Mutant("misspelled column", Gate.PARSER, "TakenAt = TimeGenerated", "TakenAt = TimeGenrated"),
    Mutant("wrong table", Gate.PARSER, "\nAppEvents\n", "\nAppTraces\n"),
    Mutant("column in another case", Gate.PARSER, "TakenAt = TimeGenerated", "TakenAt = timeGenerated"),
    Mutant(
        "reserved word",
        Gate.PARSER,
        "| project\n    Name,\n    VmId,\n    TakenAt = TimeGenerated",
        "| extend latest = TimeGenerated\n| project\n    Name,\n    VmId,\n    TakenAt = latest",
    ),
    Mutant("column of the wrong type", Gate.PARSER, "ReceivedAt = _TimeReceived", "ReceivedAt = Properties"),
    Mutant(
        "max for arg_max",
        Gate.PARSER,
        "arg_max(TimeGenerated, Properties, _TimeReceived)",
        "max(TimeGenerated), Properties, _TimeReceived",
    ),
    Mutant("oldest for newest", Gate.EXECUTION, "arg_max(", "arg_min("),
    Mutant(
        "newest received for newest taken",
        Gate.EXECUTION,
        "arg_max(TimeGenerated, Properties, _TimeReceived)",
        "arg_max(_TimeReceived, Properties, TimeGenerated)",
    ),
    Mutant(
        "times swapped",
        Gate.EXECUTION,
        "TakenAt = TimeGenerated,\n    ReceivedAt = _TimeReceived",
        "TakenAt = _TimeReceived,\n    ReceivedAt = TimeGenerated",
    ),
    Mutant(
        "id as it was sent",
        Gate.EXECUTION,
        "tolower(tostring(Properties.vm_id))",
        "tostring(Properties.vm_id)",
    ),
    Mutant("other events let in", Gate.EXECUTION, '| where Name in ("vm.health", "watchdog.canary")\n', ""),
    Mutant("the canary shut out", Gate.EXECUTION, ', "watchdog.canary")', ")"),
    Mutant("the canary misspelled", Gate.EXECUTION, '"watchdog.canary"', '"watchdog.canaries"'),
    Mutant("a canary that hides a VM", Gate.EXECUTION, "by Name, VmId\n", 'by VmId, Name = "vm.health"\n'),
    Mutant("events by id alone", Gate.PARSER, "by Name, VmId\n", "by VmId\n"),
    Mutant("one row for each name", Gate.PARSER, "by Name, VmId\n", "by Name\n"),
    Mutant("a name that is lost", Gate.PARSER, "| project\n    Name,\n", "| project\n"),
    Mutant("rows without an id let in", Gate.EXECUTION, "| where isnotempty(VmId)\n", ""),
    Mutant("wrong property", Gate.EXECUTION, "Properties.vm_id", "Properties.vmId"),
    Mutant(
        "any snapshot for the newest",
        Gate.EXECUTION,
        "arg_max(TimeGenerated, Properties, _TimeReceived)",
        "TimeGenerated = take_any(TimeGenerated), Properties = take_any(Properties), "
        "_TimeReceived = take_any(_TimeReceived)",
    ),
    Mutant("one VM for the fleet", Gate.EXECUTION, "| project\n", "| take 1\n| project\n"),
    Mutant("a part of the report lost", Gate.EXECUTION, "        tostring(Properties.report4),\n", ""),
)
