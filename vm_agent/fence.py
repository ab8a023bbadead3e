"""Fencing tokens: one decision of the watchdog leads to one restart, however often its message arrives.

The file belongs to root, in a directory of its own and not in the agent's state directory: the agent runs
without privileges, and who can write the file could burn tokens ahead of time or make used ones fresh.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from vm_agent.allow_list import distrust
from vm_health.errors import PermanentError

MAX_TOKENS = 200
_MAX_BYTES = 1_000_000


class Fence:
    """Remembers the last 200 tokens in ``fence.json``."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._path = os.path.join(directory, "fence.json")

    def claim(self, token: str, unit: str, now: datetime) -> bool:
        """Use up ``token``; False where it was used before. On return it is on the disk.

        Raises:
            PermanentError: the file cannot be read, trusted or written; then nothing may be restarted.
        """
        try:
            self._prepare()
            with self._locked():
                used = self._read()
                if any(entry.get("token") == token for entry in used):
                    return False
                used.append({"token": token, "unit": unit, "at": now.isoformat()})
                self._write(used[-MAX_TOKENS:])
                return True
        except OSError as error:
            raise PermanentError(f"fence {self._path}: {error.strerror}") from error

    def _prepare(self) -> None:
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        found = os.stat(self._directory)
        problem = distrust(found.st_uid, found.st_mode, os.geteuid())
        if problem:
            raise PermanentError(f"fence is not trusted: {self._directory} {problem}")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock; it lies in a file of its own, for ``fence.json`` is replaced at each write."""
        path = os.path.join(self._directory, "fence.lock")
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _read(self) -> list[dict[str, Any]]:
        try:
            with open(self._path, "rb") as file:
                found = json.loads(file.read(_MAX_BYTES))["tokens"]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError):
            found = None
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            # Forgetting what was used is worse than refusing until somebody has looked.
            raise PermanentError(f"fence {self._path} is damaged; remove it once no restart is under way")
        return found

    def _write(self, used: list[dict[str, Any]]) -> None:
        fresh = f"{self._path}.new"
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(handle, "w", encoding="utf-8") as file:
            json.dump({"tokens": used}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self._path)
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
