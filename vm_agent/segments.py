"""One segment of the spool: some items in a row, in a file of lines or, where no disk takes them, in memory.

A line is ``<CRC-32 of the rest> <unix time in ms> <JSON>``. Lines are only ever appended, so that a crash can
tear the last one alone; a torn or damaged line is left out when the segment is read. Decides nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from vm_agent.files import create_private, sync_directory

_NAME = re.compile(r"(\d{12})\.spool")
_LINE_OVERHEAD = 24  # checksum, time, blanks and newline


class Item(NamedTuple):
    """One thing to send: the moment it is about (unix seconds) and its text, one line."""

    at: float
    text: str

    @property
    def size(self) -> int:
        """About how many bytes it takes on the disk and in memory."""
        return len(self.text) + _LINE_OVERHEAD


class Segment:
    """Items in order. With a ``path`` they are in that file, else in ``held``."""

    __slots__ = ("count", "held", "path", "size")

    def __init__(self, path: str = "", count: int = 0, size: int = 0, held: Iterable[Item] = ()) -> None:
        self.path = path
        self.held = list(held)
        self.count = count or len(self.held)
        self.size = size or sum(item.size for item in self.held)


def segment_path(directory: str, number: int) -> str:
    """Return where segment ``number`` lies; names sort as numbers do."""
    return os.path.join(directory, f"{number:012d}.spool")


def find_segments(directory: str) -> list[tuple[int, Segment]]:
    """Return what an earlier run left, oldest first; half-made files of it are removed.

    Raises:
        OSError: the directory or a segment cannot be read.
    """
    found = []
    for name in sorted(os.listdir(directory)):
        path = os.path.join(directory, name)
        match = _NAME.fullmatch(name)
        if match is None:
            if name.endswith(".new"):
                os.unlink(path)
            continue
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError:
            content = b""  # one bad sector must not take the whole spool away
        # A last line without an end was torn by the crash: it counts as an item that will turn out damaged.
        count = content.count(b"\n") + (not content.endswith(b"\n") and bool(content))
        found.append((int(match[1]), Segment(path, count, len(content))))
    return found


def append_lines(path: str, items: Sequence[Item], *, is_new: bool, durable: bool) -> int:
    """Write ``items`` behind what is in the file and return how many bytes that took.

    Raises:
        OSError: it could not be done; the file ends where it ended before, or is gone if it was new.
    """
    content = b"".join(map(encode_line, items))
    handle = create_private(path) if is_new else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        before = os.fstat(handle).st_size
        try:
            _write_all(handle, content)
            if durable:
                os.fdatasync(handle)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, before)
                if is_new:
                    os.unlink(path)
            raise
    finally:
        os.close(handle)
    if durable and is_new:
        sync_directory(os.path.dirname(path))
    return len(content)


def read_items(path: str) -> list[Item]:
    """Return the items of a file that are whole.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        lines = file.read().split(b"\n")
    return [item for item in map(_item, lines) if item is not None]


def sync_file(path: str) -> None:
    """Bring a segment that was written without care onto the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(handle)
    finally:
        os.close(handle)
    sync_directory(os.path.dirname(path))


def encode_line(item: Item) -> bytes:
    """Return the line that ``read_items`` reads."""
    rest = b"%d %s" % (round(item.at * 1000), item.text.encode())
    return b"%08x %s\n" % (zlib.crc32(rest), rest)


def _item(line: bytes) -> Item | None:
    checksum, _, rest = line.partition(b" ")
    try:
        if int(checksum, 16) == zlib.crc32(rest):
            at, _, text = rest.partition(b" ")
            return Item(int(at) / 1000, text.decode())
    except ValueError:
        pass
    return None


def _write_all(handle: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(handle, rest) :]
