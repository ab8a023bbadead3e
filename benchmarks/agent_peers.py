"""``python -m benchmarks.agent_peers``: the agent beside Debian's monitoring programs, in one run.

The agent runs as its unit in a VM with a real systemd: three services, D-Bus, endpoint, telemetry over https
to a sink on this machine, and the watchdog's look at /health once a minute. Needs root on Linux; peers that
are not installed are left out and named. Then a service is killed ten times, and it is measured when that is
known outside.
"""

from __future__ import annotations

import argparse
import asyncio
import compileall
import gzip
import json
import os
import platform
import signal
import ssl
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from benchmarks.figures import Figure
from benchmarks.options import Options
from benchmarks.peer_programs import Peers
from benchmarks.process_cost import Memory, cpu_ms, memory
from devcloud.tls import Certificates, make_certificates
from devcloud.vms.base import VmSpec
from devcloud.vms.bridge import BridgeNetwork
from devcloud.vms.factory import create_vm
from devcloud.vms.machine import AGENT_UNIT, Machine
from devcloud.vms.systemd import supported
from devcloud.vms.units import UnitFile

UNITS = ("one.service", "two.service", "three.service")
GOAL_PSS_MB = 20.0
GOAL_CPU_MS = 30.0
GOAL_KNOWN_SECONDS = 1.0
_SETTLE_SECONDS = 20.0
_SCRAPE_SECONDS = 15.0
_PROBE_SECONDS = 60.0
_PAUSE_SECONDS = 3.0  # between kills: each is news of its own and not a unit that restarts for ever


@dataclass(frozen=True, slots=True)
class Row:
    """One program: memory at the end, CPU per minute over the whole time."""

    name: str
    memory: Memory
    cpu_ms_per_minute: float


class Sink:
    """Takes telemetry as Application Insights does, and says when a report of a unit that is down came in."""

    def __init__(self, address: str, certificates: Certificates) -> None:
        self.items = 0
        self.reports: list[tuple[float, dict[str, Any]]] = []
        self._news = threading.Condition()
        self._server = ThreadingHTTPServer((address, 0), self._handler())
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificates.cert_file, certificates.key_file)
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://{address}:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def wait(self, holds: Callable[[dict[str, Any]], bool], since: float, seconds: float) -> float:
        """Return when the first report after ``since`` came for which it holds."""
        with self._news:
            found: list[float] = []

            def came() -> bool:
                found[:] = [at for at, report in self.reports if at >= since and holds(report)]
                return bool(found)

            if not self._news.wait_for(came, seconds):
                raise TimeoutError(f"no such report within {seconds} s")
            return found[0]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _take(self, items: list[dict[str, Any]]) -> None:
        at = time.monotonic()
        with self._news:
            self.items += len(items)
            for item in items:
                properties = item["data"]["baseData"].get("properties", {})
                if "report" in properties:
                    self.reports.append((at, json.loads(properties["report"])))
            self._news.notify_all()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                items = json.loads(gzip.decompress(body))
                sink._take(items)
                answer = {"itemsReceived": len(items), "itemsAccepted": len(items), "errors": []}
                content = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


class Every:
    """Does something at a rhythm until it is closed."""

    def __init__(self, seconds: float, what: Callable[[], object]) -> None:
        self._seconds = seconds
        self._what = what
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            try:
                self._what()
            except OSError as error:
                print(f"  … {error}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 if every goal is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agent_peers", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long CPU time is measured")
    parser.add_argument("--kills", type=int, default=10, help="how often a service is killed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    given = parser.parse_args(arguments)
    if reason := supported():
        parser.error(reason)
    for package in ("vm_health", "vm_alerts", "vm_agent"):  # as pip does when it installs
        compileall.compile_dir(Path(__file__).parent.parent / package, quiet=1)
    with tempfile.TemporaryDirectory() as directory:
        rows, missing, others, known = asyncio.run(_measure(Path(directory), given.minutes, given.kills))
    print(f"{_machine()}; CPU over {given.minutes:g} min\n")
    print(_table(rows))
    print(f"\nPSS: {others} more Pythons ran, this one among them, which share the interpreter's pages.")
    print("PSS alone: as if nobody else ran the same program and libraries, libc excepted.")
    for name in missing:
        print(f"not installed: {name}")
    for what, seconds in known.items():
        print(
            f"kill -9 -> {what}: median {statistics.median(seconds) * 1000:.0f} ms, "
            f"worst {max(seconds) * 1000:.0f} ms of {len(seconds)} (goal <= {GOAL_KNOWN_SECONDS:g} s)"
        )
    if given.json is not None:
        figures = {"machine": _machine(), "rows": [asdict(row) for row in rows], "known_seconds": known}
        given.json.write_text(json.dumps(figures, indent=2) + "\n")
    agent = rows[0]
    met = agent.memory.pss <= GOAL_PSS_MB and agent.cpu_ms_per_minute <= GOAL_CPU_MS
    return 0 if met and all(max(seconds) <= GOAL_KNOWN_SECONDS for seconds in known.values()) else 1


def measure(options: Options) -> list[Figure]:
    """The same for ``python -m benchmarks peers``; ``repeat`` is how often a service is killed."""
    with tempfile.TemporaryDirectory() as directory:
        rows, missing, others, known = asyncio.run(_measure(Path(directory), 10.0, options.repeat_or(10)))
    figures = []
    for row in rows:
        goals = (GOAL_PSS_MB, GOAL_CPU_MS) if row is rows[0] else (None, None)
        note = f"RSS {row.memory.rss:.1f}, private {row.memory.private:.1f}"
        figures.append(Figure(f"{row.name}: memory PSS", "MB", (row.memory.pss,), goals[0], note))
        figures.append(Figure(f"{row.name}: CPU a minute", "ms", (row.cpu_ms_per_minute,), goals[1]))
    figures += [
        Figure(f"kill -9 -> {what}", "s", tuple(seconds), GOAL_KNOWN_SECONDS)
        for what, seconds in known.items()
    ]
    options.progress(f"peers: {others} more Pythons ran; not installed: {', '.join(missing) or 'none'}")
    return figures


async def _measure(
    directory: Path, minutes: float, kills: int
) -> tuple[list[Row], list[str], int, dict[str, list[float]]]:
    bridge = BridgeNetwork()
    network = await bridge.start()
    certificates = make_certificates(directory / "tls", [network.gateway])
    sink, peers = Sink(network.gateway, certificates), Peers(directory)
    spec = VmSpec("bench", network.address(1))
    settings = {
        "VM_AGENT_UNITS": ",".join(UNITS),
        "VM_AGENT_VM_ID": spec.vm_id,
        "SSL_CERT_FILE": str(certificates.ca_file),
        "APPLICATIONINSIGHTS_CONNECTION_STRING": (
            f"InstrumentationKey=00000000-0000-4000-8000-000000000009;IngestionEndpoint={sink.url}"
        ),
    }
    sleepers = [UnitFile(name, exec_start="/bin/sleep infinity") for name in UNITS]
    vm = create_vm("systemd", spec, directory / spec.name, network, settings, sleepers)
    probes: list[Every] = []
    try:
        await vm.start()
        peers.start()
        probes.append(Every(_PROBE_SECONDS, lambda: _ask(spec.address)))
        scraped = [peer.url for peer in peers.running if peer.url]
        probes.append(Every(_SCRAPE_SECONDS, lambda: _scrape(scraped)))
        rows = await _cost(vm, peers, minutes)
        others = _other_pythons(await vm.main_pid(AGENT_UNIT))
        for probe in probes:
            probe.close()
        peers.end()
        if not sink.items:
            raise RuntimeError("the agent sent no telemetry")
        known = await _kills(vm, sink, kills)
    finally:
        peers.end()
        await vm.stop()
        await bridge.stop()
        sink.close()
    return rows, peers.missing, others, known


async def _cost(vm: Machine, peers: Peers, minutes: float) -> list[Row]:
    _tell(f"settling for {_SETTLE_SECONDS:g} s")
    await asyncio.sleep(_SETTLE_SECONDS)
    pids = {"vm-agent, every 15 s, 3 units": await vm.main_pid(AGENT_UNIT)}
    pids |= {peer.name: peer.process.pid for peer in peers.running if peer.name}
    before = {name: cpu_ms(pid) for name, pid in pids.items()}
    began = time.monotonic()
    _tell(f"measuring for {minutes:g} min")
    await asyncio.sleep(minutes * 60)
    passed_minutes = (time.monotonic() - began) / 60
    rows = []
    for name, pid in pids.items():
        spent = cpu_ms(pid) - before[name]
        rows.append(Row(name, memory(pid), spent / passed_minutes))
        if rows[-1].memory.rss == 0:
            raise RuntimeError(f"{name} has ended")
    return rows


async def _kills(vm: Machine, sink: Sink, kills: int) -> dict[str, list[float]]:
    """Kill a service again and again; the seconds until /health and the telemetry sink know of it."""
    unit = UNITS[0]
    on_health: list[float] = []
    on_sink: list[float] = []
    for number in range(kills):
        pid = await vm.main_pid(unit)
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        looking = asyncio.create_task(asyncio.to_thread(_until_down, vm.spec.address))
        came = await asyncio.to_thread(sink.wait, lambda report: not _is_up(report, unit), killed, 30.0)
        on_sink.append(came - killed)
        on_health.append(await looking - killed)
        _tell(f"kill {number + 1}: /health {on_health[-1]:.3f} s, telemetry {on_sink[-1]:.3f} s")
        restarted = time.monotonic()
        await vm.systemctl("reset-failed", unit)  # so many starts within seconds meet systemd's own limit
        done = await vm.systemctl("restart", unit)
        if done.exit_code:
            raise RuntimeError(done.stderr)
        await asyncio.to_thread(sink.wait, lambda report: _is_up(report, unit), restarted, 30.0)
        await asyncio.sleep(_PAUSE_SECONDS)
    return {"503 on /health": on_health, "report at the telemetry sink": on_sink}


def _is_up(report: dict[str, Any], unit: str) -> bool:
    return any(found["name"] == unit and found["active_state"] == "active" for found in report["units"])


def _until_down(address: str) -> float:
    deadline = time.monotonic() + 30
    while _ask(address) != 503:
        if time.monotonic() > deadline:
            raise TimeoutError("/health never said 503")
        time.sleep(0.01)
    return time.monotonic()


def _ask(address: str) -> int:
    connection = HTTPConnection(address, 8080, timeout=5)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        answer.read()
        status = answer.status
    except HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()
    return status


def _scrape(urls: Sequence[str]) -> None:
    for url in urls:
        with urlopen(url, timeout=5) as answer:
            answer.read()


def _table(rows: Sequence[Row]) -> str:
    head = ("program", "RSS MB", "PSS MB", "PSS alone", "private MB", "CPU ms/min")
    lines: list[tuple[str, ...]] = [head]
    for row in rows:
        sizes = (row.memory.rss, row.memory.pss, row.memory.alone, row.memory.private)
        lines.append((row.name, *(f"{size:.1f}" for size in sizes), f"{row.cpu_ms_per_minute:.1f}"))
    lines.insert(2, ("  goal", "", f"<= {GOAL_PSS_MB:g}", "", "", f"<= {GOAL_CPU_MS:g}"))
    widths = [max(len(line[index]) for line in lines) for index in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _machine() -> str:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return (
        f"{os.cpu_count()} cores, {pages / 2**30:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def _other_pythons(agent: int) -> int:
    names = [entry for entry in Path("/proc").glob("[0-9]*/comm") if int(entry.parent.name) != agent]
    return sum(_is_python(name) for name in names)


def _is_python(name: Path) -> bool:
    try:
        return name.read_text().startswith("python")
    except OSError:
        return False


def _tell(text: str) -> None:
    print(f"  … {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
