"""``vm-agent install``: makes this machine run the agent as a service. Root's, and safe to repeat.

What is to be done stands in ``install_plan.py``; here it is done, or only told (``--dry-run``).
"""

from __future__ import annotations

import contextlib
import grp
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from vm_agent.config import AgentConfig
from vm_agent.install_plan import ALLOW_LIST, PROGRAM, USER, Machine, Run, Wanted, WriteFile, plan
from vm_agent.polkit_rule import knows_rules
from vm_agent.status import address_of, ask
from vm_health.errors import PermanentError, TransientError

_SOURCES = (
    "vm-agent.sysusers.conf",
    "vm-agent.service",
    "vm-agent-repair.service",
    "vm-agent-repair.timer",
)
_SHARE = "share/azure-vm-watchdog/systemd"
_COMMAND_TIMEOUT_SECONDS = 60.0
_ANSWER_TIMEOUT_SECONDS = 20.0
_LOOK_SECONDS = 0.2
_NO_SYSTEMD = "systemd does not run here"


class Installer:
    """Carries steps out below ``root``; with another root than / an image is made and nothing is run."""

    def __init__(self, say: Callable[[str], None], *, root: str = "/", dry_run: bool = False) -> None:
        self._say = say
        self._root = Path(root)
        self._dry_run = dry_run

    def do(self, steps: Sequence[WriteFile | Run]) -> None:
        """Do every step and say what was done.

        Raises:
            PermanentError: a step failed; the ones before it are done.
        """
        for step in steps:
            try:
                self._write(step) if isinstance(step, WriteFile) else self._run(step)
            except OSError as error:
                what = step.path if isinstance(step, WriteFile) else " ".join(step.command)
                raise PermanentError(f"{what}: {error.strerror}") from error

    def _write(self, step: WriteFile) -> None:
        path = self._root / step.path.lstrip("/")
        before = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
        mode = 0o640 if step.for_agent else 0o644
        if before is not None and (step.keep or before == step.text):
            self._say(f"{'kept' if step.keep else 'unchanged':<10} {path}")
            return
        if self._dry_run:
            self._say(f"{'would write' if before is None else 'would change'} {path}")
            return
        self._make_parents(path)
        fresh = path.with_name(f".{path.name}.new")
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(handle, "w", encoding="utf-8") as file:
            file.write(step.text)
            os.fchmod(file.fileno(), mode)
            if step.for_agent and self._root == Path("/"):
                os.fchown(file.fileno(), 0, _group_of(USER))
        fresh.replace(path)
        self._say(f"{'wrote' if before is None else 'changed':<10} {path}")

    def _make_parents(self, path: Path) -> None:
        """Make what is missing, open to readers whatever root's umask says: the agent has its own user."""
        for parent in reversed(path.parents):
            if not parent.exists():
                parent.mkdir()
                parent.chmod(0o755)

    def _run(self, step: Run) -> None:
        text = " ".join(step.command)
        if self._dry_run:
            self._say(f"would run  {text}  ({step.why})")
            return
        if self._root != Path("/"):
            self._say(f"left out   {text}  (not in an image)")
            return
        end = subprocess.run(
            step.command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_COMMAND_TIMEOUT_SECONDS,
            check=False,
        )
        if end.returncode:
            reason = (end.stderr.strip() or f"exit code {end.returncode}").splitlines()[-1]
            raise PermanentError(f"{text}: {reason}")
        self._say(f"{'ran':<10} {text}")


def install(wanted: Wanted, say: Callable[[str], None], *, root: str = "/", dry_run: bool = False) -> None:
    """Install the agent and start it.

    Raises:
        PermanentError: it cannot be done; the text says what must be different.
    """
    if not dry_run and os.geteuid() != 0:
        raise PermanentError("install must be run as root (sudo); --dry-run shows what it would do")
    if root == "/" and not dry_run and not os.path.isdir("/run/systemd/system"):
        raise PermanentError(f"{_NO_SYSTEMD}; to prepare an image use --root DIRECTORY")
    Installer(say, root=root, dry_run=dry_run).do(plan(wanted, _machine(root), _sources()))


def wait_until_it_answers(found: AgentConfig, say: Callable[[str], None]) -> None:
    """Wait until the agent with these settings has taken its first sample.

    Raises:
        PermanentError: nothing answered in time, or something that is no agent.
    """
    deadline = time.monotonic() + _ANSWER_TIMEOUT_SECONDS
    problem = "it has taken no sample"
    while time.monotonic() < deadline:
        try:
            status = ask(found, timeout_seconds=2.0)
            if status.report.sequence:
                say(f"{'answers':<10} {address_of(found)}/health says {status.report.status}")
                return
        except TransientError as error:
            problem = str(error)
        time.sleep(_LOOK_SECONDS)
    address = f"no answer from {address_of(found)} within {_ANSWER_TIMEOUT_SECONDS:g} s"
    raise PermanentError(f"{address} ({problem}); see journalctl -u vm-agent -n 20")


def _machine(root: str) -> Machine:
    try:
        lines = (Path(root) / ALLOW_LIST.lstrip("/")).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    program, import_path = _program()
    return Machine(program, import_path, _polkit_has_rules(), tuple(lines))


def _program() -> tuple[tuple[str, ...], str]:
    """Return how this agent is started: by its command, else by its interpreter and where its code is."""
    beside = os.path.join(sysconfig.get_path("scripts"), "vm-agent")
    for path in (PROGRAM, beside):
        if os.access(path, os.X_OK):
            return (path,), ""
    return (sys.executable, "-P", "-m", "vm_agent"), str(Path(__file__).resolve().parents[1])


def _polkit_has_rules() -> bool:
    try:
        end = subprocess.run(
            ["pkaction", "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return end.returncode == 0 and knows_rules(end.stdout)


def _sources() -> dict[str, str]:
    """Return the unit files: beside the code in a checkout, else where the package put them."""
    places = (
        Path(__file__).resolve().parents[1] / "deploy" / "systemd",
        Path(sysconfig.get_path("data")) / _SHARE,
    )
    for place in places:
        if (place / _SOURCES[0]).is_file():
            return {name: (place / name).read_text(encoding="utf-8") for name in _SOURCES}
    raise PermanentError(f"the unit files are missing; they must be in {' or '.join(map(str, places))}")


def _group_of(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise PermanentError(f"group {name} is missing: systemd-sysusers did not make it") from None
