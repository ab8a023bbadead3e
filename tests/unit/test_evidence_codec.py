"""Evidence <-> a line of JSON: what is recorded comes back, and what a file holds is not trusted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import NOW, UNREACHABLE, VM_ID, a_report, a_snapshot, answers, at, evidence
from vm_health.errors import WireError
from vm_health.evidence_codec import MAX_LINE_CHARS, Recorded, decode_evidence, encode_evidence, subject_of
from vm_health.model import Evidence, PowerState, ProbeOutcome, ProbeResult
from vm_health.silence import Subject

EVERYTHING = Evidence(
    VM_ID,
    PowerState.RUNNING,
    a_snapshot(a_report(down="web.service")),
    telemetry_available=False,
    probe=answers(a_report(down="web.service")),
    maintenance="until 13:00: kernel update 🌉\u2028",
    is_updating=True,
    stopped_by="jane@example.net",
    instance_id="9f7c",
    is_routine=False,
)


@pytest.mark.parametrize(
    "seen",
    [
        EVERYTHING,
        evidence(),
        evidence(PowerState.UNKNOWN, UNREACHABLE, telemetry=False),
        evidence(probe=answers(), snapshot=a_snapshot()),
    ],
)
def test_what_is_recorded_comes_back(seen: Evidence) -> None:
    subject = Subject("web-1", "rg-web", {"watchdog": "on", "team": "Zürich"})
    line = encode_evidence(seen, at(0.25), subject)
    assert "\n" not in line
    assert decode_evidence(line) == Recorded(at(0.25), seen, subject)


def test_without_a_subject_the_id_tells_name_and_group() -> None:
    assert decode_evidence(encode_evidence(evidence(), NOW)).subject == Subject("web-1", "rg-web")
    assert subject_of("nothing") == Subject("nothing", "")


def changed(path: str, value: object) -> str:
    """A good line with the field at ``path`` replaced."""
    line: dict[str, Any] = json.loads(encode_evidence(EVERYTHING, NOW, Subject("web-1", "rg-web")))
    place = line
    *parents, last = path.split(".")
    for name in parents:
        place = place[name]
    place[last] = value
    return json.dumps(line)


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("schema", 2, "schema must be 1, is 2"),
        ("at", "yesterday", "at must be an ISO 8601 time with an offset"),
        ("at", "2026-11-24T12:00:00", "at must be an ISO 8601 time with an offset"),
        ("vm_id", "/etc/passwd", "vm_id must be the ARM id of a virtual machine"),
        ("power", "sleeping", "power must be one of creating"),
        ("probe", 3, "probe must be an object"),
        ("probe.outcome", "fine", "probe.outcome must be one of ok"),
        (
            "probe.report",
            None,
            "probe.report must be a health report where the outcome is unhealthy, is null",
        ),
        ("probe.report.units", "all", "probe.report: units must be a list"),
        ("snapshot.report.status", "FINE", "snapshot.report: status must be one of HEALTHY"),
        ("snapshot.report", [], "snapshot.report: must be a JSON object, is a list"),
        ("snapshot.report", None, "snapshot.report must be a health report, is null"),
        ("snapshot.taken_at", None, "snapshot.taken_at must be an ISO 8601 time"),
        ("telemetry_available", "yes", "telemetry_available must be true or false"),
        ("subject.tags", {"a": 1}, "subject.tags must be an object of at most 50 strings"),
        ("subject.tags", [1], "subject.tags must be an object of at most 50 strings"),
        ("subject.name", 7, "subject.name must be a string"),
    ],
)
def test_a_faulty_field_is_named(path: str, value: object, fault: str) -> None:
    with pytest.raises(WireError) as refused:
        decode_evidence(changed(path, value))
    assert [told for told in refused.value.faults if told.startswith(fault)], refused.value.faults


def test_all_faults_are_told_at_once() -> None:
    line = json.loads(changed("power", "sleeping"))
    line["probe"]["outcome"], line["at"] = "fine", 3
    with pytest.raises(WireError) as refused:
        decode_evidence(json.dumps(line))
    assert len(refused.value.faults) == 3


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "[" * 50_000, '{"at": NaN}', "{" * 10, "\x00"])
def test_what_is_no_line_is_refused(text: str) -> None:
    with pytest.raises(WireError):
        decode_evidence(text)


def test_a_line_has_a_limit() -> None:
    with pytest.raises(WireError, match="must be at most"):
        decode_evidence(" " * (MAX_LINE_CHARS + 1))


def test_a_newer_versions_fields_are_ignored() -> None:
    assert decode_evidence(changed("mood", "fine")).evidence == EVERYTHING


def test_a_deep_report_is_a_fault_and_no_crash() -> None:
    deep = '{"report":' * 900 + "1" + "}" * 900
    line = encode_evidence(evidence(probe=ProbeResult(ProbeOutcome.UNREACHABLE)), NOW)
    text = line.replace('"report":null', f'"report":{deep}')
    assert text != line
    with pytest.raises(WireError, match=r"probe\.report"):
        decode_evidence(text)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_whatever_stands_in_a_field_is_a_fault_or_a_value(value: object) -> None:
    for path in ("snapshot", "probe", "subject", "subject.tags", "maintenance", "probe.report"):
        try:
            decode_evidence(changed(path, value))
        except WireError as error:
            assert error.faults  # noqa: PT017 - either outcome is right, another exception is not
