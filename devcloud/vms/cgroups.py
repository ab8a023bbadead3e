"""The control groups of a box: made beside our own in every hierarchy, joined, and removed.

Serves hosts with cgroup v2 alone and with the older hybrid layout (v1 controllers and ``unified``).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_V1_CONTROLLERS = {"cpu", "cpuacct", "memory", "pids", "blkio", "devices", "freezer", "cpuset"}


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted hierarchy: ``mount_name`` under ``/sys/fs/cgroup`` and where new groups of ours go."""

    mount_name: str
    parent: Path
    options: str = ""

    @property
    def version(self) -> int:
        return 1 if self.options else 2


def is_unified() -> bool:
    """Whether the host has cgroup v2 alone."""
    return (ROOT / "cgroup.controllers").exists()


def hierarchies() -> list[Hierarchy]:
    """What a box on this host gets: v2, and on a hybrid host the v1 controllers and systemd's own tree."""
    if is_unified():
        return [Hierarchy("", ROOT)]
    found = [Hierarchy("unified", ROOT / "unified")] if (ROOT / "unified").is_dir() else []
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, own = line.split(":", 2)
        name = controllers.removeprefix("name=")
        parent = ROOT / name / own.lstrip("/")
        if not parent.is_dir():
            continue
        if controllers == "name=systemd":
            found.append(Hierarchy(name, parent, "none,name=systemd"))
        elif controllers and set(controllers.split(",")) <= _V1_CONTROLLERS:
            found.append(Hierarchy(name, parent, controllers))
    return found


def create(hierarchy: Hierarchy, name: str) -> Path:
    """Make the group; on v2, hand down the controllers where the host allows it."""
    if hierarchy.version == 2:
        for controller in ("cpu", "memory", "pids"):
            try:
                (hierarchy.parent / "cgroup.subtree_control").write_text(f"+{controller}")
            except OSError:  # hybrid, or a container's own group: limits don't hold, all else works
                continue
    group = hierarchy.parent / name
    group.mkdir(exist_ok=True)
    if "cpuset" in hierarchy.options.split(","):  # v1 refuses processes in a group without these two
        for setting in ("cpuset.cpus", "cpuset.mems"):
            (group / setting).write_text((hierarchy.parent / setting).read_text())
    return group


def remove(groups: Iterable[Path], timeout_seconds: float = 5.0) -> list[Path]:
    """Remove the groups with all below them once their processes are gone; returns those that stayed."""
    deadline = time.monotonic() + timeout_seconds
    left = [group for group in groups if group.exists()]
    while left and time.monotonic() < deadline:
        left = [group for group in left if not _removed(group)]
        if left:
            time.sleep(0.01)  # the kernel has no event for a v1 group that has become empty
    return left


def remove_leftovers(pattern: str) -> None:
    """Remove groups ``pattern-PID`` of processes that have ended without cleaning up."""
    for hierarchy in hierarchies():
        for group in hierarchy.parent.glob(f"{pattern}-*"):
            if not Path("/proc", group.name.rpartition("-")[2]).exists():
                _removed(group)  # one that is still busy is the next run's


def _removed(group: Path) -> bool:
    try:
        below = sorted(
            (path for path in group.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts)
        )
        for path in [*below, group]:
            path.rmdir()
    except FileNotFoundError:
        return not group.exists()
    except OSError:
        return False
    return True
