"""Plays one scenario on a running stack, and holds everything that is seen against its file.

Waits are for the next thing that the function app logs, a tick at the latest; nothing is asserted to be
missing before the VMs are healthy again and every alert has arrived.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from devcloud.app_process import AppProcess
from devcloud.faults import Fault
from devcloud.vms.machine import AGENT_UNIT
from tests.e2e.scenarios.script import Scenario, Step
from tests.e2e.scenarios.seeing import BY_THE_WAY, FLEET, Entry, Event
from tests.e2e.scenarios.sentences import Sentence
from tests.e2e.site import PATIENCE_SECONDS, Site

LATE_SECONDS = 20.0  # never early, and this late at most: how late in truth is a matter of the machine

Mend = Callable[[], Awaitable[object]]


class NotAsWritten(AssertionError):  # noqa: N818 - the test's failure
    """What was seen is not what the file says; the message ends with everything that was seen."""


class Play:
    """One performance of ``scenario`` on the stack of ``site``."""

    def __init__(self, site: Site, scenario: Scenario) -> None:
        self.site = site
        self.scenario = scenario
        self.app: AppProcess = site.stack.app
        self.began = datetime.now(UTC)
        self.pids: dict[str, int] = {}
        self.agent_pids: dict[str, int] = {}
        self.records_at_step = 0
        self._alerts_before = len(site.stack.sink.received)
        self._broken: dict[str, Mend] = {}
        self._tidy: list[Mend] = []
        self._matched: dict[tuple[str, str], int] = {}  # how many entries of a source and subject are done
        self._anchors: dict[str, datetime] = {}
        self._entries: list[Entry] = []

    async def run(self) -> None:
        """Play it; raises NotAsWritten. However it ends, what it broke is mended and the VMs are healthy."""
        try:
            await self.site.healthy(self.scenario.vms)
            self.began = datetime.now(UTC)
            for name in self.scenario.vms:
                self.pids[name], self.agent_pids[name] = (
                    await self.worker_pid(name),
                    await self.agent_pid(name),
                )
            for step in self.scenario.steps:
                await self._play(step)
            if self._broken:
                raise NotAsWritten(f"{self.scenario.name} leaves broken: {', '.join(self._broken)}")
            await self.site.healthy(self.scenario.vms)
            await self._check_whole()
        except AssertionError as error:
            await self._refresh()
            raise NotAsWritten(f"{self.scenario.name}: {error}\n{self.story()}") from error
        finally:
            await self._recover()

    # ---- for the sentences -------------------------------------------------------------------------------

    def breaks(self, key: str, mend: Mend) -> None:
        """Note how something that is broken now is mended; it must be mended before the scenario ends."""
        self._broken.setdefault(key, mend)

    def tidies(self, tidy: Mend) -> None:
        """Note what is done when the scenario has ended, however that was."""
        self._tidy.append(tidy)

    async def mends(self, key: str) -> None:
        """Mend what ``key`` names."""
        await self._broken.pop(key)()

    def adds_fault(self, key: str, fault: Fault) -> None:
        """Have the local Azure fail; one that is used up needs no mending."""
        faults = self.site.stack.cloud.faults
        faults.add(fault)
        if fault.times:
            return

        async def mend() -> None:
            left = [one for one in faults.waiting() if one != fault]
            faults.clear()
            for one in left:
                faults.add(one)

        self.breaks(key, mend)

    async def asks(
        self, method: str, path: str, status: int, said: Sentence | None = None, body: Mapping[str, Any] = {}
    ) -> Any:
        """Ask the function app over HTTP; the sentence's person and text are who asks and why."""
        person = {} if said is None else {"by": said.places["person"], "why": said.places["text"]}
        url = f"http://127.0.0.1:{self.app.port}/api/{path}"
        headers = {"x-functions-key": self.site.stack.function_key}
        content = {**body, **person} or None
        async with self.site.http.request(method, url, json=content, headers=headers) as response:
            answer = await response.json()
        assert response.status == status, answer
        return answer

    async def worker_pid(self, name: str) -> int:
        """The worker's process on this machine; 0 for none."""
        vm, unit = self.site.vm(name)
        return await vm.main_pid(unit) if vm.power_state == "running" else 0

    async def agent_pid(self, name: str) -> int:
        """The agent's process on this machine; 0 for none."""
        vm, _ = self.site.vm(name)
        return await vm.main_pid(AGENT_UNIT) if vm.power_state == "running" else 0

    async def start_by_hand(self, name: str) -> None:
        """Start a worker as an administrator does."""
        vm, unit = self.site.vm(name)
        await vm.systemctl("reset-failed", unit)
        await vm.systemctl("start", unit)

    # ---- playing -----------------------------------------------------------------------------------------

    async def _play(self, step: Step) -> None:
        said = step.sentence
        if step.keyword == "do":
            await said.meaning(self, said)
        elif step.keyword in ("then", "after", "within"):
            patience = step.seconds if step.keyword == "within" else PATIENCE_SECONDS
            if step.keyword == "after":
                patience += step.seconds
            self.records_at_step = len(self.app.records)
            problem = ""
            try:
                async with asyncio.timeout(patience):
                    while problem := await self._missing(step):
                        position = len(self.app.records)
                        await self.app.wait_for(lambda _: True, patience, position)
            except TimeoutError:
                raise NotAsWritten(
                    f"not within {patience:g} s: line {step.line}, {step.text!r}: {problem}"
                ) from None

    async def _missing(self, step: Step) -> str:
        """Look whether what the step says has been seen; say what has not, empty where all has."""
        said = step.sentence
        if not isinstance(said.meaning, Event):
            return str(await said.meaning(self, said))
        await self._refresh()
        done: dict[tuple[str, str], int] = {}
        for subject in said.meaning.subjects(said):
            place = self._find(step, said.meaning, subject)
            if place is None:
                return f"nothing such of {subject}"
            done[said.meaning.source, subject] = place + 1
        for (source, subject), position in done.items():
            entry = self._of(source, subject)[position - 1]
            if step.keyword == "after":
                self._check_time(step, entry)
            if source == "history":
                self._anchors[subject] = entry.at
        self._matched |= done
        return ""

    def _find(self, step: Step, wanted: Event, subject: str) -> int | None:
        """Find the next entry of a subject that counts, which must be the one that is wanted."""
        entries = self._of(wanted.source, subject)
        for place in range(self._matched.get((wanted.source, subject), 0), len(entries)):
            entry = entries[place]
            if wanted.is_this(step.sentence, entry):
                return place
            if not self._may_be(entry):
                raise NotAsWritten(f"line {step.line} says {step.text!r}, but seen was: {entry}")
        return None

    def _check_time(self, step: Step, entry: Entry) -> None:
        before = self._anchors.get(entry.subject, self.began)
        waited = (entry.at - before).total_seconds()
        if not step.seconds <= waited <= step.seconds + LATE_SECONDS:
            raise NotAsWritten(f"line {step.line}, {step.text!r}: it came after {waited:.3f} s")

    def _may_be(self, entry: Entry) -> bool:
        """Tell whether an entry needs no line of its own."""
        if entry.source == "history" and entry.kind in BY_THE_WAY:
            return True
        return any(
            step.keyword == "perhaps"
            and entry.subject in step.sentence.meaning.subjects(step.sentence)
            and step.sentence.meaning.is_this(step.sentence, entry)
            for step in self.scenario.steps
        )

    async def _check_whole(self) -> None:
        """Nothing else was seen, nothing of what must never be, and every restart was one Run Command."""
        await self._refresh()
        for (source, subject), entries in self._streams().items():
            for entry in entries[self._matched.get((source, subject), 0) :]:
                if not self._may_be(entry):
                    raise NotAsWritten(f"no line of the file tells of: {entry}")
        for step in self.scenario.steps:
            wanted = step.sentence.meaning
            for entry in self._entries if step.keyword == "never" else ():
                if entry.subject in wanted.subjects(step.sentence) and wanted.is_this(step.sentence, entry):
                    raise NotAsWritten(f"line {step.line} says {step.text!r}, but seen was: {entry}")
        for name in self.scenario.vms:
            calls = self.site.stack.cloud.calls.matching("arm", "run_command", name)
            sent = sum(1 for call in calls if call.at >= self.began)
            kinds = [entry.kind for entry in self._of("history", name)]
            decided = kinds.count("restart") + kinds.count("requested")
            assert sent == decided, f"{decided} restarts of {name} were decided, Azure was asked {sent} times"

    async def _refresh(self) -> None:
        """Read history and alerts again."""
        found: list[Entry] = []
        for name in (*self.scenario.vms, FLEET):
            for row in await self.site.history(name, since=self.began):
                found.append(Entry("history", name, row["At"], row["Kind"], row["Reason"], row["Detail"]))
        seen: set[str] = set()
        for alert in self.site.stack.sink.received[self._alerts_before :]:
            name, key = alert.body["vm"]["name"].lower(), alert.body["key"]
            if (name in self.scenario.vms or name == FLEET) and alert.status == 200 and key not in seen:
                seen.add(key)  # at least once: the same one may come again
                text = f"{alert.body['title']} ({alert.body['reason']})"
                found.append(Entry("alert", name, alert.at, alert.body["kind"], text, alert.body))
        self._entries = found

    def _of(self, source: str, subject: str) -> list[Entry]:
        return self._streams().get((source, subject), [])

    def _streams(self) -> dict[tuple[str, str], list[Entry]]:
        keyed = sorted(self._entries, key=lambda entry: (entry.source, entry.subject))
        return {key: list(one) for key, one in groupby(keyed, lambda entry: (entry.source, entry.subject))}

    def story(self) -> str:
        """Everything that was seen, with its time."""
        lines = [
            f"  {(entry.at - self.began).total_seconds():+7.2f} s  {entry}"
            for entry in sorted(self._entries, key=lambda entry: entry.at)
        ]
        return "\n".join([f"seen in {self.scenario.name}:", *lines])

    async def _recover(self) -> None:
        """Mend what is still broken and start what is down, so that the next scenario finds healthy VMs."""
        for key in list(self._broken):
            await self.mends(key)
        for tidy in self._tidy:
            await tidy()
        for name in self.scenario.vms:
            vm, _ = self.site.vm(name)
            if vm.power_state == "running":
                await vm.systemctl("start", AGENT_UNIT)
                if not await self.worker_pid(name):
                    await self.start_by_hand(name)
        await self.site.healthy(self.scenario.vms)
