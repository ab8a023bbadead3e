"""A few of the stories of tests/properties, always the same ones: the whole search is a tier of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.properties.mutations import MUTATIONS
from tests.properties.search import FLAVOURS, first_breach


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_some_stories_break_no_promise(flavour: str) -> None:
    assert first_breach(flavour, 5, start=3) == (5, None)


def test_every_mutation_still_fits_the_code() -> None:
    """Whether a story meets it, ``python -m tests.properties.mutants`` tells."""
    root = Path(__file__).resolve().parents[2]
    for mutation in MUTATIONS:
        assert mutation.apply((root / mutation.path).read_text())
