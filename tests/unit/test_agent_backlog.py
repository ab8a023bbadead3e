"""The way from the sampler to the sender: in order, bounded, and never lost in silence."""

from __future__ import annotations

from vm_agent.backlog import Backlog
from vm_agent.segments import Item


def items(*texts: str) -> list[Item]:
    return [Item(0.0, text) for text in texts]


def test_first_in_first_out_and_empty_after_that() -> None:
    backlog = Backlog()
    backlog.put(items("a", "b"))
    backlog.put(items("c"))
    assert len(backlog) == 3
    assert [item.text for item in backlog.take()] == ["a", "b", "c"]
    assert backlog.take() == []


def test_without_room_the_oldest_goes_and_is_counted() -> None:
    backlog = Backlog(max_bytes=2 * Item(0.0, "aaaa").size)
    backlog.put(items("aaaa", "bbbb", "cccc"))
    assert [item.text for item in backlog.take()] == ["bbbb", "cccc"]
    backlog.put(items("x" * 1000))
    assert (len(backlog), backlog.dropped) == (0, 2)


def test_waiting_ends_at_once_with_items_and_with_closing() -> None:
    backlog = Backlog()
    backlog.put(items("a"))
    backlog.wait(None)  # else the test's time-out ends it
    backlog.take()
    backlog.wait(0.0)
    backlog.close()
    backlog.wait(None)
    assert backlog.is_closed
