"""Where a run has its files and ports: directories that killed runs have left, ports that are free."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path


def remove_leftovers(parent: Path) -> None:
    """Remove the directories of runs that were killed."""
    for directory in parent.glob("run-[0-9]*-*"):
        try:
            os.kill(int(directory.name.split("-")[1]), 0)
        except ProcessLookupError:
            shutil.rmtree(directory, ignore_errors=True)
        except PermissionError:  # another user's, and alive
            continue


def is_free(hosts: Sequence[str], port: int) -> bool:
    """Tell whether a port can be listened on at every address."""
    for host in hosts:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True


def free_port(hosts: Sequence[str]) -> int:
    """Choose a port that is free just now."""
    with socket.socket() as probe:
        probe.bind((hosts[-1], 0))
        return int(probe.getsockname()[1])
