"""VmState <-> JSON, as it stands in Table Storage; the agent keeps its own units in the same form.

What an older version wrote is read with defaults for what it did not know. What is at its default is not
written, to keep rows short. Nothing is written that could not be read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vm_health.errors import WireError
from vm_health.fields import Fields, load_object
from vm_health.json_parts import MAX_REASON_CHARS, dump, lean, plain, read_cause, read_status, readable
from vm_health.notice_codec import decode_notice, encode_notice, notices_to_list, read_notice
from vm_health.state import CommandRef, Incident, Lane, UnitState, VmAction, VmActionKind, VmState

__all__ = [
    "MAX_STATE_CHARS",
    "decode_notice",
    "decode_state",
    "decode_units",
    "encode_notice",
    "encode_state",
    "encode_units",
]

STATE_SCHEMA = 1
# A table row holds 1 MiB of UTF-16 in all. JSON is written in ASCII, two bytes a character there: this is
# 960,000 bytes, which leaves room for the other columns.
MAX_STATE_CHARS = 480_000
MAX_OPERATION_CHARS = 8_192  # Azure signs these paths: they are long


def encode_state(state: VmState) -> str:
    """Return ``state`` as compact JSON.

    Raises:
        WireError: it is longer than a table's row.
    """
    text = dump(_state_to_dict(state))
    if len(text) > MAX_STATE_CHARS:
        raise WireError([f"state must be at most {MAX_STATE_CHARS} characters, has {len(text)}"])
    return text


def decode_state(text: str) -> VmState:
    """Parse what :func:`encode_state` wrote.

    Raises:
        WireError: with every fault found.
    """
    faults: list[str] = []
    fields = _with_schema(text, faults)
    incident = fields.child("incident")
    soft_looks = fields.whole("soft_looks", 0)
    state = VmState(
        status=read_status(fields),
        cause=read_cause(fields),
        subjects=fields.texts("subjects"),
        reason=fields.text("reason", max_chars=MAX_REASON_CHARS),
        since=fields.optional_moment("since"),
        soft_status=read_status(fields, "soft_status") if soft_looks else None,
        soft_cause=read_cause(fields, "soft_cause") if soft_looks else None,
        soft_looks=soft_looks,
        units={item.text("name"): _read_unit(item) for item in fields.children("units")},
        incident=None if incident is None else _read_incident(incident),
        sequence=fields.whole("sequence", 0),
        next_look_at=fields.optional_moment("next_look_at"),
        endpoint=fields.text("endpoint", ""),
        was_reached=fields.flag("was_reached"),
        off_at=fields.optional_moment("off_at"),
        back_at=fields.optional_moment("back_at"),
        outbox=tuple(read_notice(item) for item in fields.children("outbox")),
        changes=fields.text("changes", ""),
        is_flapping=fields.flag("is_flapping"),
        vm_actions=tuple(_read_vm_action(item) for item in fields.children("vm_actions")),
        instance_id=fields.text("instance_id", ""),
        clock_offset_seconds=fields.optional_number("clock_offset_seconds") or 0.0,
        excused_since=fields.optional_moment("excused_since"),
        gone_since=fields.optional_moment("gone_since"),
    )
    if faults:
        raise WireError(faults[:20])
    return state


def encode_units(units: Mapping[str, UnitState]) -> str:
    """Return the repair of ``units`` as JSON, as the agent keeps it for its own."""
    return dump({"schema": STATE_SCHEMA, "units": _units_to_list(units)})


def decode_units(text: str) -> dict[str, UnitState]:
    """Parse what :func:`encode_units` wrote.

    Raises:
        WireError: with every fault found.
    """
    faults: list[str] = []
    fields = _with_schema(text, faults)
    units = {item.text("name"): _read_unit(item) for item in fields.children("units")}
    if faults:
        raise WireError(faults[:20])
    return units


def _with_schema(text: str, faults: list[str]) -> Fields:
    fields = Fields(load_object(text, MAX_STATE_CHARS, faults), "", faults)
    if fields.whole("schema") != STATE_SCHEMA:
        fields.fault("schema", str(STATE_SCHEMA))
    return fields


def _state_to_dict(state: VmState) -> dict[str, Any]:
    always = {
        "schema": STATE_SCHEMA,
        "status": state.status,
        "cause": state.cause,
        "reason": readable(state.reason, MAX_REASON_CHARS),
    }
    optional = {
        "subjects": state.subjects,
        "since": state.since,
        "soft_status": state.soft_status,
        "soft_cause": state.soft_cause,
        "soft_looks": state.soft_looks,
        "units": _units_to_list(state.units),
        "incident": None if state.incident is None else plain(state.incident),
        "sequence": state.sequence,
        "next_look_at": state.next_look_at,
        "endpoint": state.endpoint,
        "was_reached": state.was_reached,
        "off_at": state.off_at,
        "back_at": state.back_at,
        "outbox": notices_to_list(state.outbox),
        "changes": state.changes,
        "is_flapping": state.is_flapping,
        "vm_actions": [plain(action) for action in state.vm_actions],
        "instance_id": state.instance_id,
        "clock_offset_seconds": state.clock_offset_seconds,
        "excused_since": state.excused_since,
        "gone_since": state.gone_since,
    }
    return always | lean(optional)


def _units_to_list(units: Mapping[str, UnitState]) -> list[dict[str, Any]]:
    return [{"name": name, **_unit_to_dict(unit)} for name, unit in sorted(units.items())]


def _unit_to_dict(unit: UnitState) -> dict[str, Any]:
    values = lean(plain(unit))
    if unit.held:
        values["held"] = readable(unit.held, MAX_REASON_CHARS)
    if unit.command is not None:
        command = unit.command
        # Cut, a path leads nowhere: without one, the result counts as lost, and that is told.
        fits = len(command.operation) <= MAX_OPERATION_CHARS
        values["command"] = command.token
        values |= {"lane": command.lane} if command.lane is not Lane.MANAGED else {}
        values |= {"operation": command.operation} if command.operation and fits else {}
    return values


def _read_unit(item: Fields) -> UnitState:
    return UnitState(
        attempts=item.whole("attempts", 0),
        not_before=item.optional_moment("not_before"),
        last_attempt_at=item.optional_moment("last_attempt_at"),
        up_since=item.optional_moment("up_since"),
        circuit_open=item.flag("circuit_open"),
        command=_read_command(item),
        held=item.text("held", "", MAX_REASON_CHARS),
    )


def _read_command(item: Fields) -> CommandRef | None:
    token = item.text("command", "")
    if not token:
        return None
    lane: Lane | None = Lane.MANAGED
    if item.text("lane", Lane.MANAGED) != Lane.MANAGED:
        lane = item.choice("lane", Lane, ", ".join(Lane))
    return CommandRef(token, lane or Lane.MANAGED, item.text("operation", "", MAX_OPERATION_CHARS))


def _read_incident(item: Fields) -> Incident:
    return Incident(
        id=item.text("id"),
        opened_at=item.moment("opened_at"),
        status=read_status(item),
        cause=read_cause(item),
        subjects=item.texts("subjects"),
        told_at=item.optional_moment("told_at"),
        seen=item.texts("seen"),
        given_up=item.texts("given_up"),
    )


def _read_vm_action(item: Fields) -> VmAction:
    kind = item.choice("kind", VmActionKind, ", ".join(VmActionKind)) or VmActionKind.RESTART
    return VmAction(kind, item.moment("at"), item.text("token"))
