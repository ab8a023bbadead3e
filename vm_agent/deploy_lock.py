"""The deploy lock: a file by which a deployment on this VM keeps repair and alerts off for a while. Reads it.

Whoever may write it keeps a machine unrepaired, so only root's file counts, or that of the agent's own user;
and what a deployment forgets ends by itself, an hour after it was written at the latest.
"""

from __future__ import annotations

import errno
import math
import os
import stat
from datetime import UTC, datetime, timedelta

from vm_agent.allow_list import distrust
from vm_health.errors import PermanentError
from vm_health.fields import Fields, load_object
from vm_health.model import DeployLock

LONGEST = timedelta(hours=1)
BY_DEFAULT = timedelta(minutes=15)
MAX_BYTES = 4_096
MAX_HOLDER_CHARS = 200
_AHEAD = timedelta(seconds=60)  # clocks are set by this much; a file from next year would hold for a year
_FORMS = 'nothing, seconds, an ISO 8601 time with an offset, or {"until": such a time, "holder": "who"}'


def read_lock(path: str, now: datetime) -> DeployLock | None:
    """Return the lock at ``path`` that is in force at ``now``, None for none.

    Raises:
        PermanentError: there is something that is no lock, or is not to be trusted; it locks nothing.
    """
    try:
        # The open file is what is checked, so nobody can swap it between the check and the reading.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise PermanentError(f"deploy lock {path} cannot be opened ({reason})") from error
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise PermanentError(f"deploy lock {path} is not a file")
        if problem := distrust(found.st_uid, found.st_mode, os.geteuid()):
            raise PermanentError(f"deploy lock is not trusted: {path} {problem}")
        content = os.read(handle, MAX_BYTES + 1)
    except OSError as error:
        raise PermanentError(f"deploy lock {path} cannot be read ({error.strerror})") from error
    finally:
        os.close(handle)
    written_at = _written_at(found.st_mtime, path, now)
    ends_at = written_at + LONGEST
    if ends_at <= now:
        return None
    if len(content) > MAX_BYTES:
        raise PermanentError(f"deploy lock {path} must be at most {MAX_BYTES} bytes")
    lock = parse_lock(content, written_at, path)
    until = min(lock.until, ends_at)
    return DeployLock(until, lock.holder) if until > now else None


def parse_lock(content: bytes, written_at: datetime, path: str) -> DeployLock:
    """Read what stands in a lock that was written at ``written_at``; its end is not bounded yet.

    Raises:
        PermanentError: it is none of the forms that a lock may have.
    """
    text = content.decode("utf-8", "replace").strip()
    if not text:
        return DeployLock(written_at + BY_DEFAULT)
    if text.startswith("{"):
        faults: list[str] = []
        fields = Fields(load_object(text, MAX_BYTES, faults), "", faults)
        until = written_at if faults else fields.moment("until")
        holder = fields.text("holder", "", MAX_HOLDER_CHARS)
        if faults:
            raise PermanentError(f"deploy lock {path}: {'; '.join(faults)}"[:300])
        return DeployLock(until, printable(holder))
    until_or_none = _after_seconds(text, written_at) or _moment(text)
    if until_or_none is None:
        raise PermanentError(f"deploy lock {path} must hold {_FORMS}, holds {text[:40]!r}")
    return DeployLock(until_or_none)


def printable(text: str) -> str:
    """Return ``text`` without what a terminal would obey."""
    return "".join(character for character in text if character.isprintable())


def _written_at(seconds: float, path: str, now: datetime) -> datetime:
    try:
        written_at = datetime.fromtimestamp(seconds, UTC)
        if written_at - now <= _AHEAD:
            return written_at
    except (ValueError, OverflowError, OSError):
        pass
    raise PermanentError(f"deploy lock {path} is dated ahead of this machine's clock; write it again")


def _after_seconds(text: str, written_at: datetime) -> datetime | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    if not math.isfinite(seconds) or seconds < 0:
        return None
    return written_at + timedelta(seconds=min(seconds, LONGEST.total_seconds()))


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
