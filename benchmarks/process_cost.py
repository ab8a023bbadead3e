"""What a process with its children costs: memory as the kernel counts it, and CPU time to the nanosecond.

Reads /proc; starts and ends nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from os import sysconf
from pathlib import Path

_TICKS_PER_SECOND = sysconf("SC_CLK_TCK")
_MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+ *(.*)")
# What every process of a machine maps too: to count it as shared is right wherever one looks.
_EVERYBODYS = re.compile(r"/(usr/)?lib(64)?/([^/]+-linux-gnu/)?(ld-linux|lib(c|m|pthread|dl)[.-])")


@dataclass(frozen=True, slots=True)
class Memory:
    """In MB (10**6 bytes).

    ``alone`` is PSS where nobody else runs the same program: pages of its own files count whole, however many
    others on this machine happen to map them now.
    """

    rss: float = 0.0
    pss: float = 0.0
    alone: float = 0.0
    private: float = 0.0

    def __add__(self, other: Memory) -> Memory:
        return Memory(
            self.rss + other.rss,
            self.pss + other.pss,
            self.alone + other.alone,
            self.private + other.private,
        )


def tree(root: int) -> list[int]:
    """``root`` and all below it, as far as they live."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))

    def walk(pid: int) -> Iterator[int]:
        yield pid
        for child in children.get(pid, []):
            yield from walk(child)

    return list(walk(root))


def memory(root: int) -> Memory:
    """The memory of the whole tree."""
    total = Memory()
    for pid in tree(root):
        total += _memory_of(pid)
    return total


def cpu_ms(root: int) -> float:
    """User and system time of the tree, with that of children which have ended and were waited for."""
    total = 0.0
    for pid in tree(root):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            # clock_getcpuclockid(3) makes the number thus; it knows threads that have ended, in nanoseconds.
            own = time.clock_gettime((~pid << 3) | 2)
        except OSError:  # it has ended meanwhile
            continue
        total += own * 1000 + (int(fields[13]) + int(fields[14])) * 1000 / _TICKS_PER_SECOND
    return total


def _memory_of(pid: int) -> Memory:
    found = {"Rss": 0, "Pss": 0, "alone": 0, "Private_Clean": 0, "Private_Dirty": 0}
    path = ""
    try:
        lines = Path(f"/proc/{pid}/smaps").read_text().splitlines()
    except OSError:
        return Memory()
    rss = 0
    for line in lines:
        mapping = _MAPPING.fullmatch(line)
        if mapping:
            path = mapping[1]
            continue
        name, _, rest = line.partition(":")
        if name not in found:
            continue
        size = int(rest.split()[0]) * 1024
        found[name] += size
        if name == "Rss":
            rss = size
        elif name == "Pss":
            own = path.startswith("/") and not _EVERYBODYS.match(path)
            found["alone"] += rss if own else size
    private = found["Private_Clean"] + found["Private_Dirty"]
    return Memory(*(size / 1e6 for size in (found["Rss"], found["Pss"], found["alone"], private)))
