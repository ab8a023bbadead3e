"""Flapping: newer changes weigh more, and settling takes longer than starting."""

from __future__ import annotations

from functools import reduce
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_health.flapping import LOOKS, change_percent, is_flapping, note_look

looks = st.lists(st.booleans(), max_size=60)


def after(*changed: bool, start: str = "") -> str:
    return reduce(note_look, changed, start)


def test_a_quiet_vm_stays_at_nothing_to_write() -> None:
    assert note_look("", False) == ""


def test_a_change_is_forgotten_after_20_quiet_looks() -> None:
    changes = note_look("", True)
    for _ in range(LOOKS - 1):
        changes = note_look(changes, False)
        assert changes
    assert note_look(changes, False) == ""


@given(looks)
def test_what_is_kept_are_the_last_20_looks_from_the_oldest_change_on(changed: list[bool]) -> None:
    expected = "".join("1" if one else "0" for one in changed[-LOOKS:])
    assert after(*changed) == expected.lstrip("0")


def test_the_weights_rise_from_08_to_12_and_add_up() -> None:
    assert change_percent("1" * LOOKS) == pytest.approx(100.0)
    assert change_percent("1") == pytest.approx(100 * 1.2 / 20)
    assert change_percent("1" + "0" * 19) == pytest.approx(100 * 0.8 / 20)
    steps = [change_percent("1" + "0" * quiet) for quiet in range(LOOKS)]
    assert all(newer - older == pytest.approx(100 * 0.4 / 19 / 20) for newer, older in pairwise(steps))


def test_nothing_is_no_share() -> None:
    assert change_percent("") == 0.0


def test_the_example_of_icingas_documentation_flaps_until_its_old_changes_are_forgotten() -> None:
    """There the weights rise by 0.02 a look: changes at 2, 3, 4, 5, 9, 13, 16 and 19 make 39.1 %."""
    places = {2, 3, 4, 5, 9, 13, 16, 19}
    changes = "".join("1" if place in places else "0" for place in range(LOOKS)).lstrip("0")
    assert change_percent(changes) == pytest.approx(39.1, abs=0.5)
    assert is_flapping(False, changes, 30.0, 25.0)
    for quiet in range(1, 8):
        changes = note_look(changes, False)
        assert is_flapping(True, changes, 30.0, 25.0) is (quiet < 5), quiet


@pytest.mark.parametrize(
    ("was_flapping", "changes", "flaps"),
    [
        (False, "11111", False),  # 28.95 %: not from 30 on
        (True, "11111", True),  # but not under 25 either
        (False, "111111", True),
        (True, "1111", False),
        (True, "", False),
    ],
)
def test_it_starts_at_the_high_share_and_ends_under_the_low_one(
    was_flapping: bool, changes: str, flaps: bool
) -> None:
    assert is_flapping(was_flapping, changes, 30.0, 25.0) is flaps


def test_exactly_the_high_share_flaps_and_exactly_the_low_one_still_does() -> None:
    share = change_percent("1011")
    assert is_flapping(False, "1011", share, 0.0)
    assert is_flapping(True, "1011", 100.0, share)


@given(looks, st.booleans())
def test_a_high_share_of_0_turns_it_off(changed: list[bool], was_flapping: bool) -> None:
    assert not is_flapping(was_flapping, after(*changed), 0.0, 0.0)


@given(looks)
def test_a_quiet_vm_always_settles_even_where_the_low_share_is_0(changed: list[bool]) -> None:
    changes = after(*changed, *[False] * LOOKS)
    assert not is_flapping(True, changes, 30.0, 0.0)
