#!/usr/bin/env python3
"""An example of a service that can be watched: works in a loop, pings systemd, touches a heartbeat file.

Standard library only. The work here is to wait; put yours into ``work``.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from pathlib import Path


def notify(message: str) -> None:
    """Say ``message`` to systemd; does nothing where no systemd listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
        speaker.sendto(message.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)


def ping_seconds(default: float = 10.0) -> float:
    """How often to ping: three times within what systemd allows."""
    return min(default, int(os.environ.get("WATCHDOG_USEC", "0")) / 3e6 or default)


def work() -> None:
    """One piece of the job. Whatever hangs in here keeps the next ping from being sent."""


def main() -> int:
    """Work until SIGTERM."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stopping.set())
    # systemd gives the directory by RuntimeDirectory=; others may read it, so that the agent sees the age.
    heartbeat = Path(os.environ.get("RUNTIME_DIRECTORY", "/tmp")) / "heartbeat"  # noqa: S108 - run by hand
    pause_seconds = ping_seconds()
    notify("READY=1")
    while not stopping.is_set():
        work()
        heartbeat.touch()
        notify("WATCHDOG=1")
        stopping.wait(pause_seconds)
    notify("STOPPING=1")
    return 0


if __name__ == "__main__":
    sys.exit(main())
