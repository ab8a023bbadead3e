"""The inside of a box: from a forked child to a real systemd as PID 1 of its own namespaces.

Builds the file tree on an overlay of the host's, so that a box needs no image; all that it can write of the
host's is ``share/``. It keeps accidents in, not attackers: root inside has every capability. Neither starts
processes nor cleans up: ``guard.py`` does. Linux and root only.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from devcloud.vms import cgroups, linux

INIT_PATHS = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOST_SHARE = "/run/host"  # where systemd.io/CONTAINER_INTERFACE has the manager's things
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
# Units that reach for hardware, the kernel or a console, none of which a box has.
_MASKED = """
    systemd-sysctl.service systemd-modules-load.service systemd-binfmt.service systemd-random-seed.service
    systemd-remount-fs.service systemd-update-utmp.service systemd-update-utmp-runlevel.service
    systemd-journal-flush.service systemd-tmpfiles-setup-dev.service systemd-tmpfiles-setup-dev-early.service
    systemd-sysusers.service systemd-pstore.service systemd-machine-id-commit.service systemd-udevd.service
    systemd-udev-trigger.service systemd-udev-settle.service systemd-udevd-control.socket
    systemd-udevd-kernel.socket systemd-boot-random-seed.service systemd-logind.service
    systemd-firstboot.service systemd-hwdb-update.service systemd-networkd.service systemd-networkd.socket
    systemd-resolved.service systemd-timesyncd.service systemd-journal-catalog-update.service
    systemd-update-done.service systemd-quotacheck.service systemd-fsck-root.service systemd-repart.service
    systemd-user-sessions.service systemd-tmpfiles-clean.timer systemd-ask-password-wall.path
    systemd-ask-password-console.path kmod-static-nodes.service ldconfig.service console-getty.service
    getty.target remote-fs.target swap.target tmp.mount dev-hugepages.mount dev-mqueue.mount
    sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount
    proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount
"""
_CONFIGURATION = {
    "journald.conf.d/devcloud.conf": (
        "[Journal]\nStorage=volatile\nRuntimeMaxUse=64M\nForwardToSyslog=no\nReadKMsg=no\nAudit=no\n"
    ),
    "system.conf.d/devcloud.conf": "[Manager]\nDefaultTimeoutStopSec=10s\nShowStatus=no\n",
}


@dataclass(frozen=True, slots=True)
class BoxFile:
    """A file put into the box before it boots."""

    path: str
    text: str
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Box:
    """All that makes a box. ``directory`` on the host holds ``disk/``, ``work/``, ``mnt/`` and ``share/``."""

    name: str
    directory: str
    address: str
    prefix_length: int
    bridge: str
    interface: str
    binds: Sequence[tuple[str, str]] = ()
    files: Sequence[BoxFile] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def find_init() -> str | None:
    """The host's systemd, which is the box's too."""
    return next((path for path in INIT_PATHS if os.access(path, os.X_OK)), None)


def enter_namespaces(groups: Sequence[Path]) -> None:
    """Join the box's control groups, then leave the host's namespaces (but pid: left before the fork)."""
    for group in groups:  # first, so that the cgroup namespace begins there
        linux.join_cgroup(str(group))
    linux.unshare(linux.BOX_NAMESPACES)
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)


def build_tree(box: Box) -> Path:
    """Mount the box's file tree; returns its root on the host's tree."""
    root = _mount_disk(box)
    _mount_kernel_trees(root)
    _mount_devices(root)
    for place, mode in (("run", "755"), ("tmp", "1777")):
        linux.mount("tmpfs", root / place, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, f"mode={mode}")
    share = root / HOST_SHARE.lstrip("/")
    share.mkdir()
    linux.bind(Path(box.directory) / "share", share)
    for source, target in box.binds:
        place_of_bind = root / target.lstrip("/")
        place_of_bind.mkdir(parents=True, exist_ok=True)
        linux.bind(source, place_of_bind, read_only=True)
    _write_files(box, root)
    return root


def become_init(root: Path, name: str) -> None:
    """Make ``root`` the only tree that this process sees and turn into systemd."""
    socket.sethostname(name)
    os.chdir(root)
    Path("mnt").mkdir(exist_ok=True)
    linux.pivot_root(".", "mnt")
    linux.unmount_lazily("mnt")
    os.chdir("/")
    init = find_init()
    if init is None:
        raise OSError("no systemd in the box")
    environment = {
        "PATH": SEARCH_PATH,
        "LANG": "C.UTF-8",
        "container": "devcloud",
        "NOTIFY_SOCKET": f"{HOST_SHARE}/notify",
        "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE": "1",  # newer ones refuse v1 unless told
    }
    os.execve(init, [init, "--system", "--unit=multi-user.target", "--log-target=journal"], environment)


def _mount_disk(box: Box) -> Path:
    """An overlay of the host's root; what the box writes is kept in ``disk/`` where the host can do that."""
    place = Path(box.directory) / "mnt"
    disk, work = Path(box.directory) / "disk", Path(box.directory) / "work"
    for directory in (place, disk, work):
        directory.mkdir(parents=True, exist_ok=True)
    try:
        _overlay(disk, work, place)
    except OSError:  # an upper layer can't lie on an overlay, as in most containers: keep it in memory
        linux.mount("tmpfs", place, "tmpfs", options="mode=755")
        disk, work, place = place / "disk", place / "work", place / "root"
        for directory in (place, disk, work):
            directory.mkdir()
        _overlay(disk, work, place)
    return place


def _overlay(disk: Path, work: Path, place: Path) -> None:
    linux.mount("overlay", place, "overlay", options=f"lowerdir=/,upperdir={disk},workdir={work}")


def _mount_kernel_trees(root: Path) -> None:
    strict = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    linux.mount("proc", root / "proc", "proc", strict)
    settings = root / "proc/sys"  # the host's kernel settings are not the box's to change
    linux.mount(str(settings), settings, flags=linux.MS_BIND)
    linux.mount("none", settings, flags=linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | strict)
    linux.mount("sysfs", root / "sys", "sysfs", strict | linux.MS_RDONLY)
    tree = root / "sys/fs/cgroup"
    if cgroups.is_unified():
        linux.mount("cgroup2", tree, "cgroup2", strict)
        return
    linux.mount("cgroup", tree, "tmpfs", strict, "mode=755")
    for hierarchy in cgroups.hierarchies():
        place = tree / hierarchy.mount_name
        place.mkdir()
        linux.mount(
            "cgroup", place, "cgroup2" if hierarchy.version == 2 else "cgroup", strict, hierarchy.options
        )


def _mount_devices(root: Path) -> None:
    devices = root / "dev"
    linux.mount("dev", devices, "tmpfs", linux.MS_NOSUID, "mode=755")
    for name in _DEVICES:
        (devices / name).touch()
        linux.bind(f"/dev/{name}", devices / name)
    for name in ("pts", "shm"):
        (devices / name).mkdir()
    options = "newinstance,ptmxmode=666,mode=620,gid=5"
    linux.mount("devpts", devices / "pts", "devpts", linux.MS_NOSUID | linux.MS_NOEXEC, options)
    linux.mount("shm", devices / "shm", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=1777")
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd"}
    links |= {name: f"/proc/self/fd/{number}" for number, name in enumerate(("stdin", "stdout", "stderr"))}
    for name, target in links.items():
        (devices / name).symlink_to(target)


def _write_files(box: Box, root: Path) -> None:
    """The machine's identity, our masks instead of the host's own enabled units, and the caller's files."""
    units = root / "etc/systemd/system"
    first_boot = not (units / ".devcloud").exists()
    if first_boot:
        _forget_enabled_units(units)
        (root / ".dockerenv").unlink(missing_ok=True)
        (root / "etc/machine-id").unlink(missing_ok=True)
        (root / "etc/machine-id").write_text(secrets.token_hex(16) + "\n")
        (root / "etc/hostname").write_text(f"{box.name}\n")
        (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n{box.address} {box.name}\n")
    for name, text in _CONFIGURATION.items():
        path = root / "etc/systemd" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for file in box.files:
        path = root / file.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text)
        path.chmod(file.mode)


def _forget_enabled_units(units: Path) -> None:
    for path in sorted(units.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
    units.mkdir(parents=True, exist_ok=True)
    for name in _MASKED.split():
        (units / name).symlink_to("/dev/null")
    # Nor the host's init scripts: whatever is installed there would be started, or fail, in every box.
    generators = units.parent / "system-generators"
    generators.mkdir(exist_ok=True)
    (generators / "systemd-sysv-generator").unlink(missing_ok=True)
    (generators / "systemd-sysv-generator").symlink_to("/dev/null")
    (units / ".devcloud").touch()


def main() -> int:
    """Try what a box needs of the kernel, in a process that ends at once; an error says what is refused."""
    linux.unshare(linux.BOX_NAMESPACES | linux.CLONE_NEWPID)
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    return 0
