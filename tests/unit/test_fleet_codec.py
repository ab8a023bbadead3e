"""The fleet's state, slots and silences survive Table Storage; what was written by nobody is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import a_notice, at
from vm_health.errors import WireError
from vm_health.fleet import FleetState, Freeze, Slot
from vm_health.fleet_codec import (
    MAX_GROUPS,
    decode_fleet,
    decode_silence,
    decode_slots,
    encode_fleet,
    encode_silence,
    encode_slots,
)
from vm_health.model import Cause
from vm_health.silence import Matcher, Silence, Stops, silence_faults
from vm_health.state_codec import MAX_STATE_CHARS

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
counts = st.integers(0, 10**9)
moments = st.datetimes(
    datetime(2000, 1, 2),  # noqa: DTZ001 - hypothesis adds the zone
    datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
perhaps = st.none() | moments
freezes = st.builds(Freeze, st.sampled_from(Cause), texts, moments, texts, texts)
fleets = st.builds(
    FleetState,
    vm_count=counts,
    shrunk_since=perhaps,
    groups=st.dictionaries(texts, counts, max_size=3),
    freezes=st.lists(freezes, max_size=3).map(tuple),
    canary_was_seen=st.booleans(),
    thawed_until=perhaps,
    thawed_by=texts,
    sequence=counts,
    outbox=st.lists(texts.map(lambda text: a_notice(reason=text)), max_size=2).map(tuple),
)
tags = st.none() | st.tuples(texts.filter(bool), texts)
silences = st.builds(
    Silence,
    id=texts,
    match=st.builds(Matcher, vm=texts, group=texts, tag=tags),
    starts_at=moments,
    ends_at=moments,
    stops=st.sampled_from(Stops),
    created_by=texts,
    why=texts,
)
A_FREEZE = Freeze(Cause.CANARY_FAILED, "no own event came back", at(0), "fleet-1")
A_FLEET = FleetState(
    vm_count=3, groups={"rg-web": 3}, freezes=(A_FREEZE,), thawed_until=at(60), outbox=(a_notice(),)
)
A_SILENCE = Silence("s-1", Matcher(group="rg-*"), at(0), at(60), Stops.ACTION, "anna", "new kernel")


@given(fleets)
def test_any_fleet_comes_back_as_it_was(state: FleetState) -> None:
    text = encode_fleet(state)
    assert decode_fleet(text) == state
    assert encode_fleet(decode_fleet(text)) == text
    assert text.isascii()


@given(st.lists(st.builds(Slot, texts, moments), max_size=4).map(tuple))
def test_any_slots_come_back_as_they_were(slots: tuple[Slot, ...]) -> None:
    assert decode_slots(encode_slots(slots)) == slots


@given(silences)
def test_any_silence_comes_back_as_it_was(silence: Silence) -> None:
    assert decode_silence(encode_silence(silence)) == silence


def test_a_fleet_at_its_beginning_is_hardly_anything() -> None:
    assert json.loads(encode_fleet(FleetState())) == {"schema": 1}
    assert decode_fleet('{"schema":1}') == FleetState()


def test_of_too_many_groups_the_large_ones_are_kept() -> None:
    """One that is not known has the budget of a small one, which is what the small ones have anyway."""
    groups = {f"group-{number:05}": number for number in range(MAX_GROUPS + 500)}
    found = decode_fleet(encode_fleet(replace(A_FLEET, groups=groups)))
    assert found.groups == {name: size for name, size in groups.items() if size >= 500}


@pytest.mark.parametrize("name", ["g" * 85, "g" * 250, "ü" * 250])
def test_the_largest_fleet_fits_its_row(name: str) -> None:
    """Groups have up to 256 characters, shards are 16 at most, each with a freeze of every cause."""
    groups = {f"{name}{number:05}": number for number in range(9_000)}
    freezes = tuple(replace(A_FREEZE, scope=f"shard {number} of 16") for number in range(64))
    state = replace(A_FLEET, groups=groups, freezes=freezes, outbox=(a_notice(),) * 20)
    assert len(encode_fleet(state)) <= MAX_STATE_CHARS
    found = decode_fleet(encode_fleet(state))
    assert (found.freezes, found.outbox) == (freezes, state.outbox)
    assert min(found.groups.values()) == 9_000 - len(found.groups)
    assert len(found.groups) >= 250


def test_half_a_character_does_not_make_the_fleet_unreadable() -> None:
    state = replace(
        A_FLEET,
        freezes=(replace(A_FREEZE, reason="\udcff" + "x" * 9_000),),
        thawed_by="\udcff",
        outbox=(a_notice(reason="\udcff"),),
    )
    found = decode_fleet(encode_fleet(state))
    assert found.freezes[0].reason.startswith("?xxx")
    assert (found.thawed_by, found.outbox[0].reason) == ("?", "?")


def changed(text: str, **fields: Any) -> str:
    return json.dumps(json.loads(text) | fields)


@pytest.mark.parametrize(
    ("decode", "text", "named"),
    [
        (decode_fleet, "", "must be JSON"),
        (decode_fleet, "{}", "schema must be"),
        (decode_fleet, changed(encode_fleet(A_FLEET), schema=2), "schema must be 1"),
        (decode_fleet, changed(encode_fleet(A_FLEET), vm_count=-1), "vm_count must be"),
        (decode_fleet, changed(encode_fleet(A_FLEET), groups={"rg-web": 3}), "groups must be a list"),
        (decode_fleet, changed(encode_fleet(A_FLEET), groups=[{"name": "rg"}]), "groups[0].vms must be"),
        (decode_fleet, changed(encode_fleet(A_FLEET), freezes=[{}]), "freezes[0].cause must be one of"),
        (decode_fleet, changed(encode_fleet(A_FLEET), thawed_until="later"), "thawed_until must be"),
        (decode_fleet, changed(encode_fleet(A_FLEET), outbox=[{}]), "outbox[0].kind must be one of"),
        (decode_fleet, changed(encode_fleet(A_FLEET), x="x" * MAX_STATE_CHARS), "must be at most"),
        (decode_slots, "[]", "must be a JSON object"),
        (decode_slots, '{"schema":1,"slots":[{"vm":"a","until":"soon"}]}', "slots[0].until must be"),
        (decode_silence, '{"schema":1}', "match must be an object"),
        (decode_silence, changed(encode_silence(A_SILENCE), match=None), "match must be an object"),
        (decode_silence, changed(encode_silence(A_SILENCE), match={"vm": 1}), "match.vm must be"),
        (decode_silence, changed(encode_silence(A_SILENCE), stops="all"), "stops must be one of"),
        (decode_silence, changed(encode_silence(A_SILENCE), ends_at="2026-11-24"), "ends_at must be"),
    ],
)
def test_what_nobody_wrote_is_refused_by_name(decode: Callable[[str], Any], text: str, named: str) -> None:
    with pytest.raises(WireError) as refused:
        decode(text)
    assert any(fault.startswith(named) for fault in refused.value.faults), refused.value.faults


@pytest.mark.parametrize("field", ["why", "created_by"])
def test_a_silence_of_the_longest_words_fits_and_longer_ones_are_refused_at_once(field: str) -> None:
    """What could not be read again would stop nothing, and nobody would know."""

    def with_words(words: str) -> Silence:
        changes: dict[str, Any] = {field: words}
        return replace(A_SILENCE, **changes)

    fits = with_words("ü" * 300)
    assert silence_faults(fits) == []
    assert decode_silence(encode_silence(fits)) == fits
    with pytest.raises(WireError, match=field):
        encode_silence(with_words("x" * 2_000))


def test_more_slots_than_a_row_holds_are_an_error_and_not_cut() -> None:
    with pytest.raises(WireError, match="slots must be at most"):
        encode_slots([Slot("a" * 32, at(0))] * 10_000)
