"""What local repair remembers, and what a clock that was set back must not do to it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.agent_builders import NOW
from vm_agent.backoff_file import after_clock_jump
from vm_health.backoff import BackoffPolicy
from vm_health.errors import WireError
from vm_health.policy import Policy
from vm_health.state import UnitState
from vm_health.state_codec import decode_units, encode_units

POLICY = Policy(backoff=BackoffPolicy(jitter_fraction=0.0))
moments = st.none() | st.datetimes(
    datetime(2020, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    datetime(2030, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
states = st.builds(
    UnitState,
    attempts=st.integers(0, 6),
    not_before=moments,
    last_attempt_at=moments,
    up_since=moments,
    circuit_open=st.booleans(),
)


@given(st.dictionaries(st.sampled_from(["web.service", "db@1.service", "x.timer"]), states))
def test_states_read_back_as_they_were(units: dict[str, UnitState]) -> None:
    assert decode_units(encode_units(units)) == units


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 2, "units": []}', '{"schema": 1, "units": [1]}'])
def test_what_nobody_wrote_is_refused(text: str) -> None:
    with pytest.raises(WireError):
        decode_units(text)


@given(states, st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_after_any_jump_the_next_attempt_is_at_most_one_step_away(state: UnitState, now: datetime) -> None:
    sane = after_clock_jump(state, POLICY, now)
    assert (sane.attempts, sane.circuit_open) == (state.attempts, state.circuit_open)
    if sane.not_before is not None:
        assert sane.not_before <= now + timedelta(seconds=300)
    assert sane.last_attempt_at is None or sane.last_attempt_at <= now
    assert sane.up_since is None or sane.up_since <= now


def test_a_clock_that_runs_on_changes_nothing() -> None:
    state = UnitState(2, NOW + timedelta(seconds=39), NOW, None)
    assert after_clock_jump(state, POLICY, NOW + timedelta(seconds=1)) == state
