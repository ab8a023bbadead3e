"""Flapping: how much a VM's last looks changed, newer ones counting more. Pure; remembers nothing itself."""

from __future__ import annotations

LOOKS = 20
_OLDEST_WEIGHT = 0.8
_NEWEST_WEIGHT = 1.2
_WEIGHTS = tuple(
    _OLDEST_WEIGHT + (_NEWEST_WEIGHT - _OLDEST_WEIGHT) * place / (LOOKS - 1) for place in range(LOOKS)
)


def note_look(changes: str, changed: bool) -> str:
    """Return ``changes`` after one more look.

    One "0" or "1" a look, newest last, from the oldest change on: "" means that the last 20 looks were
    quiet, and stays "" at a quiet one, so that a healthy VM has nothing to write.
    """
    return (changes + ("1" if changed else "0"))[-LOOKS:].lstrip("0")


def change_percent(changes: str) -> float:
    """Return the weighted share of the last 20 looks that changed, 0…100.

    After Icinga 2 since 2.8 (doc/08-advanced-topics.md, "Check Flapping"), where the weights rise by 0.02
    from 0.8 for the oldest look; Nagios Core has such a curve too ("Detection and Handling of State
    Flapping"). Here they rise to 1.2, so that they add up to 20 and nothing but changes is 100 %. Looks that
    were never made count as quiet.
    """
    newest = changes[-LOOKS:]
    weights = _WEIGHTS[LOOKS - len(newest) :]
    return 100.0 * sum(weight for look, weight in zip(newest, weights, strict=True) if look == "1") / LOOKS


def is_flapping(was_flapping: bool, changes: str, high_percent: float, low_percent: float) -> bool:
    """Tell whether the VM flaps: from ``high_percent`` on, until it is under ``low_percent`` again.

    ``high_percent`` 0 turns it off. A VM whose last 20 looks were quiet never flaps, whatever the limits.
    """
    if high_percent <= 0 or not changes:
        return False
    return change_percent(changes) >= (low_percent if was_flapping else high_percent)
