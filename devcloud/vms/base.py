"""What the local Azure knows of a virtual machine, whatever runs it. Holds no process code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class VmSpec:
    """How a simulated VM is described to Azure Resource Manager."""

    name: str
    address: str
    resource_group: str = "rg-devcloud"
    subscription_id: str = "00000000-0000-4000-8000-000000000001"
    location: str = "westeurope"
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def vm_id(self) -> str:
        """The ARM id, in the mixed case in which ARM returns it."""
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.Compute/virtualMachines/{self.name}"
        )


@dataclass(frozen=True, slots=True)
class ScriptResult:
    """How a script ended inside a VM; ``exit_code`` is -1 where it was ended by the time-out."""

    exit_code: int
    stdout: str
    stderr: str
    timed_out: bool = False


class SimulatedVm(Protocol):
    """A VM as the ARM stand-in drives it."""

    @property
    def spec(self) -> VmSpec: ...

    @property
    def power_state(self) -> str:
        """The suffix of ARM's ``PowerState/...`` code: running, starting, stopped, deallocated."""
        ...

    @property
    def vm_agent_ready(self) -> bool:
        """Whether Azure's own VM agent answers, as the instance view reports it."""
        ...

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Deallocate: every process in the VM is killed."""
        ...

    async def restart(self) -> None: ...

    async def run_script(
        self, script: str, environment: Mapping[str, str], timeout_seconds: float
    ) -> ScriptResult:
        """Run ``script`` as root inside the VM as a real process, ended after ``timeout_seconds``."""
        ...
