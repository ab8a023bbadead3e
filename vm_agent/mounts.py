"""Which mounts there are, and which of them hold somebody's data. Reads one file of the kernel's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

MOUNTINFO = "/proc/self/mountinfo"
# What lies on a disk and can fill up. Images that are full by nature (squashfs, iso9660), memory (tmpfs),
# layers (overlay) and what a far machine owns (nfs, cifs, fuse: may hang) are not among them.
DISK_TYPES = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "bcachefs", "f2fs", "jfs", "nilfs2", "reiserfs"}
    | {"vfat", "exfat", "ntfs", "ntfs3"}
)
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of ``mountinfo``: device number, the part of the file system that is shown, where, its type."""

    device: str
    root: str
    point: str
    fs_type: str


def parse(text: str) -> list[Mount]:
    """Read ``/proc/self/mountinfo`` (proc(5)); of mounts on one point only the last can be seen."""
    found: dict[str, Mount] = {}
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if not separator or len(fields) < 6:
            continue
        point = _plain(fields[4])
        found.pop(point, None)
        found[point] = Mount(fields[2], _plain(fields[3]), point, kind[0])
    return list(found.values())


def real(mounts: Iterable[Mount]) -> tuple[str, ...]:
    """Return where real file systems are mounted, each once, in order; the root always, whatever it is on.

    A directory that is bound to a second place (root is not ``/``) is no file system of its own; Btrfs mounts
    its subvolumes that way, and one of them stands for all.
    """
    chosen: dict[str, str] = {}
    for mount in sorted(mounts, key=lambda mount: (len(mount.point), mount.point)):
        whole = mount.root == "/" or mount.fs_type == "btrfs"
        if mount.point == "/" or (mount.fs_type in DISK_TYPES and whole):
            chosen.setdefault(mount.device, mount.point)
    return tuple(sorted(chosen.values()))


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text) if "\\" in text else text
