"""``python -m benchmarks.endpoint``: the agent's endpoint beside node_exporter's and monit's, in one run.

Each is asked by wrk over 50 kept connections for 10 s while 1,000 idle ones hang on, and nobody else runs.
Needs wrk; peers that are not installed are left out and named. The agent looks at this machine's own units.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GOAL_REQUESTS_PER_SECOND = 1000.0
GOAL_P99_MS = 20.0
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_START_SECONDS = 20.0
_MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


@dataclass(frozen=True, slots=True)
class Load:
    """What every endpoint is put under."""

    seconds: int = 10
    connections: int = 50
    idle: int = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """One endpoint under load. ``errors`` are refused, reset and timed-out requests and answers but 2xx."""

    name: str
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    errors: int
    cpu_percent: float
    cpu_us_per_request: float
    rss_mb_before: float
    rss_mb_after: float
    idle: int
    idle_left: int


@dataclass(frozen=True, slots=True)
class Program:
    """A server to measure: how it is started on a port, and what it is asked."""

    name: str
    command: Callable[[Path, int], list[str]]
    paths: tuple[str, ...]
    is_agent: bool = False


PROGRAMS = (
    Program(
        "vm-agent",
        lambda place, port: [sys.executable, "-m", "vm_agent", "run"],
        ("/health", "/metrics?format=prometheus"),
        is_agent=True,
    ),
    Program(
        "prometheus-node-exporter",
        # Without the limit of 40 requests at once, which would answer 503 to the others.
        lambda place, port: [
            "prometheus-node-exporter",
            f"--web.listen-address=127.0.0.1:{port}",
            "--web.max-requests=0",
        ],
        ("/metrics",),
    ),
    Program("monit", lambda place, port: ["monit", "-I", "-c", str(_monitrc(place, port))], ("/_status",)),
)


def run(load: Load) -> tuple[list[Row], list[str]]:
    """Measure each endpoint alone, with and without idle connections; also returns what is not installed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, load.idle + 200)), hard))
    rows: list[Row] = []
    missing: list[str] = []
    for program in PROGRAMS:
        if not program.is_agent and shutil.which(program.name) is None:
            missing.append(program.name)
            continue
        with tempfile.TemporaryDirectory() as directory, _running(program, Path(directory)) as (pid, port):
            for path in program.paths:
                rows += [_measure(program, path, pid, port, load, idle) for idle in (load.idle, 0)]
    return rows, missing


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 if the agent's /health reaches both goals without an error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endpoint", description=__doc__)
    parser.add_argument("--seconds", type=int, default=10, help="how long each is asked")
    parser.add_argument("--connections", type=int, default=50, help="connections that ask")
    parser.add_argument("--idle", type=int, default=1000, help="connections that hang on and say nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    given = parser.parse_args(arguments)
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed (apt-get install wrk)")
    load = Load(given.seconds, given.connections, given.idle)
    rows, missing = run(load)
    print(
        f"{load.connections} connections asking for {load.seconds} s,"
        f" with {load.idle} idle ones beside them and without\n"
    )
    print(_table(rows))
    print(f"\ngoal for /health: >= {GOAL_REQUESTS_PER_SECOND:g} requests/s with p99 <= {GOAL_P99_MS:g} ms")
    for name in missing:
        print(f"not installed: {name}")
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    health = rows[0]  # the first is measured with the idle ones
    is_met = health.requests_per_second >= GOAL_REQUESTS_PER_SECOND and health.p99_ms <= GOAL_P99_MS
    return 0 if is_met and not health.errors else 1


@contextlib.contextmanager
def _running(program: Program, place: Path) -> Iterator[tuple[int, int]]:
    """Run a program on a free port until the measurement is over."""
    port = _free_port()
    settings = {
        "PYTHONPATH": str(ROOT),
        "VM_AGENT_LISTEN_ADDRESS": "127.0.0.1",
        "VM_AGENT_LISTEN_PORT": str(port),
        "VM_AGENT_STATE_DIR": str(place),
    }
    with (place / "output").open("wb") as output:
        process = subprocess.Popen(
            program.command(place, port),
            env={**os.environ, **(settings if program.is_agent else {})},
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _until_answers(port, program.paths[0])
        yield process.pid, port
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _measure(program: Program, path: str, pid: int, port: int, load: Load, idle_count: int) -> Row:
    print(f"  … {program.name} {path}, {idle_count} idle", file=sys.stderr, flush=True)
    rss_before = _rss_mb(pid)
    idle = [_connect(port) for _ in range(idle_count)]
    cpu_before, began = _cpu_seconds(pid), time.monotonic()
    said = subprocess.run(
        [
            *("wrk", "--latency", "--timeout", "5s", "-t", "1"),
            *("-c", str(load.connections), "-d", f"{load.seconds}s", f"http://127.0.0.1:{port}{path}"),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    cpu, passed = _cpu_seconds(pid) - cpu_before, time.monotonic() - began
    rss_after = _rss_mb(pid)
    idle_left = sum(found is not None and _is_open(found) for found in idle)
    for found in idle:
        if found is not None:
            found.close()
    answered = int(_found(r"(\d+) requests in", said))
    return Row(
        name=f"{program.name} {path}",
        requests_per_second=float(_found(r"Requests/sec:\s+([\d.]+)", said)),
        p50_ms=_latency(said, 50),
        p99_ms=_latency(said, 99),
        errors=_errors(said),
        cpu_percent=100 * cpu / passed,
        cpu_us_per_request=1e6 * cpu / max(1, answered),
        rss_mb_before=rss_before,
        rss_mb_after=rss_after,
        idle=idle_count,
        idle_left=idle_left,
    )


def _latency(said: str, percentile: int) -> float:
    number, unit = re.findall(rf"^\s+{percentile}%\s+([\d.]+)(us|ms|s|m)\s*$", said, re.MULTILINE)[0]
    return float(number) * _MILLISECONDS[unit]


def _errors(said: str) -> int:
    sockets = re.findall(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    others = re.findall(r"Non-2xx or 3xx responses: (\d+)", said)
    return sum(int(count) for found in sockets for count in found) + sum(map(int, others))


def _found(pattern: str, said: str) -> str:
    match = re.search(pattern, said)
    if match is None:
        raise RuntimeError(f"wrk said something else: {said[:500]}")
    return match[1]


def _until_answers(port: int, path: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
                connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
                if connection.recv(12).endswith(b" 200"):
                    return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing answers 200 at port {port}")
        time.sleep(0.05)


def _connect(port: int) -> socket.socket | None:
    try:
        return socket.create_connection(("127.0.0.1", port), timeout=2)
    except OSError:
        return None


def _is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def _rss_mb(pid: int) -> float:
    return int(_found(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())) * 1024 / 1e6


def _monitrc(place: Path, port: int) -> Path:
    found = place / "monitrc"
    names = ("id", "state", "pid")
    files = "\n".join(f"set {name}file {place}/{name}" for name in names)
    found.write_text(
        f"set daemon 30\n{files}\nset httpd port {port} use address 127.0.0.1 allow 127.0.0.1\n"
        "check system here\n  if memory usage > 90% then alert\n"
        "check filesystem root with path /\n  if space usage > 80% then alert\n"
    )
    found.chmod(0o600)
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _table(rows: Sequence[Row]) -> str:
    head = (
        "endpoint",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "errors",
        "CPU %",
        "CPU us/req",
        "RSS MB",
        "idle left",
    )
    lines: list[tuple[str, ...]] = [head]
    for row in rows:
        lines.append(
            (
                row.name,
                f"{row.requests_per_second:.0f}",
                f"{row.p50_ms:.2f}",
                f"{row.p99_ms:.2f}",
                str(row.errors),
                f"{row.cpu_percent:.0f}",
                f"{row.cpu_us_per_request:.0f}",
                f"{row.rss_mb_before:.1f} -> {row.rss_mb_after:.1f}",
                f"{row.idle_left} of {row.idle}",
            )
        )
    widths = [max(len(line[index]) for line in lines) for index in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


if __name__ == "__main__":
    sys.exit(main())
