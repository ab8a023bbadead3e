"""VmState and Notice <-> JSON, as they stand in Table Storage and travel on queues."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from vm_health.errors import WireError
from vm_health.fields import Fields, load_object
from vm_health.model import Cause, Status
from vm_health.state import Incident, Notice, NoticeKind, UnitState, VmState

STATE_SCHEMA = 1
MAX_STATE_CHARS = 32_000  # a Table Storage string property holds 32 Ki UTF-16 units


def encode_state(state: VmState) -> str:
    """Return ``state`` as compact JSON.

    Raises:
        WireError: it is longer than the table's column.
    """
    text = json.dumps(_state_to_dict(state), separators=(",", ":"), default=_jsonable)
    if len(text) > MAX_STATE_CHARS:
        raise WireError([f"state must be at most {MAX_STATE_CHARS} characters, has {len(text)}"])
    return text


def decode_state(text: str) -> VmState:
    """Parse what :func:`encode_state` wrote.

    Raises:
        WireError: with every fault found.
    """
    faults: list[str] = []
    fields = Fields(load_object(text, MAX_STATE_CHARS, faults), "", faults)
    if fields.whole("schema") != STATE_SCHEMA:
        fields.fault("schema", str(STATE_SCHEMA))
    incident = fields.child("incident")
    is_soft = fields.whole("soft_looks") > 0
    state = VmState(
        status=_status(fields),
        cause=_cause(fields),
        subjects=fields.texts("subjects"),
        reason=fields.text("reason", max_chars=4_096),
        since=fields.optional_moment("since"),
        soft_status=_status(fields, "soft_status") if is_soft else None,
        soft_cause=_cause(fields, "soft_cause") if is_soft else None,
        soft_looks=fields.whole("soft_looks"),
        units={item.text("name"): _read_unit(item) for item in fields.children("units")},
        incident=None if incident is None else _read_incident(incident),
        sequence=fields.whole("sequence"),
        next_look_at=fields.optional_moment("next_look_at"),
        endpoint=fields.text("endpoint", ""),
        was_reached=fields.flag("was_reached"),
        off_at=fields.optional_moment("off_at"),
        outbox=tuple(_read_notice(item) for item in fields.children("outbox")),
    )
    if faults:
        raise WireError(faults[:20])
    return state


def _state_to_dict(state: VmState) -> dict[str, Any]:
    return {
        "schema": STATE_SCHEMA,
        "status": state.status,
        "cause": state.cause,
        "subjects": state.subjects,
        "reason": state.reason,
        "since": state.since,
        "soft_status": state.soft_status,
        "soft_cause": state.soft_cause,
        "soft_looks": state.soft_looks,
        "units": [{"name": name, **asdict(unit)} for name, unit in sorted(state.units.items())],
        "incident": None if state.incident is None else asdict(state.incident),
        "sequence": state.sequence,
        "next_look_at": state.next_look_at,
        "endpoint": state.endpoint,
        "was_reached": state.was_reached,
        "off_at": state.off_at,
        "outbox": [asdict(notice) for notice in state.outbox],
    }


def encode_units(units: Mapping[str, UnitState]) -> str:
    """Return the repair of ``units`` as JSON, as the agent keeps it for its own."""
    found = [{"name": name, **asdict(unit)} for name, unit in sorted(units.items())]
    return json.dumps({"schema": STATE_SCHEMA, "units": found}, default=_jsonable)


def decode_units(text: str) -> dict[str, UnitState]:
    """Parse what :func:`encode_units` wrote.

    Raises:
        WireError: with every fault found.
    """
    faults: list[str] = []
    fields = Fields(load_object(text, MAX_STATE_CHARS, faults), "", faults)
    if fields.whole("schema") != STATE_SCHEMA:
        fields.fault("schema", str(STATE_SCHEMA))
    units = {item.text("name"): _read_unit(item) for item in fields.children("units")}
    if faults:
        raise WireError(faults[:20])
    return units


def encode_notice(notice: Notice) -> str:
    """Return ``notice`` as compact JSON, as it travels on the alerts queue."""
    return json.dumps(asdict(notice), separators=(",", ":"), default=_jsonable)


def decode_notice(text: str) -> Notice:
    """Parse what :func:`encode_notice` wrote.

    Raises:
        WireError: with every fault found.
    """
    faults: list[str] = []
    notice = _read_notice(Fields(load_object(text, MAX_STATE_CHARS, faults), "", faults))
    if faults:
        raise WireError(faults[:20])
    return notice


def _read_notice(fields: Fields) -> Notice:
    """Read a notice from a JSON object, noting faults in it."""
    return Notice(
        kind=fields.choice("kind", NoticeKind, ", ".join(NoticeKind)) or NoticeKind.FIRED,
        key=fields.text("key"),
        vm_id=fields.text("vm_id"),
        incident_id=fields.text("incident_id"),
        status=_status(fields),
        cause=_cause(fields),
        subjects=fields.texts("subjects"),
        reason=fields.text("reason", max_chars=4_096),
        opened_at=fields.moment("opened_at"),
        at=fields.moment("at"),
        attempts=fields.whole("attempts", 0),
    )


def _read_unit(item: Fields) -> UnitState:
    return UnitState(
        attempts=item.whole("attempts"),
        not_before=item.optional_moment("not_before"),
        last_attempt_at=item.optional_moment("last_attempt_at"),
        up_since=item.optional_moment("up_since"),
        circuit_open=item.flag("circuit_open"),
        command=item.text("command", ""),
    )


def _read_incident(item: Fields) -> Incident:
    return Incident(
        item.text("id"), item.moment("opened_at"), _status(item), _cause(item), item.texts("subjects")
    )


def _status(fields: Fields, name: str = "status") -> Status:
    return fields.choice(name, Status, ", ".join(Status)) or Status.UNKNOWN


def _cause(fields: Fields, name: str = "cause") -> Cause:
    return fields.choice(name, Cause, "the known causes") or Cause.OK


def _jsonable(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")
