"""What stands on a box's disk before it boots: the interpreter, the code, the agent's unit and settings.

The agent is laid out as on a real VM (``/opt/vm-agent``, ``/etc/vm-agent``), so its unit is the repository's
own, unchanged. Interpreter and code are shown read-only at fixed places: where they lie on the host may be
closed to the agent's user. Starts nothing.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devcloud.vms.helpers import REPOSITORY
from devcloud.vms.machine import AGENT_UNIT
from devcloud.vms.namespaces import BoxFile
from devcloud.vms.units import UnitFile, expanded

_HOME = "/opt/vm-agent"
_CODE = f"{_HOME}/src"
_PYTHON = f"{_HOME}/python"
_PACKAGES = f"{_HOME}/site-packages"
_CA_FILE = "/etc/vm-agent/ca.pem"
_USER = "vm-agent"
_UNITS = "/etc/systemd/system"
_SYSTEM_PREFIXES = ("/usr", "/usr/local")


@dataclass(frozen=True, slots=True)
class Installation:
    """Units of the workload, and the agent with its settings; no agent where those are ``None``."""

    units: Sequence[UnitFile]
    agent_environment: Mapping[str, str] | None

    def binds(self) -> list[tuple[str, str]]:
        """Host trees and where the box sees them, read-only."""
        paths = sysconfig.get_paths()
        found = [(str(REPOSITORY), _CODE), (paths["purelib"], _PACKAGES)]
        if paths["platlib"] != paths["purelib"]:
            found.append((paths["platlib"], f"{_PACKAGES}-platform"))
        if sys.base_prefix not in _SYSTEM_PREFIXES:
            found.append((sys.base_prefix, _PYTHON))
        return found

    def python(self) -> str:
        """The interpreter's path in the box."""
        name = f"bin/python{sys.version_info.major}.{sys.version_info.minor}"
        return f"{sys.base_prefix if sys.base_prefix in _SYSTEM_PREFIXES else _PYTHON}/{name}"

    def files(self) -> list[BoxFile]:
        """Everything to be written before the boot."""
        places = {"root": "", "python": f"{_HOME}/bin/python", "code": _CODE}
        wanted = [unit.name for unit in self.units]
        found = [BoxFile(f"{_UNITS}/{unit.name}", unit.text(places)) for unit in self.units]
        found.append(BoxFile(f"{_HOME}/bin/python", self._python_wrapper(), 0o755))
        if self.agent_environment is not None:
            wanted.append(AGENT_UNIT)
            found += self._agent_files(self.agent_environment, places)
        wants = f"[Unit]\nWants={' '.join(wanted)}\n"
        return [*found, BoxFile(f"{_UNITS}/multi-user.target.d/devcloud.conf", wants)]

    def _python_wrapper(self) -> str:
        # A moved interpreter finds its library and the installed packages through these alone.
        return (
            "#!/bin/sh\n"
            f"export LD_LIBRARY_PATH={_PYTHON}/lib PYTHONNOUSERSITE=1\n"
            f"export PYTHONPATH={_CODE}:{_PACKAGES}:{_PACKAGES}-platform\n"
            f'exec {self.python()} "$@"\n'
        )

    def _agent_files(self, settings: Mapping[str, str], places: Mapping[str, str]) -> list[BoxFile]:
        values = {name: expanded(value, places) for name, value in settings.items()}
        unit = (REPOSITORY / "deploy/systemd" / AGENT_UNIT).read_text(encoding="utf-8")
        allowed = "".join(f"{unit.name}\n" for unit in self.units)
        found = [
            BoxFile(f"{_UNITS}/{AGENT_UNIT}", unit),
            BoxFile(
                f"{_HOME}/bin/vm-agent", f'#!/bin/sh\nexec {_HOME}/bin/python -P -m vm_agent "$@"\n', 0o755
            ),
            BoxFile("/usr/local/bin/vm-agent", f'#!/bin/sh\nexec {_HOME}/bin/vm-agent "$@"\n', 0o755),
            BoxFile("/etc/vm-agent/allow-units", allowed),
            *_agent_user(),
        ]
        if bundle := values.get("SSL_CERT_FILE"):  # the host's /tmp and the like are not in the box
            found.append(BoxFile(_CA_FILE, Path(bundle).read_text(encoding="utf-8")))
            values["SSL_CERT_FILE"] = _CA_FILE
        lines = "".join(f"{name}={_environment_file_value(value)}\n" for name, value in values.items())
        return [*found, BoxFile("/etc/vm-agent/agent.env", lines, 0o640)]


def _agent_user() -> list[BoxFile]:
    """The host's users and groups and the agent's own, as vm-agent.sysusers.conf makes it on a real VM."""
    users, groups = (Path(path).read_text(encoding="utf-8") for path in ("/etc/passwd", "/etc/group"))
    if f"\n{_USER}:" in users:
        return []
    taken = {line.split(":")[2] for line in (users + groups).splitlines() if line.count(":") > 2}
    number = next(number for number in range(999, 100, -1) if str(number) not in taken)
    return [
        BoxFile("/etc/passwd", f"{users}{_USER}:x:{number}:{number}::/var/lib/vm-agent:/usr/sbin/nologin\n"),
        BoxFile("/etc/group", f"{groups}{_USER}:x:{number}:\n"),
    ]


def _environment_file_value(value: str) -> str:
    """Quoted for ``EnvironmentFile=``, whose rules inside double quotes are a shell's."""
    for character in '\\"$`':
        value = value.replace(character, "\\" + character)
    return f'"{value}"'
