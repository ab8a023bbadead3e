"""What waits to be sent: in order, bounded, and never lost in silence."""

from __future__ import annotations

from vm_agent.backlog import Backlog


def test_first_in_first_out_and_what_comes_back_is_first_again() -> None:
    backlog = Backlog()
    backlog.put(["a", "b", "c"])
    taken = backlog.take(2)
    backlog.put(["d"])
    backlog.restore(taken)
    assert backlog.take(10) == ["a", "b", "c", "d"]


def test_without_room_the_oldest_goes_and_is_counted() -> None:
    backlog = Backlog(max_bytes=10)
    backlog.put(["aaaa", "bbbb", "cccc"])
    assert (len(backlog), backlog.dropped) == (2, 1)
    taken = backlog.take(1)
    backlog.put(["dddd"])
    backlog.restore(taken)
    assert backlog.take(9) == ["cccc", "dddd"]
    assert backlog.dropped == 2


def test_an_item_larger_than_the_whole_room_does_not_stay() -> None:
    backlog = Backlog(max_bytes=3)
    backlog.put(["aaaa"])
    assert (len(backlog), backlog.dropped) == (0, 1)


def test_closing_lets_the_reader_go() -> None:
    backlog = Backlog()
    backlog.put(["a"])
    backlog.close()
    assert backlog.take(1) == []
    backlog.pause(60)  # returns at once, else the test's time-out ends it
