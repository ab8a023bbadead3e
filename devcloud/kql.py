"""KQL over the local tables: the one place that knows the ``duckdb-kql`` package.

Executes the query text it is given; it recognises no particular query. What the engine can't run is refused
with a clear error, never answered by a guess. Known difference: column names match whatever their case, where
Kusto is case-sensitive; Microsoft's own parser is the gate for names.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import duckdb
import duckdb_kql
import isodate  # type: ignore[import-untyped]
from duckdb_kql.types import kusto_type

from devcloud.log_tables import TABLES, LogTables

_SCHEMA = {table: list(columns) for table, columns in TABLES.items()}


class KqlRefused(Exception):  # noqa: N818 - what happened, in the service's word
    """A query that can't be run; ``code`` is the API's inner error code."""

    def __init__(self, code: str, message: str, line: int = 0, position: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.line = line
        self.position = position


@dataclass(frozen=True, slots=True)
class Result:
    """A query's table: (name, Kusto type) pairs, and rows as Python values (dynamic as JSON text)."""

    columns: list[tuple[str, str]]
    rows: list[tuple[Any, ...]]

    def records(self) -> list[dict[str, Any]]:
        """The rows as dictionaries."""
        names = [name for name, _ in self.columns]
        return [dict(zip(names, row, strict=True)) for row in self.rows]


class KqlEngine:
    """Runs KQL over ``tables``."""

    def __init__(self, tables: LogTables) -> None:
        self._tables = tables

    def query(self, kql: str, timespan: str | timedelta | None = None) -> Result:
        """Run ``kql`` over the rows whose TimeGenerated lies in ``timespan`` (ISO 8601, as the API takes it).

        Raises KqlRefused; a time span that can't be read is ``BadArgumentError``.
        """
        start, end = _limits(timespan, datetime.now(UTC))
        sql = _translate(kql)
        try:
            columns, rows = self._tables.run(sql, start, end)
        except duckdb.ProgrammingError as problem:  # unknown column, table or function; wrong types
            raise KqlRefused("SemanticError", str(problem).split("\n", maxsplit=1)[0]) from problem
        except duckdb.Error as problem:
            raise KqlRefused("EngineError", str(problem)) from problem
        typed = [(name, kusto_type(kind)) for name, kind in columns]
        kinds = [kind for _, kind in typed]
        values = [tuple(map(_kusto_value, kinds, row)) for row in rows]
        return Result(typed, values)


@lru_cache(maxsize=256)
def _translate(kql: str) -> str:
    """DuckDB SQL for ``kql``; ``now()`` stays a function, so the text can be kept (14 ms to make)."""
    if kql.lstrip().startswith("."):
        raise KqlRefused("SyntaxError", "management commands can't be sent to the query API")
    try:
        return str(duckdb_kql.to_sql(kql, schema=_SCHEMA, allow_write=False))
    except duckdb_kql.KqlSyntaxError as problem:
        first = problem.diagnostics[0] if problem.diagnostics else None
        line, column = (first.span.line, first.span.column) if first else (0, 0)
        raise KqlRefused("SyntaxError", str(problem), line, column) from problem
    except duckdb_kql.KqlUnsupportedError as problem:
        raise KqlRefused("NotRunLocally", f"the local KQL engine refuses this: {problem}") from problem
    except duckdb_kql.KqlError as problem:
        raise KqlRefused("SemanticError", str(problem)) from problem


def _kusto_value(kind: str, value: Any) -> Any:
    if value is None:
        # Kusto has no null strings; DuckDB gives NULL, for example after an outer join.
        return "" if kind == "string" else None
    if kind == "datetime":
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if kind == "dynamic" and not isinstance(value, str):
        return json.dumps(value, default=str)
    if kind == "guid":
        return str(value)
    return value


def _limits(timespan: str | timedelta | None, now: datetime) -> tuple[datetime | None, datetime | None]:
    if timespan is None or timespan == "":
        return None, None
    if isinstance(timespan, timedelta):
        return now - timespan, now
    try:
        first, _, second = timespan.partition("/")
        if not second:
            return now - _duration(first), now
        if first.startswith("P"):
            end = _moment(second)
            return end - _duration(first), end
        start = _moment(first)
        return start, start + _duration(second) if second.startswith("P") else _moment(second)
    except (ValueError, isodate.ISO8601Error) as problem:
        raise KqlRefused(
            "BadArgumentError", f"timespan: got {timespan!r}, must be ISO 8601 such as PT5M or START/END"
        ) from problem


def _duration(text: str) -> timedelta:
    value = isodate.parse_duration(text)
    if not isinstance(value, timedelta):
        raise ValueError(f"{text}: years and months have no fixed length")  # noqa: TRY004
    return value


def _moment(text: str) -> datetime:
    # At most six digits of a second fit; the service writes seven.
    moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
