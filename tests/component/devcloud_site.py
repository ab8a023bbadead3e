"""A running local Azure as tests hold it: VMs that run real processes, and clients of the real SDKs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from azure.identity.aio import DefaultAzureCredential
from azure.mgmt.compute.aio import ComputeManagementClient
from azure.monitor.query.aio import LogsQueryClient

from devcloud.cloud import LocalCloud
from devcloud.vms.base import ScriptResult, VmSpec

ROOT = Path(__file__).resolve().parents[2]
API = "api-version=2026-04-01"


class ShellVm:
    """A VM whose scripts are real processes on this machine; its power state is what the test says."""

    def __init__(self, name: str, address: str = "127.0.0.1", **tags: str) -> None:
        self.spec = VmSpec(name, address, tags=tags)
        self.power_state = "running"
        self.vm_agent_ready = True
        self.restarts = 0

    async def start(self) -> None:
        self.power_state = "running"

    async def stop(self) -> None:
        self.power_state = "deallocated"

    async def restart(self) -> None:
        self.restarts += 1

    async def run_script(
        self, script: str, environment: Mapping[str, str], timeout_seconds: float
    ) -> ScriptResult:
        process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            script,
            env={**os.environ, **environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(timeout_seconds):
                out, err = await process.communicate()
        except TimeoutError:
            return ScriptResult(-1, "", "", timed_out=True)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        assert process.returncode is not None
        return ScriptResult(process.returncode, out.decode(), err.decode())


@dataclass(slots=True)
class Site:
    """A running cloud, its VMs, and clients that reach it as the product does."""

    cloud: LocalCloud
    vms: dict[str, ShellVm]
    credential: DefaultAzureCredential
    compute: ComputeManagementClient
    logs: LogsQueryClient
    http: aiohttp.ClientSession

    def bearer(self, audience: str = "https://management.azure.com", life: int = 600) -> dict[str, str]:
        """An Authorization header."""
        return {"Authorization": f"Bearer {self.cloud.tokens.mint(audience, life).text}"}

    def vm_url(self, name: str, rest: str = "") -> str:
        """ARM's address of a VM."""
        return f"{self.cloud.arm_url}{self.vms[name].spec.vm_id}{rest}?{API}"
