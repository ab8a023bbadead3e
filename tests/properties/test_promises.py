"""Random stories of whole fleets, more than 10,000 a run: no promise is ever broken.

``make test`` plays the same stories each time, so that it fails only for a change; ``make explore`` plays new
ones, from the seed that it prints.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.properties.search import FLAVOURS, search
from vm_health.model import Cause
from vm_health.state import NoticeKind, StartKind

RUNS = int(os.environ.get("PROPERTY_RUNS", "10400"))
SEED = int(os.environ.get("PROPERTY_SEED", "0"))
TALLY: Counter[str] = Counter()  # what all stories of this run came to
PARTS = 4  # of each flavour, on however many cores: the same stories everywhere
MUST_REACH = (
    *("restarts", "requests", "VM actions", "races", "crashes", "failing calls", "undisturbed ticks"),
    # Flapping and reminders take many looks: a few of 10,000 stories reach them, which is too few to demand.
    *(f"notices {kind}" for kind in NoticeKind if kind not in (NoticeKind.FLAPPING, NoticeKind.REMINDER)),
    *(f"commands {kind}" for kind in StartKind),
    *(
        f"because of {cause}"
        for cause in (
            Cause.SERVICE_DOWN,
            Cause.VM_SILENT,
            Cause.ENDPOINT_UNREACHABLE,
            Cause.TELEMETRY_DELAYED,
            Cause.MASS_FAILURE,
            Cause.INVENTORY_SUSPECT,
            Cause.CANARY_FAILED,
            Cause.TELEMETRY_STALE_FOR_ALL,
        )
    ),
)


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(min(PARTS, os.cpu_count() or 1), mp_context=get_context("spawn")) as workers:
        yield workers


@pytest.mark.timeout(900)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_no_promise_is_broken(flavour: str, pool: ProcessPoolExecutor) -> None:
    runs = max(1, round(RUNS * FLAVOURS[flavour][2] / PARTS))
    starts = [SEED * PARTS + number for number in range(PARTS)]
    for one in [pool.submit(search, flavour, runs, start) for start in starts]:
        TALLY.update(one.result())


def test_the_stories_reach_what_the_promises_are_about() -> None:
    """What no story ever reaches, no property can refute."""
    if RUNS < 10_000:
        pytest.skip(f"PROPERTY_RUNS is {RUNS}: too few to reach everything")
    assert TALLY["stories"] >= 10_000
    assert [what for what in MUST_REACH if not TALLY[what]] == []
