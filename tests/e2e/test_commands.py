"""The commands of ``make run`` and ``make demo``: their answers, and that nothing of them stays behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from devcloud.stack import TOOLS
from devcloud.vms.factory import Kind
from devcloud.vms.systemd import supported
from tests.conftest import require
from tests.e2e.program import Program
from tests.e2e.site import eventually

# The loop that serves the shared stack must go on serving it, should it have been started before.
pytestmark = pytest.mark.asyncio(loop_scope="session")


def need(kind: Kind) -> None:
    """End the test where the machine can't run this kind of VM."""
    require((TOOLS / "node_modules" / "azurite").is_dir(), "Azurite, which make setup installs")
    reason = supported() if kind == "systemd" else None
    require(reason is None, str(reason))


async def test_the_demo_sees_everything_and_leaves_nothing() -> None:
    """Both kinds of VM, two demos at once on one machine."""
    await _with_every_kind(_demo)


async def test_nothing_outlives_a_run_however_it_ends() -> None:
    """SIGKILL: all of it dies with it, and the next run sweeps. Ctrl-C: exit 130 in time, and no trace."""
    await _with_every_kind(_kill_then_stop)


async def _with_every_kind(play: Callable[[Kind], Coroutine[None, None, None]]) -> None:
    kinds: tuple[Kind, ...] = ("systemd", "process")
    for kind in kinds:
        need(kind)
    async with asyncio.TaskGroup() as tasks:
        for kind in kinds:
            tasks.create_task(play(kind))


async def _demo(kind: Kind) -> None:
    async with Program.running("demo", "--fast", "10", "--vms", kind, "--port", "0") as demo:
        await demo.says("now ends as soon as it starts")
        belongings = demo.belongings()
        assert len(belongings.pids) >= 3 * 3
        assert len(belongings.bridges) == (kind == "systemd")
        assert await demo.end(90) == 0, "\n".join(demo.lines)
    told = demo.lines[demo.lines.index("What had to be seen:") + 1 :]
    assert len(told) == 6
    assert all(line.startswith("  seen ") for line in told), told
    assert belongings.left() == []
    assert not belongings.directory.exists()


async def _kill_then_stop(kind: Kind) -> None:
    async with Program.running("run", "--vms", kind, "--port", "0") as killed:
        await killed.says("dashboard: http://127.0.0.1:")
        belongings = killed.belongings()
        killed.process.kill()
        await eventually(lambda: not belongings.left(), f"nothing is left of {belongings.pids}")

    async with Program.running("run", "--vms", kind, "--port", "0") as stopped:
        await stopped.says("dashboard: http://127.0.0.1:")
        await stopped.says("tick: 3 VMs")
        assert not belongings.directory.exists()
        belongings = stopped.belongings()
        stopped.press_ctrl_c()
        assert await stopped.end(15) == 130, "\n".join(stopped.lines)
    assert stopped.lines[-1] == "ended."
    assert belongings.left() == []
    assert not belongings.directory.exists()


async def test_ctrl_c_while_it_starts() -> None:
    """Half a start is taken back whole."""
    need("process")
    async with Program.running("run", "--vms", "process", "--port", "0") as run:
        await run.says("function app")
        belongings = run.belongings()
        assert belongings.pids
        run.press_ctrl_c()
        assert await run.end(15) == 130, "\n".join(run.lines)
    assert belongings.left() == []
    assert not belongings.directory.exists()


async def test_says_what_is_wrong_with_its_arguments() -> None:
    """Exit 2 with a sentence, before anything is started."""
    async with (
        Program.running("run", "--port", "70000") as port,
        Program.running("demo", "--fast", "0") as fast,
    ):
        assert (await port.end(20), await fast.end(20)) == (2, 2)
    assert "must be a port from 0 to 65535, was 70000" in port.lines[-1]
    assert "must be a number from 1 to 20, was 0" in fast.lines[-1]
