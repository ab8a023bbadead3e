"""The tests' own fakes keep what the ports promise: the suites that the real adapters run too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from tests.contracts.fleet_store import FleetStoreContract
from tests.contracts.silence_store import SilenceStoreContract
from tests.contracts.state_store import StateStoreContract
from tests.contracts.work_queue import WorkQueueContract
from tests.fake_ports import Clock, FakeQueue
from tests.fake_stores import FakeFleetStore, FakeSilenceStore, FakeStore


class TestFakeStore(StateStoreContract):
    @pytest.fixture
    def store(self) -> FakeStore:
        return FakeStore()


class TestFakeFleetStore(FleetStoreContract):
    @pytest.fixture
    def fleet(self) -> FakeFleetStore:
        return FakeFleetStore()


class TestFakeSilenceStore(SilenceStoreContract):
    @pytest.fixture
    def silences(self) -> FakeSilenceStore:
        return FakeSilenceStore()


class TestFakeQueue(WorkQueueContract):
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def queue(self, clock: Clock) -> FakeQueue:
        return FakeQueue(clock=clock)

    @pytest.fixture
    def pass_time(self, clock: Clock) -> Callable[[float], Awaitable[None]]:
        async def turn(seconds: float) -> None:
            clock.now += timedelta(seconds=seconds)

        return turn
