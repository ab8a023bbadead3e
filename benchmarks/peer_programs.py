"""Debian's monitoring programs, started by hand on loopback ports with what their packages have as default.

Each gets a directory of its own and is ended with all that it started. Measures nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process_cost import tree


@dataclass(frozen=True, slots=True)
class Peer:
    """A running program; ``url`` is what a scraper asks, "" for nothing."""

    name: str
    process: subprocess.Popen[bytes]
    url: str = ""

    def end(self) -> None:
        """End it and all below it."""
        everybody = tree(self.process.pid)
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in everybody:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


class Peers:
    """Starts what is installed; ``missing`` names what is not."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.running: list[Peer] = []
        self.missing: list[str] = []

    def start(self) -> None:
        """Start them all, and three sleeping services for monit to look at."""
        starters: Mapping[str, Sequence[Callable[[Path], Peer]]] = {
            "prometheus-node-exporter": (_node_exporter_idle, _node_exporter_scraped),
            "monit": (self._monit,),
            "collectd": (_collectd,),
            "netdata": (_netdata,),
        }
        for command, makers in starters.items():
            if _find(command) is None:
                self.missing.append(command)
                continue
            for number, make in enumerate(makers):
                place = self._directory / f"{command}-{number}"
                place.mkdir()
                self.running.append(make(place))

    def end(self) -> None:
        """End everything that was started."""
        for peer in self.running:
            peer.end()
        self.running.clear()

    def _monit(self, place: Path) -> Peer:
        checks = []
        for number in range(3):
            sleeper = subprocess.Popen(["sleep", "infinity"])
            self.running.append(Peer("", sleeper))
            (place / f"{number}.pid").write_text(f"{sleeper.pid}\n")
            checks.append(f"check process service{number} with pidfile {place}/{number}.pid")
        configuration = place / "monitrc"
        configuration.write_text(
            "\n".join(
                [
                    "set daemon 30",
                    f"set idfile {place}/id",
                    f"set statefile {place}/state",
                    f"set pidfile {place}/pid",
                    f"set httpd port {_free_port()} use address 127.0.0.1 allow 127.0.0.1",
                    "check system here",
                    "  if memory usage > 90% then alert",
                    "check filesystem root with path /",
                    "  if space usage > 80% then alert",
                    "  if inode usage > 80% then alert",
                    *checks,
                    "",
                ]
            )
        )
        configuration.chmod(0o600)
        return _started("monit, every 30 s, 5 checks", place, ["monit", "-I", "-c", str(configuration)])


def _node_exporter_idle(place: Path) -> Peer:
    return _started("node_exporter, idle", place, _node_exporter_command(_free_port()))


def _node_exporter_scraped(place: Path) -> Peer:
    port = _free_port()
    command = _node_exporter_command(port)
    return _started("node_exporter, scraped every 15 s", place, command, f"http://127.0.0.1:{port}/metrics")


def _node_exporter_command(port: int) -> list[str]:
    return ["prometheus-node-exporter", f"--web.listen-address=127.0.0.1:{port}"]


def _collectd(place: Path) -> Peer:
    """Debian's default plugins without rrdtool's, which is a package of its own."""
    plugins = (
        "cpu",
        "df",
        "disk",
        "entropy",
        "interface",
        "irq",
        "load",
        "memory",
        "processes",
        "swap",
        "users",
    )
    lines = [f'BaseDir "{place}"', f'PIDFile "{place}/pid"', "FQDNLookup false", "Interval 10"]
    lines += [f"LoadPlugin {name}" for name in (*plugins, "csv")]
    lines += ["<Plugin csv>", f'  DataDir "{place}/csv"', "</Plugin>", ""]
    configuration = place / "collectd.conf"
    configuration.write_text("\n".join(lines))
    command = [str(_find("collectd")), "-f", "-C", str(configuration)]
    return _started("collectd, every 10 s", place, command)


def _netdata(place: Path) -> Peer:
    for name in ("cache", "lib", "log"):
        (place / name).mkdir()
    configuration = place / "netdata.conf"
    configuration.write_text(
        "[global]\n  run as user = root\n"
        f"[directories]\n  cache = {place}/cache\n  lib = {place}/lib\n  log = {place}/log\n"
        f"[web]\n  bind to = 127.0.0.1:{_free_port()}\n"
        "[registry]\n  enabled = no\n[cloud]\n  enabled = no\n"
    )
    command = [str(_find("netdata")), "-D", "-c", str(configuration)]
    return _started("netdata, every 1 s", place, command, environment={"DO_NOT_TRACK": "1"})


def _started(
    name: str, place: Path, command: list[str], url: str = "", environment: Mapping[str, str] | None = None
) -> Peer:
    with (place / "output").open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=place,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    return Peer(name, process, url)


def _find(command: str) -> str | None:
    return shutil.which(command) or shutil.which(command, path="/usr/sbin:/sbin")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number
