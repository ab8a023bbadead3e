"""When the VM itself calls people: the machine's confirmations and incidents, one witness."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from tests.unit.agent_builders import NOW, VM_ID, a_down_unit, a_report
from vm_agent.alert_decision import after_giving_up, follow
from vm_health.model import HealthReport, Status
from vm_health.policy import Policy
from vm_health.state import Notice, NoticeKind, VmState
from vm_health.state_codec import decode_state, encode_state

POLICY = Policy(may_act=False)
FINE, DOWN, FULL = a_report(), a_report(a_down_unit()), a_report(disk_percent=85)


def looks(*reports: HealthReport, state: VmState | None = None) -> tuple[VmState, list[Notice]]:
    state, said = state or VmState(), []
    for number, report in enumerate(reports):
        now = NOW + timedelta(seconds=15 * number)
        seen = replace(report, sample=replace(report.sample, taken_at=now))
        state, notices = follow(state, seen, POLICY, now)
        state = decode_state(encode_state(state))  # it lives on the disk
        said += notices
    return state, said


def test_a_healthy_vm_says_nothing_however_long() -> None:
    assert looks(*[FINE] * 50)[1] == []


def test_a_unit_that_is_down_fires_at_once_and_once_and_resolves_after_two_looks() -> None:
    state, said = looks(FINE, DOWN, DOWN, DOWN)
    (fired,) = said
    assert (fired.kind, fired.status, fired.subjects) == (NoticeKind.FIRED, Status.CRITICAL, ("web.service",))
    assert (fired.vm_id, fired.incident_id) == (VM_ID, state.incident.id if state.incident else "")
    state, said = looks(FINE, DOWN, FINE, state=state)
    assert said == []  # one good look is no end
    state, said = looks(FINE, FINE, state=state)
    assert [(notice.kind, notice.incident_id) for notice in said] == [
        (NoticeKind.RESOLVED, fired.incident_id)
    ]
    assert state.incident is None


def test_a_warning_needs_two_looks() -> None:
    assert looks(FINE, FULL, FINE, FULL)[1] == []
    assert [notice.kind for notice in looks(FINE, FULL, FULL, FULL)[1]] == [NoticeKind.FIRED]


def test_a_unit_that_goes_on_being_down_is_never_said_to_be_given_up_by_a_machine_that_restarts_nothing() -> (
    None
):
    assert [notice.kind for notice in looks(FINE, *[DOWN] * 500)[1]] == [NoticeKind.FIRED]


def test_what_local_repair_gives_up_is_said_in_the_open_incident() -> None:
    state, (fired,) = looks(FINE, DOWN)
    state, (gave_up,) = after_giving_up(state, DOWN, ("web.service",), 6, NOW)
    assert (gave_up.kind, gave_up.attempts, gave_up.incident_id) == (
        NoticeKind.GAVE_UP,
        6,
        fired.incident_id,
    )
    assert gave_up.key != fired.key


def test_without_an_azure_id_the_host_is_the_name() -> None:
    (fired,) = looks(replace(DOWN, vm_id=""))[1]
    assert fired.vm_id == "vm1"
