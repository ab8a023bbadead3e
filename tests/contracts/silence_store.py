"""What every SilenceStore keeps."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from tests.builders import at
from vm_health.errors import ConflictError
from vm_health.silence import Matcher, Silence, Stops
from vm_watchdog.ports import SilenceStore

_numbers = itertools.count(1)


class SilenceStoreContract:
    """Derive and give the fixture ``silences``."""

    @pytest.fixture
    def silence(self) -> Silence:
        """A silence that no other test has."""
        return Silence(
            id=f"2026-11-24-{next(_numbers)}",
            match=Matcher(vm="web-*", group="rg-web", tag=("stage", "test")),
            starts_at=at(0),
            ends_at=at(3_600),
            stops=Stops.BOTH,
            created_by="anna",
            why="new kernel; Zürich 🌉",
        )

    async def test_what_is_added_is_listed(self, silences: SilenceStore, silence: Silence) -> None:
        every = replace(silence, id=silence.id + "-all", match=Matcher(), stops=Stops.ALERTS)
        for one in (silence, every):
            await silences.add_silence(one)
        found = {one.id: one for one in await silences.list_silences()}
        assert (found[silence.id], found[every.id]) == (silence, every)

    async def test_an_id_is_given_once(self, silences: SilenceStore, silence: Silence) -> None:
        await silences.add_silence(silence)
        with pytest.raises(ConflictError):
            await silences.add_silence(replace(silence, why="another"))
        assert silence in await silences.list_silences()

    async def test_one_that_is_ended_ends_then(self, silences: SilenceStore, silence: Silence) -> None:
        await silences.add_silence(silence)
        ended = await silences.end_silence(silence.id, at(60))
        assert ended == replace(silence, ends_at=at(60))
        assert [one for one in await silences.list_silences() if one.id == silence.id] == [ended]

    async def test_one_that_never_began_is_over_once_it_is_ended(
        self, silences: SilenceStore, silence: Silence
    ) -> None:
        await silences.add_silence(silence)
        ended = await silences.end_silence(silence.id, at(-60))
        assert ended is not None
        assert not any(ended.is_active(at(second)) for second in (-61, -60, 0, 1, 3_599))

    async def test_one_that_is_over_or_was_never_there_cannot_be_ended(
        self, silences: SilenceStore, silence: Silence
    ) -> None:
        await silences.add_silence(silence)
        assert await silences.end_silence(silence.id, at(3_600)) is None
        await silences.end_silence(silence.id, at(60))
        assert await silences.end_silence(silence.id, at(60)) is None
        for odd in ("never-added", "", "a/b", "a#b?", "x" * 2_000):
            assert await silences.end_silence(odd, at(60)) is None
