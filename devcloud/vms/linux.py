"""The few Linux system calls that Python's library lacks. Knows nothing of virtual machines.

On other systems the process-lifetime calls do nothing and the namespace calls raise ``OSError``.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

BOX_NAMESPACES = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_PIVOT_ROOT_NUMBERS = {"x86_64": 155, "aarch64": 41, "riscv64": 41}

_LIBC = ctypes.CDLL(None, use_errno=True)
IS_LINUX = sys.platform.startswith("linux")


def _checked(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def die_with_parent(signal_number: int) -> None:
    """Have the kernel send ``signal_number`` to this process when its parent (thread) ends."""
    if IS_LINUX:
        _checked(_LIBC.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl PDEATHSIG")


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, as PID 1 is."""
    if IS_LINUX:
        _checked(_LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl SUBREAPER")


def join_cgroup(group: str) -> None:
    """Move this process into a group, or into its ``init.scope`` where systemd has made one there."""
    scope = f"{group}/init.scope"
    with open(f"{scope if os.path.isdir(scope) else group}/cgroup.procs", "w", encoding="ascii") as members:
        members.write("0")


def unshare(flags: int) -> None:
    """Leave the shared namespaces named by ``flags`` for new ones."""
    _checked(_LIBC.unshare(flags), "unshare")


def setns(descriptor: int, flags: int) -> None:
    """Enter the namespaces ``flags`` of what ``descriptor`` (a pidfd or a namespace file) stands for."""
    _checked(_LIBC.setns(descriptor, flags), "setns")


def mount(source: str, target: str | Path, kind: str = "", flags: int = 0, options: str = "") -> None:
    """``mount(2)``; an error names source and target."""
    result = _LIBC.mount(
        source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode()
    )
    _checked(result, f"mount {kind or 'bind'} {source} on {target}")


def bind(source: str | Path, target: str | Path, *, read_only: bool = False) -> None:
    """Show ``source`` (a file or a tree) at ``target`` too."""
    mount(str(source), target, flags=MS_BIND | MS_REC)
    if read_only:
        mount("none", target, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID)


def pivot_root(new_root: str, put_old: str) -> None:
    """Make ``new_root`` the root of this mount namespace and move the old one to ``put_old``."""
    number = _PIVOT_ROOT_NUMBERS.get(os.uname().machine)
    if number is None:
        raise OSError(f"pivot_root: unknown machine {os.uname().machine!r}")
    _checked(_LIBC.syscall(number, new_root.encode(), put_old.encode()), "pivot_root")


def unmount_lazily(target: str) -> None:
    """Detach ``target`` now; it goes for good when nothing uses it any more."""
    _checked(_LIBC.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def descendants(pid: int) -> list[int]:
    """Every living descendant of ``pid``, parents before children; empty where /proc is missing."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop(0)
        for listing in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                children = [int(word) for word in listing.read_text().split()]
            except OSError:  # the parent ended while it was looked at
                continue
            found += children
            waiting += children
    return found
