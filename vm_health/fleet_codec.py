"""FleetState, slots and silences <-> JSON, as they stand in Table Storage.

Nothing is written that could not be read again, and a fleet of any size fits its row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from vm_health.errors import WireError
from vm_health.fields import Fields, load_object
from vm_health.fleet import FleetState, Freeze, Slot
from vm_health.json_parts import MAX_REASON_CHARS, dump, lean, plain, read_cause, readable
from vm_health.notice_codec import notices_to_list, read_notice
from vm_health.silence import Matcher, Silence, Stops
from vm_health.state_codec import MAX_STATE_CHARS

T = TypeVar("T")

FLEET_SCHEMA = 1
MAX_GROUPS = 2_000
MAX_SLOTS = 5_000
MAX_SILENCE_CHARS = 30_000


def encode_fleet(state: FleetState) -> str:
    """Return ``state`` as compact JSON. Of too many groups the largest are kept: one that is not known counts
    as small, and the budget of a small group is one VM.

    Raises:
        WireError: even without groups it is longer than a table's row.
    """
    by_size = sorted(state.groups.items(), key=lambda pair: (-pair[1], pair[0]))
    kept = MAX_GROUPS
    while True:
        groups = [{"name": name, "vms": vms} for name, vms in sorted(by_size[:kept])]
        text = dump(_fleet_to_dict(state) | lean({"groups": groups}))
        if len(text) <= MAX_STATE_CHARS or not kept:
            return _checked("fleet state", text, MAX_STATE_CHARS)
        kept //= 2


def decode_fleet(text: str) -> FleetState:
    """Parse what :func:`encode_fleet` wrote.

    Raises:
        WireError: with every fault found.
    """
    faults: list[str] = []
    fields = _with_schema(text, MAX_STATE_CHARS, faults)
    groups = fields.children("groups", MAX_GROUPS)
    state = FleetState(
        vm_count=fields.whole("vm_count", 0),
        shrunk_since=fields.optional_moment("shrunk_since"),
        groups={item.text("name"): item.whole("vms") for item in groups},
        freezes=tuple(_read_freeze(item) for item in fields.children("freezes")),
        canary_was_seen=fields.flag("canary_was_seen"),
        telemetry_failing_since=fields.optional_moment("telemetry_failing_since"),
        inventory_failing_since=fields.optional_moment("inventory_failing_since"),
        thawed_until=fields.optional_moment("thawed_until"),
        thawed_by=fields.text("thawed_by", "", MAX_REASON_CHARS),
        sequence=fields.whole("sequence", 0),
        outbox=tuple(read_notice(item) for item in fields.children("outbox")),
    )
    return _without_faults(state, faults)


def encode_slots(slots: Sequence[Slot]) -> str:
    """Return who is in restart as compact JSON.

    Raises:
        WireError: it is longer than a table's row.
    """
    text = dump({"schema": FLEET_SCHEMA, "slots": [plain(slot) for slot in slots]})
    return _checked("slots", text, MAX_STATE_CHARS)


def decode_slots(text: str) -> tuple[Slot, ...]:
    """Parse what :func:`encode_slots` wrote.

    Raises:
        WireError: with every fault found.
    """
    faults: list[str] = []
    fields = _with_schema(text, MAX_STATE_CHARS, faults)
    items = fields.children("slots", MAX_SLOTS)
    return _without_faults(tuple(Slot(item.text("vm"), item.moment("until")) for item in items), faults)


def encode_silence(silence: Silence) -> str:
    """Return ``silence`` as compact JSON.

    Raises:
        WireError: it could not be read again, a text in it being too long.
    """
    text = dump({"schema": FLEET_SCHEMA, **silence_to_dict(silence)})
    decode_silence(text)  # a person's words, never cut: refused now, while the person is there
    return text


def decode_silence(text: str) -> Silence:
    """Parse what :func:`encode_silence` wrote.

    Raises:
        WireError: with every fault found.
    """
    faults: list[str] = []
    fields = _with_schema(text, MAX_SILENCE_CHARS, faults)
    match = fields.child("match")
    silence = Silence(
        id=fields.text("id"),
        match=Matcher() if match is None else _read_matcher(match),
        starts_at=fields.moment("starts_at"),
        ends_at=fields.moment("ends_at"),
        stops=fields.choice("stops", Stops, ", ".join(Stops)) or Stops.ALERTS,
        created_by=fields.text("created_by"),
        why=fields.text("why"),
    )
    if match is None:  # absent must not mean "every VM"
        fields.fault("match", "an object")
    return _without_faults(silence, faults)


def silence_to_dict(silence: Silence) -> dict[str, Any]:
    """Return ``silence`` as JSON-ready values, but for its moments."""
    match = {"vm": silence.match.vm, "group": silence.match.group}
    if silence.match.tag is not None:
        match |= {"tag": silence.match.tag[0], "tag_value": silence.match.tag[1]}
    return {
        "id": silence.id,
        "match": match,
        "starts_at": silence.starts_at,
        "ends_at": silence.ends_at,
        "stops": silence.stops,
        "created_by": silence.created_by,
        "why": silence.why,
    }


def _fleet_to_dict(state: FleetState) -> dict[str, Any]:
    optional = {
        "vm_count": state.vm_count,
        "shrunk_since": state.shrunk_since,
        "freezes": [
            plain(freeze) | {"reason": readable(freeze.reason, MAX_REASON_CHARS)} for freeze in state.freezes
        ],
        "canary_was_seen": state.canary_was_seen,
        "telemetry_failing_since": state.telemetry_failing_since,
        "inventory_failing_since": state.inventory_failing_since,
        "thawed_until": state.thawed_until,
        "thawed_by": readable(state.thawed_by, MAX_REASON_CHARS),
        "sequence": state.sequence,
        "outbox": notices_to_list(state.outbox),
    }
    return {"schema": FLEET_SCHEMA} | lean(optional)


def _read_freeze(item: Fields) -> Freeze:
    return Freeze(
        cause=read_cause(item),
        reason=item.text("reason", max_chars=MAX_REASON_CHARS),
        since=item.moment("since"),
        incident_id=item.text("incident_id"),
        scope=item.text("scope"),
    )


def _read_matcher(item: Fields) -> Matcher:
    tag = item.text("tag", "")
    return Matcher(
        item.text("vm", ""), item.text("group", ""), (tag, item.text("tag_value", "")) if tag else None
    )


def _with_schema(text: str, max_chars: int, faults: list[str]) -> Fields:
    fields = Fields(load_object(text, max_chars, faults), "", faults)
    if fields.whole("schema") != FLEET_SCHEMA:
        fields.fault("schema", str(FLEET_SCHEMA))
    return fields


def _checked(what: str, text: str, max_chars: int) -> str:
    if len(text) > max_chars:
        raise WireError([f"{what} must be at most {max_chars} characters, has {len(text)}"])
    return text


def _without_faults(value: T, faults: list[str]) -> T:
    if faults:
        raise WireError(faults[:20])
    return value
