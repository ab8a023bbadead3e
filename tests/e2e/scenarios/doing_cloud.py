"""What may be done in a scenario to Azure, to the network and to the watchdog, one function a sentence.

Acts as people, accidents and Azure do: from outside, never in the product's own process.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from devcloud.faults import Fault
from devcloud.relay import Passage
from tests.e2e.scenarios.doing import SENTENCES
from tests.e2e.scenarios.sentences import Sentence

if TYPE_CHECKING:
    from tests.e2e.scenarios.play import Play

__all__ = ["SENTENCES"]
_API_VERSION = "2026-04-01"


@SENTENCES.means("{person} deallocates {vm}")
async def deallocate(play: Play, said: Sentence) -> None:
    """Through Azure Resource Manager, under that person's name."""
    await _arm(play, said, "deallocate")
    play.breaks(f"power {said.vms[0]}", play.site.vm(said.vms[0])[0].start)


@SENTENCES.means("{person} starts {vm}")
async def start_vm(play: Play, said: Sentence) -> None:
    """Through Azure Resource Manager; returns when it runs."""
    await _arm(play, said, "start")
    await play.mends(f"power {said.vms[0]}")


async def _arm(play: Play, said: Sentence, verb: str) -> None:
    cloud, vm = play.site.stack.cloud, play.site.vm(said.vms[0])[0]
    token = cloud.tokens.mint("https://management.azure.com", upn=said.places["person"])
    url = f"{cloud.arm_url}{vm.spec.vm_id}/{verb}?api-version={_API_VERSION}"
    headers = {"Authorization": f"Bearer {token.text}"}
    async with play.site.http.post(url, headers=headers, ssl=play.site.tls) as response:
        assert response.status == 202, await response.text()


@SENTENCES.means("tag {vm} with {word} = {text}")
async def tag(play: Play, said: Sentence) -> None:
    """In Azure; the tag's old value comes back at the end."""
    vm, name = play.site.vm(said.vms[0])[0], said.places["word"]
    before = vm.spec

    async def mend() -> None:
        vm.spec = before

    play.breaks(f"tag {said.vms[0]} {name}", mend)
    vm.spec = replace(before, tags={**before.tags, name: said.places["text"]})


@SENTENCES.means("take tag {word} off {vm}")
async def untag(play: Play, said: Sentence) -> None:
    """As it was before."""
    await play.mends(f"tag {said.vms[0]} {said.places['word']}")


@SENTENCES.means("block the probes of {vms}")
async def block_probes(play: Play, said: Sentence) -> None:
    """As a firewall does: what is sent vanishes."""
    for name in said.vms:
        await play.site.stack.set_probes(name, Passage.SILENT)
        play.breaks(f"probes {name}", lambda name=name: play.site.stack.set_probes(name, Passage.OPEN))


@SENTENCES.means("let the probes of {vms} pass")
async def pass_probes(play: Play, said: Sentence) -> None:
    """The firewall is open again."""
    for name in said.vms:
        await play.mends(f"probes {name}")


@SENTENCES.means("let Application Insights take no telemetry")
async def refuse_telemetry(play: Play, said: Sentence) -> None:
    """503 to everybody, the watchdog's own event included."""
    play.adds_fault("ingestion", Fault("ingestion", "track", status=503, times=0))


@SENTENCES.means("let Application Insights take telemetry again")
async def take_telemetry(play: Play, said: Sentence) -> None:
    """What had to wait comes now."""
    await play.mends("ingestion")


@SENTENCES.means("cut the watchdog off from Azure and its storage")
async def partition(play: Play, said: Sentence) -> None:
    """Resource Manager, log queries, tables and queues: every connection ends."""
    await play.site.stack.set_storage(Passage.BROKEN)
    play.breaks("storage", lambda: play.site.stack.set_storage(Passage.OPEN))
    for service in ("arm", "logs"):
        play.adds_fault(f"cut {service}", Fault(service, mode="disconnect", times=0))


@SENTENCES.means("connect the watchdog again")
async def reconnect(play: Play, said: Sentence) -> None:
    """Everything at once."""
    for key in ("storage", "cut arm", "cut logs"):
        await play.mends(key)


@SENTENCES.means("let the next Run Command on {vm} hang")
async def hang_command(play: Play, said: Sentence) -> None:
    """It is taken, and never ends."""
    play.adds_fault("command", Fault("arm", "run_command", said.vms[0], mode="stuck"))


@SENTENCES.means("let the next Run Command on {vm} be refused as busy")
async def refuse_command(play: Play, said: Sentence) -> None:
    """409: another script runs."""
    play.adds_fault("command", Fault("arm", "run_command", said.vms[0], 409, "Conflict"))


@SENTENCES.means("let the next Run Command on {vm} be throttled for {n} s")
async def throttle_command(play: Play, said: Sentence) -> None:
    """429 with Retry-After."""
    headers = {"Retry-After": said.places["n"]}
    play.adds_fault("command", Fault("arm", "run_command", said.vms[0], 429, "TooManyRequests", headers))


@SENTENCES.means("start a second watchdog")
async def start_second(play: Play, said: Sentence) -> None:
    """Another process of the function app, same storage, same schedule; it ticks before this ends."""
    exit_stack = AsyncExitStack()
    app = await exit_stack.enter_async_context(play.site.stack.second_app())
    play.breaks("second watchdog", exit_stack.aclose)
    await app.wait_for(lambda record: record.message == "tick", 30)


@SENTENCES.means("stop the second watchdog")
async def stop_second(play: Play, said: Sentence) -> None:
    """In good order."""
    await play.mends("second watchdog")


@SENTENCES.means("{person} silences {word} on {vm}, because {text}")
async def silence(play: Play, said: Sentence) -> None:
    """Over HTTP, for ten minutes; ``word`` is alerts, action or both."""
    body = {"vm": said.vms[0], "stops": said.places["word"], "until": "10m"}
    answer = await play.asks("POST", "silences", 201, said, body)
    key = f"silence {said.vms[0]}"

    async def end() -> None:
        await play.asks("DELETE", f"silences/{answer['id']}?by={said.places['person']}", 200)

    play.breaks(key, end)


@SENTENCES.means("the silence of {vm} is ended")
async def end_silence(play: Play, said: Sentence) -> None:
    """Over HTTP."""
    await play.mends(f"silence {said.vms[0]}")


@SENTENCES.means("{person} restarts the worker on {vm} over HTTP, because {text}")
async def request_restart(play: Play, said: Sentence) -> None:
    """And is told that it was sent."""
    body = {"unit": play.site.vm(said.vms[0])[1]}
    await play.asks("POST", f"vms/{said.vms[0]}/restart", 202, said, body)


@SENTENCES.means("{person} is refused a restart of the worker on {vm}, because {text}")
async def refused_restart(play: Play, said: Sentence) -> None:
    """The request is a good one, and something holds it."""
    body = {"unit": play.site.vm(said.vms[0])[1]}
    await play.asks("POST", f"vms/{said.vms[0]}/restart", 409, said, body)


@SENTENCES.means("take {vm} out of Azure's inventory")
async def take_away(play: Play, said: Sentence) -> None:
    """It goes on running and reporting; Azure knows it no more."""
    vms, name = play.site.stack.cloud.vms, said.vms[0]
    vm = vms.pop(name)

    async def put_back() -> None:
        vms[name] = vm

    play.breaks(f"inventory {name}", put_back)


@SENTENCES.means("put {vm} back into Azure's inventory")
async def put_back(play: Play, said: Sentence) -> None:
    """As before."""
    await play.mends(f"inventory {said.vms[0]}")
