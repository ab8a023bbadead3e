"""Runs a program for its output, bounded in time and size. Never through a shell."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vm_health.errors import TransientError


@dataclass(frozen=True, slots=True)
class Output:
    """What a program said (both outputs in one); ``exit_code`` is negative where a signal ended it."""

    exit_code: int
    text: bytes
    was_cut: bool = False


@dataclass(frozen=True, slots=True)
class Identity:
    """User and group to run as."""

    user: int
    group: int


def run(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    timeout_seconds: float,
    max_bytes: int,
    identity: Identity | None = None,
    pass_fds: Sequence[int] = (),
) -> Output:
    """Run a program to its end; it is killed, with its children, when it says or takes too much.

    Raises:
        TransientError: it cannot be started or did not end in time.
    """
    output, inlet = os.pipe()
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=inlet,
            stderr=inlet,
            env={**environment, "LC_ALL": "C"},
            cwd="/",
            start_new_session=True,
            pass_fds=pass_fds,
            user=identity.user if identity else None,
            group=identity.group if identity else None,
            extra_groups=[] if identity else None,
        )
    except OSError as error:
        os.close(output)
        raise TransientError(f"{arguments[0]} cannot be started: {error.strerror}") from error
    finally:
        os.close(inlet)
    try:
        text = _read(output, time.monotonic() + timeout_seconds, max_bytes)
        if text is None:
            raise TransientError(f"{arguments[0]} did not end within {timeout_seconds:g} s")
        was_cut = len(text) > max_bytes
        if was_cut:
            _kill(process)
        return Output(process.wait(timeout_seconds), text[:max_bytes], was_cut)
    except subprocess.TimeoutExpired as error:
        raise TransientError(f"{arguments[0]} did not end within {timeout_seconds:g} s") from error
    finally:
        os.close(output)
        if process.returncode is None:
            _kill(process)
            process.wait()


def _read(handle: int, deadline: float, max_bytes: int) -> bytes | None:
    """Read up to one byte more than allowed; None where the time was up before the end."""
    parts, size = [], 0
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    while size <= max_bytes:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return None
        part = os.read(handle, min(65_536, max_bytes + 1 - size))
        if not part:
            break
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
