"""Small files that must survive: written whole or not at all, read within bounds, locked by the kernel.

The agent's state directory belongs to an unprivileged user, and root reads and writes there too (``check
--restart`` from cron, ``remediate``): so nothing here follows a link, writes into a file that others made,
or blocks on a pipe. What root writes goes to the directory's owner, who would be locked out otherwise.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat


def read_bounded(path: str, max_bytes: int) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: it is missing, unreadable, a link or no file.
        ValueError: it is larger than ``max_bytes``.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError(f"{path} is not a file")
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"{path} is larger than {max_bytes} bytes")
    return content


def write_atomically(path: str, content: bytes) -> None:
    """Replace ``path``; on return it is on the disk, and at no moment is there half of it.

    Raises:
        OSError: it could not be done; the old content is still there.
    """
    directory, fresh = os.path.dirname(path), f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh)
    with open(create_private(fresh), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
    sync_directory(directory)


def create_private(path: str) -> int:
    """Create a file that only its owner can read and return its handle; the name must be free.

    Raises:
        OSError: it exists already or cannot be made.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    give_to_owner_of(os.path.dirname(path), handle)
    return handle


def give_to_owner_of(directory: str, handle: int) -> None:
    """Where root acts, hand the open file to whom ``directory`` belongs."""
    if os.geteuid() == 0:
        owner = os.stat(directory)
        os.fchown(handle, owner.st_uid, owner.st_gid)


def sync_directory(directory: str) -> None:
    """Bring the names in ``directory`` onto the disk."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class DirectoryLock:
    """An exclusive lock on an existing directory, freed by the kernel when its holder dies.

    The directory itself is what is locked: there is no lock file that one user makes and another can't open.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._handle = -1

    def take(self) -> bool:
        """Take the lock if it is free; False where somebody else has it.

        Raises:
            OSError: there is no such directory, or it cannot be opened.
        """
        handle = self._open()
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        except OSError:
            os.close(handle)
            raise
        self._handle = handle
        return True

    def release(self) -> None:
        """Give the lock back; any thread may."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def _open(self) -> int:
        return os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


class FileLock(DirectoryLock):
    """The same on a file of its own, which is made where it is missing."""

    def __init__(self, path: str) -> None:
        super().__init__(os.path.dirname(path))
        self._path = path

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            return os.open(self._path, flags)
        except FileNotFoundError:
            handle = os.open(self._path, flags | os.O_CREAT, 0o600)
            give_to_owner_of(self._directory, handle)
            return handle
