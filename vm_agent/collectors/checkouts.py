"""Deployed Git checkouts: what is checked out, changed by hand, or behind its upstream as last fetched.

Nothing is fetched and nothing written. A checkout's own configuration can name programs, so Git runs as the
checkout's owner where the agent is root, and with hooks, monitors and prompts off.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from vm_agent import commands
from vm_agent.collectors.base import Parts
from vm_health.errors import TransientError
from vm_health.model import GitSample

TIMEOUT_SECONDS = 5.0
_MAX_BYTES = 200_000  # of the changes the first is enough
_MAX_TEXT = 200
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_ASKPASS": "/bin/false",
}
_OPTIONS = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
# Files that Git does not know (logs, caches, an .env) lie in most checkouts and change nothing deployed.
_STATUS = ("status", "--porcelain=v2", "--branch", "--untracked-files=no", "--ignore-submodules=all")


class CheckoutsCollector:
    """One ``git status`` a checkout."""

    name = "checkouts"

    def __init__(self, paths: tuple[str, ...], interval_seconds: float) -> None:
        self.interval_seconds = interval_seconds
        self._paths = paths

    def collect(self, now: datetime) -> Parts:
        """Look at every checkout; what goes wrong with one stands in its sample."""
        return {"checkouts": tuple(look(path) for path in self._paths)}


def look(path: str) -> GitSample:
    """Return the state of the checkout at ``path``."""
    try:
        output = _git(path)
    except TransientError as error:
        return GitSample(path, problem=f"cannot be judged: {error}")
    except OSError as error:
        return GitSample(path, problem=f"cannot be judged: {error.strerror}")
    text = output.text.decode(errors="replace")
    if output.exit_code != 0 and not output.was_cut:
        reason = " ".join(text.split())[:_MAX_TEXT] or f"exit code {output.exit_code}"
        return GitSample(path, problem=f"cannot be judged: {reason}")
    return parse_status(path, text.splitlines())


def parse_status(path: str, lines: Sequence[str]) -> GitSample:
    """Read ``git status --porcelain=v2 --branch`` (git-status(1))."""
    found = GitSample(path)
    headers = {}
    for line in lines:
        if line.startswith("# "):
            name, _, value = line[2:].partition(" ")
            headers[name] = value
        elif line:
            found = replace(found, is_dirty=True)
            break  # headers come first
    commit, branch = headers.get("branch.oid", ""), headers.get("branch.head", "")
    found = replace(
        found,
        commit="" if commit == "(initial)" else commit[:64],
        branch="" if branch == "(detached)" else _printable(branch),
    )
    if "branch.ab" in headers:
        behind = headers["branch.ab"].rpartition("-")[2]
        return replace(found, behind=int(behind) if behind.isascii() and behind.isdigit() else 0)
    if "branch.upstream" in headers:
        return replace(
            found, problem=f"has an upstream that is gone ({_printable(headers['branch.upstream'])})"
        )
    return found  # detached or without upstream, as deployed tags are: there is nothing to be behind of


def _git(path: str) -> commands.Output:
    """Run ``git status``.

    Raises:
        TransientError: Git is missing or hung.
        OSError: the checkout is not there.
    """
    owner = os.stat(path)
    identity = None
    if os.geteuid() == 0 and owner.st_uid != 0:
        identity = commands.Identity(owner.st_uid, owner.st_gid)
    # Git refuses checkouts of other users, and before 2.38 it heeds an exception only from a file.
    trust = os.memfd_create("gitconfig", os.MFD_CLOEXEC)
    try:
        os.write(trust, f'[safe]\n\tdirectory = "{_quoted(os.path.realpath(path))}"\n'.encode())
        os.fchmod(trust, 0o644)
        return commands.run(
            ["git", "-C", path, *_OPTIONS, *_STATUS],
            {**_ENVIRONMENT, "GIT_CONFIG_GLOBAL": f"/proc/self/fd/{trust}"},
            timeout_seconds=TIMEOUT_SECONDS,
            max_bytes=_MAX_BYTES,
            identity=identity,
            pass_fds=(trust,),
        )
    finally:
        os.close(trust)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())[:_MAX_TEXT]
