"""``vm-agent lock`` and ``unlock``: writes and removes the deploy lock that ``deploy_lock.py`` reads.

Its directory belongs to the agent's user (systemd makes it for vm-agent.service) while root writes there: so
nothing is followed, nothing that is there is written into, and the file stays root's own.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pwd
from datetime import datetime, timedelta

from vm_agent.deploy_lock import MAX_HOLDER_CHARS, printable, read_lock
from vm_agent.install_plan import USER
from vm_health.errors import PermanentError
from vm_health.model import DeployLock

RUNTIME_DIRECTORY = "/run/vm-agent"
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def lock(path: str, minutes: float, holder: str, now: datetime) -> tuple[DeployLock, DeployLock | None]:
    """Write a lock for ``minutes`` from ``now``; returns it and the one in whose place it stands.

    Raises:
        PermanentError: it can't be written; the text says why and what to do.
    """
    _must_be_wanted(path)
    former = None
    with contextlib.suppress(PermanentError):  # what is no lock is replaced too
        former = read_lock(path, now)
    until = (now + timedelta(minutes=minutes)).replace(microsecond=0)
    made = DeployLock(until, printable(holder)[:MAX_HOLDER_CHARS])
    content = json.dumps({"until": made.until.isoformat(), "holder": made.holder}) + "\n"
    try:
        _make_directory(os.path.dirname(path))
        _write(path, content.encode())
    except OSError as error:
        raise _told(path, "written", error) from error
    return made, former


def unlock(path: str) -> bool:
    """Remove the lock; tells whether there was one.

    Raises:
        PermanentError: it can't be removed.
    """
    _must_be_wanted(path)
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _told(path, "removed", error) from error
    return True


def _must_be_wanted(path: str) -> None:
    if not path:
        raise PermanentError("VM_AGENT_DEPLOY_LOCK_FILE is off: the agent heeds no deploy lock")


def _make_directory(directory: str) -> None:
    """Make what systemd makes at the agent's start, as it makes it: else it would give away what is in it."""
    try:
        os.mkdir(directory)
    except FileExistsError:
        return
    os.chmod(directory, 0o755)  # noqa: S103 - the agent's user and others may look, and do no more
    if directory == RUNTIME_DIRECTORY and os.geteuid() == 0:
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(USER)
            os.chown(directory, user.pw_uid, user.pw_gid)


def _write(path: str, content: bytes) -> None:
    """Replace ``path``: at no moment is there half of it, and everybody may read it, whatever the umask."""
    directory, name = os.path.split(path)
    fresh = f".{name}.new"
    parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh, dir_fd=parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(fresh, flags, 0o600, dir_fd=parent), "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), 0o644)
        os.rename(fresh, name, src_dir_fd=parent, dst_dir_fd=parent)
    finally:
        os.close(parent)


def _told(path: str, what: str, error: OSError) -> PermanentError:
    advice = "; must be run as root (sudo)" if error.errno in _DENIED else ""
    return PermanentError(f"deploy lock {path} cannot be {what} ({error.strerror}){advice}")
