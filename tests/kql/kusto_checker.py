"""KQL gate 1: Microsoft's own parser and binder, run in V8 without Node.

Answers what a query's errors are and which columns, with which types, it returns, given the tables' true
columns. It runs no query: what a well-formed query *means* is gate 2's business (``execution.py``).

A query file states what it returns in a comment line of its header, and the gate holds it to that::

    // returns: VmId:string, TakenAt:datetime, Report:string
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

Columns = tuple[tuple[str, str], ...]

# bridge.min.js is the .NET runtime for JavaScript; it must come before the language service compiled onto it.
_SCRIPTS = ("bridge.min.js", "Kusto.Language.Bridge.min.js")
_PACKAGE = Path("@kusto", "language-service-next")

# bridge.min.js prints through `console`, which V8 alone has not got. `$ctor7` is the constructor overload
# (name, schema, description); the bridge numbers overloads, and Kusto.Language.Bridge.d.ts lists them.
_PROLOGUE = "var console = {log() {}, warn() {}, error() {}}; null"
_CHECKER = """
var watchdogGlobals = null;
function declareTables(tables) {
  const schema = columns => "(" + Object.entries(columns).map(([c, t]) => c + ": " + t).join(", ") + ")";
  const symbols = Object.entries(tables).map(([name, columns]) =>
    new Kusto.Language.Symbols.TableSymbol.$ctor7(name, schema(columns), null));
  const database = new Kusto.Language.Symbols.DatabaseSymbol.ctor("workspace", symbols);
  watchdogGlobals = Kusto.Language.GlobalState.Default.WithDatabase(database);
  return symbols.map(s => s.Columns.Count);
}
function list(items) { return Array.from({length: items ? items.Count : 0}, (_, i) => items.getItem(i)); }
function checkQuery(text) {
  const code = Kusto.Language.KustoCode.ParseAndAnalyze(text, watchdogGlobals);
  return {
    diagnostics: list(code.GetDiagnostics()).map(d =>
      ({code: d.Code, severity: d.Severity, message: d.Message, start: d.Start, length: d.Length})),
    columns: list(code.ResultType && code.ResultType.Columns).map(c => [c.Name, c.Type.Name]),
  };
}
null
"""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding of the parser, with the line it is on and the words it is about."""

    code: str
    severity: str
    message: str
    line: int
    words: str

    def __str__(self) -> str:
        return f"line {self.line}, {self.words!r}: {self.severity} {self.code}: {self.message}"


@dataclass(frozen=True, slots=True)
class Checked:
    """What the parser says of one query."""

    diagnostics: tuple[Diagnostic, ...]
    columns: Columns

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        return tuple(d for d in self.diagnostics if d.severity == "Error")


class KustoChecker:
    """The parser, loaded once (about a second), with the tables declared."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    @classmethod
    def load(cls, node_modules: Path, tables: Mapping[str, Mapping[str, str]]) -> Self:
        """Load the language service and declare ``tables`` (table -> column -> Kusto type).

        Raises ``FileNotFoundError`` or ``ImportError`` where a tool is missing.
        """
        from py_mini_racer import MiniRacer  # noqa: PLC0415 - a tool that may be missing

        engine = MiniRacer()
        engine.eval(_PROLOGUE)
        for script in _SCRIPTS:
            engine.eval((node_modules / _PACKAGE / script).read_text(encoding="utf-8-sig") + "\n;null")
        engine.eval(_CHECKER)
        counted = _answer(engine, f"declareTables({json.dumps(tables)})")
        if counted != [len(columns) for columns in tables.values()]:
            raise ValueError(f"the parser took {counted} columns of tables {sorted(tables)}")
        return cls(engine)

    def check(self, kql: str) -> Checked:
        """Parse and bind ``kql`` against the declared tables."""
        answer = _answer(self._engine, f"checkQuery({json.dumps(kql)})")
        return Checked(
            tuple(
                Diagnostic(
                    d["code"],
                    d["severity"],
                    d["message"],
                    kql.count("\n", 0, d["start"]) + 1,
                    kql[d["start"] : d["start"] + d["length"]],
                )
                for d in answer["diagnostics"]
            ),
            tuple((name, kind) for name, kind in answer["columns"]),
        )


def declared_columns(kql: str) -> Columns | None:
    """What the file's ``// returns:`` header promises, or None where it has none.

    Raises ``ValueError`` for a header that cannot be read: a promise that is skipped protects nobody.
    """
    header = re.search(r"^//\s*returns:(.*)$", kql, re.MULTILINE)
    if header is None:
        return None
    columns = [re.fullmatch(r"\s*(\w+)\s*:\s*(\w+)\s*", part) for part in header[1].split(",")]
    if None in columns:
        raise ValueError(f"the header must read '// returns: Name:type, ...', it is {header[0]!r}")
    return tuple((column[1], column[2]) for column in columns if column)


def _answer(engine: Any, expression: str) -> Any:
    return json.loads(engine.eval(f"JSON.stringify({expression})"))
