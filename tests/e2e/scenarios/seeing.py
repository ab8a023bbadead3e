"""What may be seen in a scenario: lines of history, alerts, and how things stand. One table of sentences.

Events are compared with what the watchdog wrote into its history table and with the alerts that arrived;
the rest looks at the VMs, the local Resource Manager and the HTTP API themselves.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from tests.e2e.scenarios.sentences import Sentence, Sentences

if TYPE_CHECKING:
    from tests.e2e.scenarios.play import Play

FLEET = "fleet"
_ANY = "*"
Source = Literal["history", "alert"]
# Lines of history that nobody needs to name: they only tell more of what other lines tell.
BY_THE_WAY = frozenset(
    {
        "backoff",
        "backoff_reset",
        "restart_sent",
        "restart_done",
        "vm_action_sent",
        "silenced",
        "silence_ended",
    }
)
_KINDS = (
    "backoff",
    "backoff_reset",
    "circuit_open",
    "freeze_overruled",
    "gone",
    "held",
    "rebuilt",
    "requested",
    "restart",
    "restart_done",
    "restart_failed",
    "restart_hung",
    "restart_refused",
    "restart_sent",
    "silence_ended",
    "silenced",
    "vm_action",
    "vm_action_refused",
    "vm_action_sent",
    "would_restart",
    "would_vm_action",
)
_ALERTS = ("fired", "reminder", "gave_up", "flapping", "resolved")


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was seen of ``subject``, a VM or the fleet."""

    source: Source
    subject: str
    at: datetime
    kind: str
    text: str
    detail: Mapping[str, Any]

    def __str__(self) -> str:
        what = "alert " if self.source == "alert" else ""
        return f"{self.subject:<8} {what}{self.kind}: {self.text}"[:200]


@dataclass(frozen=True, slots=True)
class Event:
    """A line of history or an alert; ``fits`` compares an entry with the other places of the sentence."""

    source: Source
    kind: str
    fits: Callable[[Mapping[str, str], Entry], bool] = lambda _places, _entry: True
    of_fleet: bool = False

    def subjects(self, said: Sentence) -> tuple[str, ...]:
        """Whose event it is."""
        return (FLEET,) if self.of_fleet else said.vms

    def is_this(self, said: Sentence, entry: Entry) -> bool:
        """Tell whether ``entry`` is what the sentence says, of whichever of its VMs."""
        is_kind = entry.source == self.source and self.kind in (_ANY, entry.kind)
        return is_kind and self.fits(said.places, entry)


Check = Callable[["Play", Sentence], Awaitable[str]]  # what is not (yet) so, empty where all is
SENTENCES: Sentences[Event | Check] = Sentences()


def _turns(places: Mapping[str, str], entry: Entry) -> bool:
    before, after = (re.escape(places[name]).replace(r"\*", r"\w+") for name in ("before", "after"))
    is_so = re.match(rf"{before} -> {after}:", entry.text) is not None
    return is_so and places.get("word", entry.detail["cause"]) == entry.detail["cause"]


def _attempt(places: Mapping[str, str], entry: Entry) -> bool:
    return entry.text.startswith(f"restart attempt {places['n']} of {places['m']};")


def _says(places: Mapping[str, str], entry: Entry) -> bool:
    return places["text"] in entry.text


def _cause(places: Mapping[str, str], entry: Entry) -> bool:
    return bool(places["word"] == entry.detail["cause"])


def _cause_and_says(places: Mapping[str, str], entry: Entry) -> bool:
    return _cause(places, entry) and _says(places, entry)


def _turns_and_says(places: Mapping[str, str], entry: Entry) -> bool:
    return _turns(places, entry) and _says(places, entry)


for _verb in ("turns", "turn"):
    _change = f"{{vms}} {_verb} {{before}} -> {{after}}"
    SENTENCES.add(_change, Event("history", "transition", _turns))
    SENTENCES.add(f"{_change} {{word}}", Event("history", "transition", _turns))
    SENTENCES.add(f"{_change} {{word}}: {{text}}", Event("history", "transition", _turns_and_says))
SENTENCES.add("{vms} restart attempt {n} of {m}", Event("history", "restart", _attempt))
for _kind in _KINDS:
    SENTENCES.add(f"{{vms}} {_kind.replace('_', ' ')}", Event("history", _kind))
    SENTENCES.add(f"{{vms}} {_kind.replace('_', ' ')}: {{text}}", Event("history", _kind, _says))
for _kind in ("frozen", "thawed"):
    SENTENCES.add(f"fleet {_kind}: {{word}}", Event("history", _kind, _cause, of_fleet=True))
    SENTENCES.add(f"alert {_kind}: fleet {{word}}", Event("alert", _kind, _cause, of_fleet=True))
for _kind in _ALERTS:
    SENTENCES.add(f"alert {_kind.replace('_', ' ')}: {{vms}} {{word}}", Event("alert", _kind, _cause))
    SENTENCES.add(
        f"alert {_kind.replace('_', ' ')}: {{vms}} {{word}}: {{text}}", Event("alert", _kind, _cause_and_says)
    )
SENTENCES.add("alert: {vms}", Event("alert", _ANY))


@SENTENCES.means("the worker on {vms} is a new process")
async def new_process(play: Play, said: Sentence) -> str:
    """Another process than when the scenario began, or since the last time this was seen."""
    for vm in said.vms:
        pid = await play.worker_pid(vm)
        if pid in (0, play.pids[vm]):
            return f"the worker on {vm} is process {pid}, as before"
        play.pids[vm] = pid
    return ""


@SENTENCES.means("the worker on {vms} is the same process")
async def same_process(play: Play, said: Sentence) -> str:
    """The process that it was."""
    now = {vm: await play.worker_pid(vm) for vm in said.vms}
    return "".join(f"{vm}: {pid} is another process; " for vm, pid in now.items() if pid != play.pids[vm])


@SENTENCES.means("the worker on {vms} is down")
async def no_process(play: Play, said: Sentence) -> str:
    """No process at all."""
    now = {vm: await play.worker_pid(vm) for vm in said.vms}
    return "".join(f"{vm}: process {pid} runs; " for vm, pid in now.items() if pid)


@SENTENCES.means("the agent on {vms} is a new process")
async def new_agent(play: Play, said: Sentence) -> str:
    """Another one than when the scenario began."""
    now = {vm: await play.agent_pid(vm) for vm in said.vms}
    return "".join(f"{vm}: {pid}; " for vm, pid in now.items() if pid in (0, play.agent_pids[vm]))


@SENTENCES.means("{n} ticks pass")
async def ticks(play: Play, said: Sentence) -> str:
    """The watchdog has looked at the whole fleet so often since the line before."""
    passed = sum(1 for record in play.app.records[play.records_at_step :] if record.message == "tick")
    return "" if passed >= int(said.places["n"]) else f"{passed} ticks have passed"


@SENTENCES.means("live answers {n}")
async def live(play: Play, said: Sentence) -> str:
    """What an outside monitor is told."""
    url = f"http://127.0.0.1:{play.app.port}/api/live"
    async with play.site.http.get(url) as response:
        return "" if response.status == int(said.places["n"]) else f"it answers {response.status}"


@SENTENCES.means("Azure is asked to end the command on {vm}")
async def command_deleted(play: Play, said: Sentence) -> str:
    """By the call that ends a managed Run Command."""
    calls = play.site.stack.cloud.calls.matching("arm", "run_commands_delete", said.vms[0])
    return "" if any(call.at >= play.began for call in calls) else "it is not"


@SENTENCES.means("Azure restarts {vm} once")
async def vm_restarted(play: Play, said: Sentence) -> str:
    """One call in the whole scenario."""
    calls = play.site.stack.cloud.calls.matching("arm", "restart", said.vms[0])
    count = sum(1 for call in calls if call.at >= play.began and call.method == "POST")
    return "" if count == 1 else f"it was asked {count} times"
