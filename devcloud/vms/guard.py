"""The process that stands outside a box: starts it, tells its owner, and takes it all down again.

``python -m devcloud.vms.guard``: reads one line of JSON (a ``Box``) from standard input and writes lines of
JSON: ``{"pid": N, "groups": [...]}``, then ``{"ready": true}`` when systemd has finished booting, or
``{"error": "..."}``. It ends the box when standard input closes (its owner has closed it, or was killed) or
when systemd ends.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

from devcloud.vms import cgroups, linux, namespaces
from devcloud.vms.namespaces import Box, BoxFile


def tell(**message: object) -> None:
    """One line to the owner, who may be gone."""
    try:
        print(json.dumps(message), flush=True)
    except BrokenPipeError:
        return


def read_box(line: str) -> Box:
    """The box that the owner asks for."""
    values = json.loads(line)
    values["files"] = [BoxFile(**file) for file in values["files"]]
    values["binds"] = [(source, target) for source, target in values["binds"]]
    return Box(**values)


def notify_socket(directory: Path) -> socket.socket:
    """Where PID 1 says that it has booted; bound by a short name, as paths are limited to 107 bytes."""
    share = directory / "share"
    share.mkdir(parents=True, exist_ok=True)
    (share / "notify").unlink(missing_ok=True)
    os.chdir(share)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind("notify")
    os.chdir("/")
    return listener


def ip(*batch: str) -> None:
    """Run ``ip`` commands in the network namespace that this process is in."""
    done = subprocess.run(
        ["ip", "-batch", "-"], input="\n".join(batch), text=True, capture_output=True, check=False, timeout=10
    )
    if done.returncode:
        raise OSError(f"ip: {done.stderr.strip()}")


def unplug(box: Box) -> None:
    """Remove the cable to the box now; the kernel would do it some time after the box has ended."""
    subprocess.run(["ip", "link", "del", box.interface], capture_output=True, check=False, timeout=10)


def fork_init(box: Box, groups: list[Path], console: int) -> tuple[int, int]:
    """Fork the box's PID 1, which waits for its network; returns its pid and what a byte to lets it go on."""
    go_read, go_write = os.pipe()
    ready_read, ready_write = os.pipe()
    own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY)
    linux.unshare(linux.CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        try:
            linux.die_with_parent(signal.SIGKILL)
            os.setsid()
            os.close(go_write)
            os.close(ready_read)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(console, 1)
            os.dup2(console, 2)
            namespaces.enter_namespaces(groups)
            os.write(ready_write, b"1")
            os.close(ready_write)
            root = namespaces.build_tree(box)
            if os.read(go_read, 1):  # else the guard is gone
                ip(
                    "link set lo up",
                    f"addr add {box.address}/{box.prefix_length} dev eth0",
                    "link set eth0 up",
                )
                namespaces.become_init(root, box.name)
        except BaseException as error:  # noqa: BLE001 - a forked child must never return into the caller
            os.write(2, f"box {box.name}: {error}\n".encode())
        finally:
            os._exit(1)
    linux.setns(own_pids, linux.CLONE_NEWPID)  # our next children are ours again, not the box's
    for descriptor in (own_pids, go_read, ready_write):
        os.close(descriptor)
    os.read(ready_read, 1)
    os.close(ready_read)
    return pid, go_write


def watch(init: int, listener: socket.socket) -> None:
    """Report readiness; return when the owner is gone or the box has ended."""
    ended = os.pidfd_open(init)
    poll = select.poll()
    for descriptor in (0, ended, listener.fileno()):
        poll.register(descriptor, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        if 0 in ready or ended in ready:
            return
        if b"READY=1" in listener.recv(4096).split(b"\n"):
            tell(ready=True)


def take_down(init: int, groups: list[Path], box: Box) -> None:
    """Kill PID 1, with which the kernel ends all in its pid namespace, and remove what the box had here."""
    if init:
        os.kill(init, signal.SIGKILL)
        os.waitpid(init, 0)
    unplug(box)
    for group in cgroups.remove(groups):
        print(f"guard: control group {group} could not be removed", file=sys.stderr)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    box = read_box(sys.stdin.readline())
    init, groups = 0, []
    try:
        cgroups.remove_leftovers("vmw*p*")
        unplug(box)
        listener = notify_socket(Path(box.directory))
        with (Path(box.directory) / "console.log").open("ab") as console:
            for hierarchy in cgroups.hierarchies():
                groups.append(cgroups.create(hierarchy, f"{box.interface}-{os.getpid()}"))
            init, go = fork_init(box, groups, console.fileno())
        tell(pid=init, groups=[str(group) for group in groups])
        ip(
            f"link add {box.interface} type veth peer name eth0 netns {init}",
            f"link set {box.interface} master {box.bridge} up",
        )
        os.write(go, b"1")
        os.close(go)
        watch(init, listener)
    except OSError as error:
        tell(error=str(error))
    finally:
        take_down(init, groups, box)
    return 0
