"""``tick`` and ``run``: the watchdog in this process. Hosts it; what it does is none of its business."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

from aiohttp import web

from vm_health.errors import ConfigError
from vm_health.evidence_codec import encode_evidence
from vm_health.model import Evidence
from vm_health.silence import Subject
from vm_watchdog.app import Watchdog
from vm_watchdog.cli import logs
from vm_watchdog.cli.call import Call
from vm_watchdog.cli.output import EXIT_OK, EXIT_WARNING, moment, plural
from vm_watchdog.http_message import Request
from vm_watchdog.ports import Inventory, Target, TickRecord
from vm_watchdog.worker import Handler, LoopTime, Worker, WorkerOptions

WHOLE_FLEET = 1_000_000_000  # VMs a shard: never split
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def tick(call: Call) -> int:
    """Look at the whole fleet once."""
    arguments = call.arguments
    if arguments.verbose:
        logs.configure(as_json=arguments.json)
    record = asyncio.run(_tick(call))
    document = {
        **asdict(record),
        "started_at": record.started_at.isoformat(),
        "finished_at": record.finished_at.isoformat(),
    }
    call.output.give(document, _record_lines(record))
    return EXIT_WARNING if record.troubles else EXIT_OK


def run(call: Call) -> int:
    """Watch until a signal says otherwise."""
    asyncio.run(_run(call))
    return EXIT_OK


def handlers_of(watchdog: Watchdog) -> Mapping[str, Handler]:
    """Return what is done with the messages of each queue, as the function app's triggers have it."""
    return {
        "watchdog-recheck": watchdog.recheck,
        "watchdog-shards": watchdog.evaluate_shard,
        "watchdog-alerts": watchdog.send_alert,
    }


async def _tick(call: Call) -> TickRecord:
    async with call.connect() as watchdog:
        with recording(watchdog, call.arguments.record) as recorded:
            options = replace(recorded.options, shard_size=WHOLE_FLEET)
            return await replace(recorded, options=options).tick()


async def _run(call: Call) -> None:
    arguments = call.arguments
    options = WorkerOptions(arguments.every, arguments.at_once, arguments.poll)
    async with AsyncExitStack() as stack:
        watchdog = await stack.enter_async_context(call.connect())
        logs.configure(as_json=arguments.json)  # faults of the settings are told in plain words before it
        watchdog = stack.enter_context(recording(watchdog, arguments.record))
        if arguments.listen is not None:
            await stack.enter_async_context(serving_live(watchdog, *arguments.listen))
        if watchdog.source is None:
            raise ConfigError("run", ["this watchdog must be wired to the receiving end of its queues"])
        worker = Worker(watchdog.tick, watchdog.source, handlers_of(watchdog), options, LoopTime())
        stop = stack.enter_context(stop_signals())
        logging.getLogger("vm_watchdog.worker").info("watching", extra={"every_seconds": arguments.every})
        await worker.run(stop)


@contextmanager
def stop_signals() -> Iterator[asyncio.Event]:
    """Give an event that the first SIGTERM or SIGINT sets; a second one does what it always does."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def ask() -> None:
        logging.getLogger("vm_watchdog.worker").info("ending: work in hand is finished first")
        stop.set()
        forget()

    def forget() -> None:
        for number in SIGNALS:
            loop.remove_signal_handler(number)

    for number in SIGNALS:
        loop.add_signal_handler(number, ask)
    try:
        yield stop
    finally:
        forget()


@contextmanager
def recording(watchdog: Watchdog, path: Path | None) -> Iterator[Watchdog]:
    """Give a watchdog that appends what it sees to ``path``; the same one where there is none.

    Raises:
        ConfigError: the file can't be written.
    """
    if path is None:
        yield watchdog
        return
    try:
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise ConfigError("--record", [f"{path} must be a file that can be written ({error})"]) from None
    with file:
        known = Subjects(watchdog.ports.inventory)

        def record(evidence: Evidence, now: datetime) -> None:
            file.write(encode_evidence(evidence, now, known.subjects.get(evidence.vm_id)) + "\n")
            file.flush()

        yield replace(
            watchdog,
            ports=replace(watchdog.ports, inventory=known),
            options=replace(watchdog.options, recorder=record),
        )


class Subjects:
    """An inventory that remembers name, group and tags of what it has shown: a policy is chosen by them."""

    def __init__(self, inner: Inventory) -> None:
        self._inner = inner
        self.subjects: dict[str, Subject] = {}

    async def list_targets(self) -> Sequence[Target]:
        """Return the opted-in VMs."""
        targets = await self._inner.list_targets()
        self.subjects.update((target.vm_id, target.subject) for target in targets)
        return targets

    async def get_target(self, vm_id: str) -> Target | None:
        """Return one VM."""
        target = await self._inner.get_target(vm_id)
        if target is not None:
            self.subjects[target.vm_id] = target.subject
        return target


@asynccontextmanager
async def serving_live(watchdog: Watchdog, host: str, port: int) -> AsyncIterator[int]:
    """Serve /api/live, and nothing else; gives the port, which is a free one for 0.

    Raises:
        ConfigError: the address can't be listened on.
    """

    async def live(_request: web.Request) -> web.Response:
        reply = await watchdog.answer("live", Request("GET", "/api/live"))
        return web.Response(
            status=reply.status,
            text=reply.body,
            content_type=reply.content_type.partition(";")[0],
            headers={"Cache-Control": "no-store"},
        )

    app = web.Application(client_max_size=1024)
    app.router.add_get("/api/live", live)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise ConfigError(
                "--listen", [f"{host}:{port} must be an address to listen on ({error})"]
            ) from None
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _record_lines(record: TickRecord) -> Iterator[str]:
    counts = ", ".join(f"{count:,} {name}" for name, count in sorted(record.statuses.items()))
    took = (record.finished_at - record.started_at).total_seconds()
    seen = f": {counts}" if counts else ""
    yield f"tick at {moment(record.started_at)}, {took:.1f} s: {plural(record.targets, 'VM')}{seen}"
    yield from (f"trouble: {trouble}" for trouble in record.troubles)
