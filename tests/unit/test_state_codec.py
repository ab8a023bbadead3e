"""State and notices survive Table Storage and the queue; what was written by nobody is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import a_notice, an_incident, at
from vm_health.errors import WireError
from vm_health.model import Cause, Status
from vm_health.state import Incident, Notice, NoticeKind, UnitState, VmState
from vm_health.state_codec import (
    MAX_STATE_CHARS,
    decode_notice,
    decode_state,
    encode_notice,
    encode_state,
)

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
counts = st.integers(0, 10**9)
moments = st.datetimes(
    datetime(2000, 1, 2),  # noqa: DTZ001 - hypothesis adds the zone
    datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
statuses, causes = st.sampled_from(Status), st.sampled_from(Cause)
subjects = st.lists(texts, max_size=3).map(tuple)
notices = st.builds(
    Notice,
    kind=st.sampled_from(NoticeKind),
    key=texts,
    vm_id=texts,
    incident_id=texts,
    status=statuses,
    cause=causes,
    subjects=subjects,
    reason=texts,
    opened_at=moments,
    at=moments,
    attempts=counts,
)
unit_states = st.builds(
    UnitState, counts, st.none() | moments, st.none() | moments, st.none() | moments, st.booleans(), texts
)
soft = st.tuples(st.none(), st.none(), st.just(0)) | st.tuples(statuses, causes, st.integers(1, 9))


@st.composite
def states(draw: st.DrawFn) -> VmState:
    soft_status, soft_cause, soft_looks = draw(soft)
    return VmState(
        status=draw(statuses),
        cause=draw(causes),
        subjects=draw(subjects),
        reason=draw(texts),
        since=draw(st.none() | moments),
        soft_status=soft_status,
        soft_cause=soft_cause,
        soft_looks=soft_looks,
        units=draw(st.dictionaries(texts, unit_states, max_size=3)),
        incident=draw(st.none() | st.builds(Incident, texts, moments, statuses, causes, subjects)),
        sequence=draw(counts),
        next_look_at=draw(st.none() | moments),
        endpoint=draw(texts),
        was_reached=draw(st.booleans()),
        off_at=draw(st.none() | moments),
        outbox=draw(st.lists(notices, max_size=2).map(tuple)),
    )


@given(states())
def test_any_state_comes_back_as_it_was(state: VmState) -> None:
    text = encode_state(state)
    assert decode_state(text) == state
    assert encode_state(decode_state(text)) == text


@given(notices)
def test_any_notice_comes_back_as_it_was(notice: Notice) -> None:
    assert decode_notice(encode_notice(notice)) == notice


def test_a_new_state_comes_back_as_it_was() -> None:
    assert decode_state(encode_state(VmState())) == VmState()


def changed(**fields: Any) -> str:
    state = VmState(
        since=at(0), incident=an_incident(), outbox=(a_notice(),), units={"a.service": UnitState(1)}
    )
    return json.dumps(json.loads(encode_state(state)) | fields)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "must be JSON"),
        ("[]", "must be a JSON object"),
        ("{}", "schema must be"),
        (changed(schema=2), "schema must be 1"),
        (changed(status="FINE"), "status must be one of"),
        (changed(cause="moon_phase"), "cause must be one of"),
        (changed(since="2026-11-24T12:00:00"), "since must be"),
        (changed(sequence=-1), "sequence must be"),
        (changed(was_reached="yes"), "was_reached must be true or false"),
        (changed(soft_looks=1, soft_status=None), "soft_status must be one of"),
        (changed(subjects="web"), "subjects must be a list"),
        (changed(units=[{"name": "a.service", "attempts": "1"}]), "units[0].attempts must be"),
        (changed(incident={"id": 1}), "incident.id must be a string"),
        (changed(outbox=[{}]), "outbox[0].kind must be one of"),
        (changed(reason="x" * MAX_STATE_CHARS), "must be at most 32000 characters"),
    ],
)
def test_what_is_not_a_state_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(WireError) as refused:
        decode_state(text)
    assert any(fault.startswith(named) for fault in refused.value.faults), refused.value.faults


def test_all_faults_of_a_state_are_told_at_once() -> None:
    with pytest.raises(WireError) as refused:
        decode_state(changed(sequence="x", status="x", endpoint=4))
    assert {fault.split()[0] for fault in refused.value.faults} == {"sequence", "status", "endpoint"}


def test_a_state_that_does_not_fit_the_column_is_an_error_and_not_cut() -> None:
    state = VmState(outbox=(a_notice(reason="x" * 4_000),) * 9)
    with pytest.raises(WireError, match="at most 32000 characters"):
        encode_state(state)


@pytest.mark.parametrize("text", ["", "null", "{}", '{"kind":"shouted"}', encode_notice(a_notice())[:-1]])
def test_what_is_not_a_notice_is_refused(text: str) -> None:
    with pytest.raises(WireError):
        decode_notice(text)
