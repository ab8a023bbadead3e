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
from vm_health.notice_codec import MAX_NOTICE_CHARS, decode_notice, encode_notice
from vm_health.state import (
    CommandRef,
    Incident,
    Lane,
    Notice,
    NoticeKind,
    UnitState,
    VmAction,
    VmActionKind,
    VmState,
)
from vm_health.state_codec import MAX_STATE_CHARS, decode_state, encode_state

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
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
tokens = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
commands = st.builds(CommandRef, tokens, st.sampled_from(Lane), texts)
perhaps = st.none() | moments
unit_states = st.builds(
    UnitState, counts, perhaps, perhaps, perhaps, st.booleans(), st.none() | commands, texts
)
incidents = st.builds(
    Incident, texts, moments, statuses, causes, subjects, told_at=perhaps, seen=subjects, given_up=subjects
)
vm_actions = st.builds(VmAction, st.sampled_from(VmActionKind), moments, texts)
soft = st.tuples(st.none(), st.none(), st.just(0)) | st.tuples(statuses, causes, st.integers(1, 9))


@st.composite
def states(draw: st.DrawFn) -> VmState:
    soft_status, soft_cause, soft_looks = draw(soft)
    return VmState(
        status=draw(statuses),
        cause=draw(causes),
        subjects=draw(subjects),
        reason=draw(texts),
        since=draw(perhaps),
        soft_status=soft_status,
        soft_cause=soft_cause,
        soft_looks=soft_looks,
        units=draw(st.dictionaries(texts, unit_states, max_size=3)),
        incident=draw(st.none() | incidents),
        sequence=draw(counts),
        next_look_at=draw(perhaps),
        endpoint=draw(texts),
        was_reached=draw(st.booleans()),
        off_at=draw(perhaps),
        back_at=draw(perhaps),
        outbox=draw(st.lists(notices, max_size=2).map(tuple)),
        changes=draw(st.text("01", max_size=21)),
        is_flapping=draw(st.booleans()),
        vm_actions=draw(st.lists(vm_actions, max_size=2).map(tuple)),
        instance_id=draw(texts),
        clock_offset_seconds=draw(st.floats(-1e6, 1e6)),
        excused_since=draw(perhaps),
        gone_since=draw(perhaps),
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
        (changed(reason="x" * MAX_STATE_CHARS), f"must be at most {MAX_STATE_CHARS} characters"),
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


def test_a_state_that_does_not_fit_the_row_is_an_error_and_not_cut() -> None:
    state = VmState(outbox=(a_notice(reason="x" * 4_000),) * 150)
    with pytest.raises(WireError, match=f"at most {MAX_STATE_CHARS} characters"):
        encode_state(state)


def test_a_vm_with_hundreds_of_units_in_trouble_fits() -> None:
    names = [f"worker-with-quite-a-long-name-{number}@customer-{number}.service" for number in range(500)]
    unit = UnitState(6, at(0), at(1), at(2), True, CommandRef("t" * 40), held="h" * 300)
    state = VmState(subjects=tuple(names), units=dict.fromkeys(names, unit), incident=an_incident())
    assert decode_state(encode_state(state)) == state


OLD_ROW = """{"schema":1,"status":"CRITICAL","cause":"service_down","subjects":["web.service"],
"reason":"down","since":"2026-11-24T12:00:00+00:00","soft_status":null,"soft_cause":null,"soft_looks":0,"units":[
{"name":"db.service","attempts":0,"not_before":null,"last_attempt_at":null,"up_since":null,
"circuit_open":false,"command":""},
{"name":"web.service","attempts":2,"not_before":"2026-11-24T12:00:40+00:00",
"last_attempt_at":"2026-11-24T12:00:00+00:00","up_since":null,"circuit_open":false,"command":"token-1"}],
"incident":{"id":"incident-1","opened_at":"2026-11-24T12:00:00+00:00","status":"CRITICAL",
"cause":"service_down","subjects":["web.service"]},"sequence":3,"next_look_at":null,"endpoint":"",
"was_reached":true,"off_at":null,"outbox":[]}"""


def test_a_row_of_an_older_version_is_read_with_defaults_for_what_it_did_not_know() -> None:
    assert decode_state(OLD_ROW) == VmState(
        status=Status.CRITICAL,
        cause=Cause.SERVICE_DOWN,
        subjects=("web.service",),
        reason="down",
        since=at(0),
        units={
            "db.service": UnitState(),
            "web.service": UnitState(2, at(40), at(0), command=CommandRef("token-1", Lane.MANAGED)),
        },
        incident=an_incident(),
        sequence=3,
        was_reached=True,
    )


def test_what_is_at_its_default_is_not_written() -> None:
    assert json.loads(encode_state(VmState())) == {
        "schema": 1,
        "status": "UNKNOWN",
        "cause": "ok",
        "reason": "never looked at",
    }


def test_half_a_character_in_a_reason_does_not_make_the_state_unreadable() -> None:
    """A row that cannot be read stops all action on its VM."""
    state = VmState(
        reason="file \udcff" + "x" * 9_000,
        units={"a.service": UnitState(1, held="\udcff")},
        outbox=(a_notice(reason="\udcff" + "x" * 9_000),),
    )
    found = decode_state(encode_state(state))
    assert found.reason.startswith("file ?x")
    assert found.units["a.service"].held == "?"
    assert found.outbox[0].reason.startswith("?x")


def test_a_path_to_a_result_that_is_too_long_is_left_out_whole() -> None:
    unit = UnitState(command=CommandRef("token-1", Lane.ACTION, "/" * 9_000))
    found = decode_state(encode_state(VmState(units={"a.service": unit}))).units["a.service"]
    assert found.command == CommandRef("token-1", Lane.ACTION, "")


@given(
    st.lists(st.text(st.characters(), max_size=300), max_size=400).map(tuple),
    st.text(st.characters(), max_size=200).map(lambda text: text * 40),
)
def test_any_notice_fits_a_queue_message(subjects: tuple[str, ...], reason: str) -> None:
    text = encode_notice(a_notice(subjects=subjects, reason=reason))
    assert len(text.encode()) * 4 / 3 < 64 * 1024
    assert json.loads(text)["key"] == a_notice().key


def test_a_notice_of_hundreds_of_long_names_keeps_the_first_ones_and_its_reason() -> None:
    notice = a_notice(subjects=tuple(f"{number}-{'x' * 250}.service" for number in range(400)))
    found = decode_notice(encode_notice(notice))
    assert found.reason == notice.reason
    assert 10 < len(found.subjects) < 400
    assert found.subjects == notice.subjects[: len(found.subjects)]
    assert len(encode_notice(notice)) <= MAX_NOTICE_CHARS


@pytest.mark.parametrize("text", ["", "null", "{}", '{"kind":"shouted"}', encode_notice(a_notice())[:-1]])
def test_what_is_not_a_notice_is_refused(text: str) -> None:
    with pytest.raises(WireError):
        decode_notice(text)
