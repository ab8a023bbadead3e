"""Makes simulated VMs and the units that run in them. What the stack, the demo and the tests start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from devcloud.vms.base import VmSpec
from devcloud.vms.bridge import VmNetwork
from devcloud.vms.machine import Machine
from devcloud.vms.process import ProcessVm
from devcloud.vms.systemd import SystemdVm, supported
from devcloud.vms.units import UnitFile, command_line

Kind = Literal["process", "systemd"]


def best_kind() -> Kind:
    """A real systemd where this machine allows it."""
    return "process" if supported() else "systemd"


def worker_unit(
    name: str,
    heartbeat_path: str,
    crash_file: str | None = None,
    *,
    restart: str = "no",
    restart_seconds: float = 0.1,
    interval_seconds: float = 1.0,
) -> UnitFile:
    """The sample workload as a unit.

    Both paths are absolute in the VM (``/var/lib/shop/heartbeat``). While ``crash_file`` exists, each start
    ends at once with exit code 1.
    """
    arguments = ["{python}", "{code}/devcloud/vms/worker.py", "--heartbeat", "{root}" + heartbeat_path]
    arguments += ["--interval-seconds", f"{interval_seconds:g}"]
    if crash_file is not None:
        arguments += ["--crash-file", "{root}" + crash_file]
    return UnitFile(
        name,
        exec_start=command_line(arguments),
        restart=restart,
        restart_seconds=restart_seconds,
        description="Sample worker",
    )


def create_vm(
    kind: Kind,
    spec: VmSpec,
    directory: Path,
    network: VmNetwork | None,
    agent_environment: Mapping[str, str] | None,
    units: Sequence[UnitFile],
) -> Machine:
    """A VM that is not started yet.

    ``network`` is needed for kind "systemd" and must hold ``spec.address``; ``agent_environment`` is the
    agent's ``VM_AGENT_*`` settings, ``None`` for a VM without the agent. In its values ``{root}``
    stands for the VM's file tree as the VM's processes see it. A host's file named by ``SSL_CERT_FILE`` is
    brought along.
    """
    if kind == "process":
        return ProcessVm(spec, directory, units, agent_environment)
    if network is None:
        raise ValueError(f"VM {spec.name}: network must be given for kind 'systemd'")
    return SystemdVm(spec, directory, units, agent_environment, network)
