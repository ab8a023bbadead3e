"""What may be done in a scenario on the VMs, one function a sentence. What it breaks can be mended again.

Acts as people, accidents and Azure do: from outside, never in the product's own process.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from devcloud.stack import crash_file_of
from devcloud.vms.machine import AGENT_UNIT, Machine
from tests.e2e.scenarios.sentences import Sentence, Sentences

if TYPE_CHECKING:
    from tests.e2e.scenarios.play import Play

Action = Callable[["Play", Sentence], Awaitable[None]]
SENTENCES: Sentences[Action] = Sentences()


@SENTENCES.means("kill the worker on {vms}")
async def kill_worker(play: Play, said: Sentence) -> None:
    """SIGKILL, on all of them at once."""
    await asyncio.gather(*(vm.kill_unit(unit) for vm, unit in map(play.site.vm, said.vms)))


@SENTENCES.means("hang the worker on {vms}")
async def hang_worker(play: Play, said: Sentence) -> None:
    """SIGSTOP: it is there, and does nothing."""
    await asyncio.gather(*(vm.kill_unit(unit, signal.SIGSTOP) for vm, unit in map(play.site.vm, said.vms)))


@SENTENCES.means("wake the worker on {vms}")
async def wake_worker(play: Play, said: Sentence) -> None:
    """SIGCONT."""
    await asyncio.gather(*(vm.kill_unit(unit, signal.SIGCONT) for vm, unit in map(play.site.vm, said.vms)))


@SENTENCES.means("stop the worker on {vms}")
async def stop_worker(play: Play, said: Sentence) -> None:
    """As an administrator does."""
    await asyncio.gather(*(vm.systemctl("stop", unit) for vm, unit in map(play.site.vm, said.vms)))


@SENTENCES.means("start the worker on {vms}")
async def start_worker(play: Play, said: Sentence) -> None:
    """As an administrator does."""
    await asyncio.gather(*(play.start_by_hand(name) for name in said.vms))


@SENTENCES.means("let the worker on {vms} crash at every start")
async def crash_at_start(play: Play, said: Sentence) -> None:
    """It crashes at once, too."""
    for name in said.vms:
        vm, _ = play.site.vm(name)
        vm.write_file(crash_file_of(name), "")
        play.breaks(f"crash {name}", partial(_can_start, vm))
    await kill_worker(play, said)


@SENTENCES.means("let the worker on {vm} crash until its VM is restarted")
async def crash_until_boot(play: Play, said: Sentence) -> None:
    """What makes it crash does not outlive a boot."""
    vm, _ = play.site.vm(said.vms[0])
    vm.write_file(crash_file_of(said.vms[0]), "")
    play.tidies(partial(_can_start, vm))
    await kill_worker(play, said)


async def _can_start(vm: Machine) -> None:
    if vm.power_state == "running":
        vm.remove_file(crash_file_of(vm.spec.name))


@SENTENCES.means("repair the worker on {vms} by hand")
async def repair_worker(play: Play, said: Sentence) -> None:
    """It can start again, and is started."""
    for name in said.vms:
        await play.mends(f"crash {name}")
    await start_worker(play, said)


@SENTENCES.means("kill the agent on {vms}")
async def kill_agent(play: Play, said: Sentence) -> None:
    """SIGKILL: systemd starts it again."""
    for name in said.vms:
        await play.site.vm(name)[0].kill_unit(AGENT_UNIT)


@SENTENCES.means("stop the agent on {vms}")
async def stop_agent(play: Play, said: Sentence) -> None:
    """For good: systemd does not start it again."""
    for name in said.vms:
        await play.site.vm(name)[0].systemctl("stop", AGENT_UNIT)


@SENTENCES.means("a deployment locks {vm}")
async def lock(play: Play, said: Sentence) -> None:
    """With the agent's own command, as root."""
    await _agent_command(play, said.vms[0], "lock --minutes 5 --holder release-42")
    play.breaks(f"lock {said.vms[0]}", lambda: _agent_command(play, said.vms[0], "unlock"))


@SENTENCES.means("the deployment unlocks {vm}")
async def unlock(play: Play, said: Sentence) -> None:
    """With the agent's own command."""
    await play.mends(f"lock {said.vms[0]}")


async def _agent_command(play: Play, name: str, arguments: str) -> None:
    done = await play.site.vm(name)[0].run_script(f"/opt/vm-agent/bin/vm-agent {arguments}", {}, 30)
    assert done.exit_code == 0, done.stderr
