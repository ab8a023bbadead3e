"""A place for the agent to run in: a `systemctl` and a server whose answers a test writes.

Real processes and real sockets; only what is said is the test's.
"""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
KEY = "00000000-0000-4000-8000-000000000009"
VM_ID = (
    "/subscriptions/00000000-0000-4000-8000-000000000001/resourcegroups/rg"
    "/providers/microsoft.compute/virtualmachines/vm1"
)
WAIT_SECONDS = 10.0

_SYSTEMCTL = """\
#!/bin/sh
cd "{directory}" || exit 1
echo "$@" >> calls
case $1 in
  show) [ -e hang ] && exec sleep 60; cat show ;;
  restart) if [ -e fail ]; then cat fail >&2; exit 1; fi; [ ! -e after ] || cp after show ;;
esac
"""


def shown(state: str = "active/running", pid: int = 42, name: str = "web.service") -> str:
    """One block as ``systemctl show`` prints it."""
    active, sub = state.split("/")
    return (
        f"Type=simple\nMainPID={pid}\nResult=success\nNRestarts=0\nId={name}\nLoadState=loaded\n"
        f"ActiveState={active}\nSubState={sub}\nActiveEnterTimestamp=Tue 2026-11-24 23:11:37 UTC\n"
    )


def until(condition: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
    """Return what ``condition`` gives once that is true; look 50 times a second."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


class Site:
    """A directory with a `systemctl` on PATH and the processes that were started with it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.started: list[subprocess.Popen[str]] = []
        script = directory / "bin" / "systemctl"
        script.parent.mkdir()
        script.write_text(_SYSTEMCTL.format(directory=directory))
        script.chmod(0o755)
        self.systemd_says(shown())

    def systemd_says(self, text: str) -> None:
        fresh = self.directory / "show.new"
        fresh.write_text(text)
        fresh.replace(self.directory / "show")

    def calls(self) -> list[str]:
        file = self.directory / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("VM_AGENT_", "APPL"))
        }
        return {
            **inherited,
            "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            # Nothing of this machine's own: its bus, its journal, the state of an agent that it may have.
            "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={self.directory}/no-bus",
            "VM_AGENT_JOURNAL": "off",
            "VM_AGENT_STATE_DIR": str(self.directory / "state"),
            "VM_AGENT_DEPLOY_LOCK_FILE": str(self.directory / "deploy.lock"),
            **settings,
        }

    def command(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run one command of the agent to its end."""
        return subprocess.run(
            [sys.executable, "-m", "vm_agent", *arguments],
            env=self.environment(settings),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def run_agent(self, **settings: str) -> Agent:
        """Start the agent; it serves when this returns."""
        log = self.directory / f"log{len(self.started)}"
        given = {
            "VM_AGENT_LISTEN_ADDRESS": "127.0.0.1",
            "VM_AGENT_LISTEN_PORT": "0",
            "VM_AGENT_UNITS": "web",
            "VM_AGENT_SAMPLE_INTERVAL_SECONDS": "0.1",
            "VM_AGENT_VM_ID": VM_ID,
            **settings,
        }
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "vm_agent", "run"],
                env=self.environment({name: value for name, value in given.items() if value}),
                stderr=stderr,
                text=True,
            )
        self.started.append(process)
        agent = Agent(process, log)
        until(lambda: "vm-agent runs" in agent.log() or process.poll() is not None)
        assert process.poll() is None, agent.log()
        return agent

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()


@dataclass(frozen=True, slots=True)
class Agent:
    """A running agent."""

    process: subprocess.Popen[str]
    log_file: Path

    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def port(self) -> int:
        return int(self.log().split("health=http://127.0.0.1:")[1].split("/")[0])

    def ask(self, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def terminate(self) -> float:
        """Send SIGTERM; return the seconds until the process was gone."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)
        return time.monotonic() - began


@dataclass(frozen=True, slots=True)
class Request:
    """What a server got."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def items(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(gzip.decompress(self.body))
        return found


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server is to answer."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Playback:
    """A server that keeps what it got and answers from a list; when that is used up, by ``default``."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.replies: list[Reply] = []
        self.default: Callable[[Request], Reply] = lambda request: Reply()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def connection_string(self) -> str:
        return f"InstrumentationKey={KEY};IngestionEndpoint={self.url}/"

    def reply(self, request: Request) -> Reply:
        self.requests.append(request)
        return self.replies.pop(0) if self.replies else self.default(request)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(playback: Playback) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = playback.reply(Request(self.command, self.path, headers, body))
            content = json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST  # noqa: N815 - the base class names it

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
