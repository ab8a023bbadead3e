"""Watched units over D-Bus: one question for all states, one batch for their properties."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from vm_agent.systemd_bus import SYSTEMD, Bus, BusRefusalError, get_property, manager_call
from vm_health.errors import TransientError
from vm_health.model import UnitSample

_MAX_COUNT = 2**31
_MAX_BYTES = 2**63  # systemd says 2^64-1 where it does not know
_WHOLE_LOOK_SECONDS = 60.0
# What to ask, by suffix; GetAll would be one call, but its 250 properties take ten times as long to read.
_UNIT = f"{SYSTEMD}.Unit"
_PROPERTIES = {
    "service": ("Type", "Result", "NRestarts", "MainPID", "MemoryCurrent"),
    "socket": ("Result", "MemoryCurrent"),
    "mount": ("Result", "MemoryCurrent"),
    "timer": ("Result",),
    "path": ("Result",),
}


class BusUnits:
    """Looks at units over one connection, which is made when it is needed and dropped when it fails.

    ``changes`` counts what was heard of the units, None while nobody listens. As long as that and a unit's
    states stay as they are, only what no signal tells (its memory) is asked for; once a minute, everything.
    """

    def __init__(
        self,
        bus_path: str,
        timeout_seconds: float,
        changes: Callable[[], int | None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus_path = bus_path
        self._timeout_seconds = timeout_seconds
        self._changes = changes
        self._monotonic = monotonic
        self._bus: Bus | None = None
        self._known: list[_Seen] = []
        self._known_changes: int | None = None
        self._whole_again_at = 0.0

    def show(self, units: Sequence[str]) -> tuple[UnitSample, ...]:
        """Return the state of all ``units``, in their order.

        Raises:
            TransientError: the bus or systemd did not answer properly within the time-out.
        """
        deadline = time.monotonic() + self._timeout_seconds
        is_old = self._bus is not None
        try:
            return self._look(units, deadline)
        except TransientError:
            self.close()
            if not is_old:
                raise
        # The bus may have been restarted since the last look, which an old connection hears of only now.
        try:
            return self._look(units, deadline)
        except TransientError:
            self.close()
            raise

    def _look(self, units: Sequence[str], deadline: float) -> tuple[UnitSample, ...]:
        bus = self._bus = self._bus or Bus(self._bus_path, max(0.1, deadline - time.monotonic()))
        changes = self._changes()  # before the look: what is heard during it makes the next one whole
        rows = list_units(bus, units, deadline - time.monotonic())
        known: list[_Seen | None] = [None] * len(rows)
        at_seconds = self._monotonic()
        is_whole = changes is None or changes != self._known_changes or at_seconds >= self._whole_again_at
        if not is_whole:
            known = [seen if seen.fits(row) else None for seen, row in zip(self._known, rows, strict=True)]
        self._known = _with_properties(bus, units, rows, known, deadline - time.monotonic())
        self._known_changes = changes
        if is_whole:
            self._whole_again_at = at_seconds + _WHOLE_LOOK_SECONDS
        return tuple(
            unit_sample(unit, seen.row, seen.properties)
            for unit, seen in zip(units, self._known, strict=True)
        )

    def close(self) -> None:
        """Drop the connection; the next look makes a new one."""
        if self._bus is not None:
            self._bus.close()
            self._bus = None
        self._known_changes = None


def list_units(bus: Bus, units: Sequence[str], timeout_seconds: float) -> list[Any]:
    """Return systemd's row for each unit: name, description, load, active, sub state, …, object path.

    Raises:
        TransientError: no answer, a refusal, or not a row for each unit.
    """
    (answer,) = bus.ask([manager_call("ListUnitsByNames", "as", (list(units),))], timeout_seconds)
    if isinstance(answer, BusRefusalError):
        raise answer
    rows: list[Any] = answer[0]
    if len(rows) != len(units):
        raise TransientError(f"systemd told of {len(rows)} units, asked were {len(units)}")
    return rows


@dataclass(frozen=True, slots=True)
class _Seen:
    """A unit's row in the list, and its properties."""

    row: Sequence[Any]
    properties: dict[str, Any]

    def fits(self, row: Sequence[Any]) -> bool:
        """Tell whether ``row`` names the same states and the same object."""
        return bool(row[2:5] == self.row[2:5] and row[6] == self.row[6])


def _with_properties(
    bus: Bus,
    units: Sequence[str],
    rows: Sequence[Any],
    known: Sequence[_Seen | None],
    timeout_seconds: float,
) -> list[_Seen]:
    found = [
        _Seen(row, {} if seen is None else dict(seen.properties))
        for row, seen in zip(rows, known, strict=True)
    ]
    wanted = [
        (place, interface, name)
        for place, (unit, row, seen) in enumerate(zip(units, rows, known, strict=True))
        if row[2] == "loaded"  # asking for more would have systemd load the others once more
        for interface, name in _questions(unit)
        if seen is None or name == "MemoryCurrent"
    ]
    questions = [get_property(rows[place][6], interface, name) for place, interface, name in wanted]
    answers = bus.ask(questions, timeout_seconds) if questions else []
    for (place, _, name), answer in zip(wanted, answers, strict=True):
        if not isinstance(answer, BusRefusalError):
            found[place].properties[name] = answer[0][1]
    return found


def _questions(unit: str) -> Iterator[tuple[str, str]]:
    kind = unit.rpartition(".")[2]
    yield _UNIT, "ActiveEnterTimestamp"
    yield _UNIT, "InactiveExitTimestamp"
    for name in _PROPERTIES.get(kind, ()):
        yield f"{SYSTEMD}.{kind.capitalize()}", name


def unit_sample(unit: str, row: Sequence[Any], properties: dict[str, Any]) -> UnitSample:
    """Put a sample together from systemd's row and properties; what is missing gets the model's default."""
    memory = properties.get("MemoryCurrent", 0)
    return UnitSample(
        name=unit,
        load_state=row[2],
        active_state=row[3],
        sub_state=row[4],
        service_type=properties.get("Type") or "simple",
        result=properties.get("Result") or "success",
        restarts=min(properties.get("NRestarts", 0), _MAX_COUNT),
        main_pid=properties.get("MainPID", 0),
        active_since=_moment(properties.get("ActiveEnterTimestamp", 0)),
        memory_bytes=memory if memory < _MAX_BYTES else 0,
        started_at=_moment(properties.get("InactiveExitTimestamp", 0)),
    )


def _moment(microseconds: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(microseconds // 1_000_000, UTC) if microseconds else None
    except (ValueError, OverflowError, OSError):
        return None
