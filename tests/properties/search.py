"""Searching for a breach: random stories, in as many processes as there are cores.

``python -m tests.properties.search races 2000`` plays stories without shrinking; the first breach ends it.
"""

from __future__ import annotations

import gc
import logging
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.properties.checking import Breach
from tests.properties.rules import CALM, RACES, STORM
from tests.properties.steps import Rule
from tests.properties.story import HEADER_BYTES, play, reached

STEP_BYTES = 6
# Rules, the most steps, and the share of all runs.
FLAVOURS: dict[str, tuple[Sequence[Rule], int, float]] = {
    "calm": (CALM, 12, 0.1),
    "storm": (STORM, 22, 0.4),
    "races": (RACES, 22, 0.5),
}


def search(flavour: str, runs: int, start: int) -> Counter[str]:
    """Let hypothesis search from the seed ``start``; return what the stories came to.

    Raises:
        Breach: a promise was broken; its notes tell the shortest story that breaks it.
    """
    rules, most, _ = FLAVOURS[flavour]
    found: Counter[str] = Counter()

    @seed(start)
    @settings(
        max_examples=runs,
        deadline=None,
        database=None,
        derandomize=False,  # that would be one seed for all processes
        phases=[Phase.generate, Phase.shrink],  # explaining takes minutes here, and there is nothing to reuse
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(
        st.binary(min_size=HEADER_BYTES, max_size=HEADER_BYTES),
        st.lists(st.binary(min_size=STEP_BYTES, max_size=STEP_BYTES), min_size=3, max_size=most),
    )
    def stories(header: bytes, steps: list[bytes]) -> None:
        found.update(reached(play(rules, header, steps)))

    with quiet():
        stories()
    return found


def first_breach(flavour: str, runs: int, start: int) -> tuple[int, Breach | None]:
    """Play random stories up to the first breach; return how many there were, and the breach."""
    rules, most, _ = FLAVOURS[flavour]
    with quiet():
        for number in range(runs):
            chance = random.Random(f"{start}/{flavour}/{number}")
            steps = [chance.randbytes(STEP_BYTES) for _ in range(chance.randint(3, most))]
            try:
                play(rules, chance.randbytes(HEADER_BYTES), steps)
            except Breach as error:
                return number + 1, error
    return runs, None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the watchdog's words to itself, and the collector of garbage from looking at what stays."""
    logger = logging.getLogger("vm_watchdog")
    before = (logger.propagate, logger.level)
    logger.propagate = False
    logger.setLevel(logging.ERROR)
    gc.collect()
    gc.freeze()
    limits = gc.get_threshold()
    gc.set_threshold(50_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*limits)
        logger.propagate = before[0]
        logger.setLevel(before[1])


def main() -> int:
    """Search from the command line."""
    flavour, runs, start = sys.argv[1], int(sys.argv[2]), int((sys.argv[3:] or ["0"])[0])
    played, error = first_breach(flavour, runs, start)
    if error is None:
        sys.stdout.write(f"{flavour}: {played} stories, no breach\n")
        return 0
    sys.stdout.write(f"{flavour}: story {played}: {error}\n" + "\n".join(error.__notes__) + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
