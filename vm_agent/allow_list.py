"""Which units may be restarted on this VM: the file of its administrator has the last word.

Only a file that nobody but root (or, for a run without root, that run's own user) can write is believed.
"""

from __future__ import annotations

import os
import stat

from vm_health.errors import PermanentError
from vm_health.names import is_unit_name

ALWAYS_ALLOWED = frozenset({"vm-agent.service"})
_MAX_BYTES = 64 * 1024


def is_allowed(unit: str, path: str) -> bool:
    """Tell whether ``unit`` may be restarted by the list at ``path``.

    Raises:
        PermanentError: the list is missing, unreadable or not to be trusted.
    """
    return unit in ALWAYS_ALLOWED or unit in read_allow_list(path)


def read_allow_list(path: str) -> frozenset[str]:
    """Read one unit a line; ``#`` begins a comment.

    Raises:
        PermanentError: the list is missing, unreadable, not to be trusted, or holds what is no unit's name.
    """
    try:
        # The open file is what is checked, so nobody can swap it between the check and the reading.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise PermanentError(f"allow-list {path} cannot be opened ({error.strerror})") from error
    try:
        directory = os.path.dirname(path)
        for found, what in ((os.fstat(handle), path), (os.stat(directory), directory)):
            problem = distrust(found.st_uid, found.st_mode, os.geteuid())
            if problem:
                raise PermanentError(f"allow-list is not trusted: {what} {problem}")
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise PermanentError(f"allow-list {path} is not a file")
        content = os.read(handle, _MAX_BYTES + 1)
    finally:
        os.close(handle)
    if len(content) > _MAX_BYTES:
        raise PermanentError(f"allow-list {path} is larger than {_MAX_BYTES} bytes")
    return parse_allow_list(content.decode(errors="replace"), path)


def parse_allow_list(text: str, path: str) -> frozenset[str]:
    """Return the names in ``text``.

    Raises:
        PermanentError: a line is no unit's name; nothing of such a list is used.
    """
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    names = [line for line in lines if line]
    wrong = [name for name in names if not is_unit_name(name)]
    if wrong:
        raise PermanentError(f"allow-list {path} holds {wrong[0][:100]!r}, which is not a unit's full name")
    return frozenset(names)


def distrust(owner: int, mode: int, runs_as: int) -> str:
    """Say why something with this owner and mode is not believed, "" where it is.

    ``runs_as`` is the user of this run: as root only root's own things count, and a run without root can do
    no more than its user could without us.
    """
    if owner not in (0, runs_as):
        return f"belongs to user {owner}, must be root's"
    if stat.S_ISDIR(mode) and mode & stat.S_ISVTX:
        return ""  # as /tmp: others may add files but not replace this one
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"has mode {stat.S_IMODE(mode):04o}, must not be writable for group or others"
    return ""
