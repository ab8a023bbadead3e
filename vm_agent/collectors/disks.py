"""How full the file systems are: of bytes and of inodes."""

from __future__ import annotations

import os
from datetime import datetime

from vm_agent import mounts
from vm_agent.collectors.base import MAX_MESSAGE_CHARS, Parts
from vm_health.model import CollectorFailure, DiskSample

MAX_DISKS = 32  # with these a report stays inside its 48,000 characters


class DisksCollector:
    """Usage per mount, as ``df`` counts it: of what users other than root may fill.

    Without ``chosen`` all real file systems are looked at, as they come and go.
    """

    name = "disks"
    interval_seconds = 0.0

    def __init__(self, chosen: tuple[str, ...] = (), mountinfo: str = mounts.MOUNTINFO) -> None:
        self._chosen = chosen
        self._mountinfo = mountinfo
        self._text = ""
        self._real: tuple[str, ...] = ()
        self._points: frozenset[str] = frozenset()

    def collect(self, now: datetime) -> Parts:
        """Look at every mount; one that is gone does not hide the others."""
        self._read_mounts()
        disks: list[DiskSample] = []
        problems: list[str] = []
        for mount in self._chosen or self._real[:MAX_DISKS]:
            try:
                self._need_mounted(mount)
                disks.append(usage(mount))
            except PermissionError as error:
                if self._chosen:  # that of others' own mounts which nobody asked for is no problem
                    problems.append(f"disk {mount} cannot be read: {error.strerror}")
            except OSError as error:
                problems.append(f"disk {mount} cannot be read: {error.strerror or error}")
        if not self._chosen and len(self._real) > MAX_DISKS:
            problems.append(
                f"{len(self._real) - MAX_DISKS} more mounts are not looked at; choose by DISK_MOUNTS"
            )
        failures = [CollectorFailure(self.name, problem[:MAX_MESSAGE_CHARS]) for problem in problems]
        return {"disks": tuple(disks), "failures": tuple(failures)}

    def _read_mounts(self) -> None:
        with open(self._mountinfo, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
        if text != self._text:  # mounts seldom change
            found = mounts.parse(text)
            self._text, self._real = text, mounts.real(found)
            self._points = frozenset(mount.point for mount in found)

    def _need_mounted(self, mount: str) -> None:
        """A directory whose disk is not mounted would show the usage of the disk below it.

        Raises:
            OSError: nothing is mounted there.
        """
        if mount in self._points:
            return
        os.stat(mount)
        if os.path.realpath(mount) not in self._points:
            raise OSError("it is no mount point")


def usage(mount: str) -> DiskSample:
    """Ask the kernel; the same call that ``df`` and ``df -i`` make.

    Raises:
        OSError: it does not say.
    """
    found = os.statvfs(mount)
    used = found.f_blocks - found.f_bfree
    fillable = used + found.f_bavail
    inodes = found.f_files  # 0 where there is no such limit (Btrfs, FAT)
    return DiskSample(
        mount=mount.encode("utf-8", "replace").decode("utf-8", "replace"),
        total_bytes=found.f_blocks * found.f_frsize,
        free_bytes=found.f_bavail * found.f_frsize,
        used_percent=round(100 * used / fillable, 2) if fillable > 0 else 0.0,
        inodes_used_percent=round(100 * (inodes - found.f_ffree) / inodes, 2) if inodes > 0 else None,
    )
