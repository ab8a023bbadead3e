"""PID 1 of a simulated VM without systemd: runs its units and scripts, and ends all of them with itself.

``python -m devcloud.vms.supervisor DIRECTORY``; that has ``units/``, ``run/`` and ``var/log/``. It prints
one line when it listens, and lives until its standard input closes, which also happens when its owner is
killed. It knows nothing of Azure or of the watchdog.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from devcloud.vms import linux, systemctl_verbs
from devcloud.vms.service import Service, State
from devcloud.vms.systemctl import SOCKET_NAME
from devcloud.vms.units import ServiceSettings, parse_unit

_EXEC_FAILED = 203  # systemd's EXIT_EXEC
_LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND


class Processes:
    """Starts processes in groups of their own and tells who ended, adopted orphans included."""

    def __init__(self) -> None:
        self._on_exit: dict[int, Callable[[int], None]] = {}

    def spawn(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        output: Path,
        errors: Path,
        on_exit: Callable[[int], None],
        directory: str = "/",
    ) -> int:
        """Start ``command`` as leader of a new session; ``on_exit`` gets the status of ``waitpid``."""
        descriptors = [os.open(path, _LOG_FLAGS, 0o644) for path in (output, errors)]
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                linux.die_with_parent(signal.SIGKILL)
                signal.pthread_sigmask(signal.SIG_SETMASK, [])
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(descriptors[0], 1)
                os.dup2(descriptors[1], 2)
                os.chdir(directory)
                os.execvpe(command[0], list(command), dict(environment))
            except BaseException as error:  # noqa: BLE001 - a forked child must never return into the caller
                os.write(2, f"{command[0]}: {error}\n".encode())
            finally:
                os._exit(_EXEC_FAILED)
        for descriptor in descriptors:
            os.close(descriptor)
        self._on_exit[pid] = on_exit
        return pid

    def reap(self) -> None:
        """Collect everything that has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if notify := self._on_exit.pop(pid, None):
                notify(status)


class Supervisor:
    """The units of one VM and the socket on which they are steered."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self._environment = environment
        self._processes = Processes()
        self._services: dict[str, Service] = {}
        (directory / "run" / SOCKET_NAME).unlink(missing_ok=True)  # of a run that was killed
        self.reload()

    def services(self) -> Iterable[Service]:
        return sorted(self._services.values(), key=lambda service: service.name)

    def service(self, name: str) -> Service:
        """The unit of that name, loaded when first asked for, as systemd does."""
        known = self._services.get(name)
        if known is None:
            known = Service(name, self._spawn_service)
            self._load(known)
            if known.load_state != "not-found":
                self._services[name] = known
        return known

    def reload(self) -> None:
        """Read all unit files again; running services keep running."""
        for path in (self._directory / "units").glob("*.service"):
            self.service(path.name)
        for service in self._services.values():
            self._load(service)
            service.on_reload()

    def _load(self, service: Service) -> None:
        service.bad_setting = ""
        try:
            text = (self._directory / "units" / Path(service.name).name).read_text(encoding="utf-8")
            service.settings = parse_unit(service.name, text)
        except OSError:  # no such file, or a name that can't be one: not found, unless it is still in use
            if service.state in (State.DEAD, State.FAILED):
                service.settings = None
        except ValueError as error:
            service.bad_setting = str(error)

    def _spawn_service(self, name: str, settings: ServiceSettings) -> int:
        log = self._directory / "var" / "log" / f"{name}.log"
        environment = {**self._environment, **settings.environment}
        return self._processes.spawn(settings.command, environment, log, log, self._services[name].on_exit)

    async def run_script(self, request: Mapping[str, object]) -> tuple[int, bool]:
        """Run a script's command; the exit code as a shell has it, and whether its time was up."""
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        command = request["command"]
        environment, timeout = request["environment"], request["timeout_seconds"]
        assert isinstance(command, list)
        assert isinstance(environment, dict)
        assert isinstance(timeout, int | float)
        pid = self._processes.spawn(
            command,
            {**self._environment, **environment},
            Path(str(request["stdout"])),
            Path(str(request["stderr"])),
            ended.set_result,
            str(request["directory"]),
        )
        try:
            status = await asyncio.wait_for(asyncio.shield(ended), timeout)
        except TimeoutError:
            os.killpg(pid, signal.SIGKILL)
            await ended
            return -1, True
        code = os.waitstatus_to_exitcode(status)
        return (code if code >= 0 else 128 - code), False

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection: one request, one answer."""
        length = int(await reader.readline())
        kind, *arguments = (await reader.readexactly(length)).decode("utf-8", "surrogateescape").split("\0")
        if kind == "script":
            code, timed_out = await self.run_script(json.loads(arguments[0]))
            output, errors = b"timed-out" if timed_out else b"", b""
        else:
            _use_time_zone(arguments[0])
            result = await systemctl_verbs.run(self, arguments[1:])
            code = result.exit_code
            output, errors = (
                "".join(f"{line}\n" for line in lines if line).encode("utf-8", "surrogateescape")
                for lines in (result.output, result.errors)
            )
        writer.write(b"%d %d\n" % (code, len(output)) + output + errors)
        await writer.drain()
        writer.close()

    async def serve(self) -> None:
        """Start every unit, then serve until standard input closes."""
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_signal_handler(signal.SIGCHLD, self._processes.reap)
        loop.add_signal_handler(signal.SIGTERM, gone.set)
        loop.add_reader(0, gone.set)
        os.chdir(self._directory / "run")  # a socket's path may hold 107 bytes only
        async with await asyncio.start_unix_server(self.answer, SOCKET_NAME):
            await asyncio.gather(*(unit.start() for unit in self.services() if unit.load_state == "loaded"))
            print("ready", flush=True)
            await gone.wait()


def _use_time_zone(name: str) -> None:
    """Print times in the caller's zone, as the real command does. Requests are answered one by one."""
    if name:
        os.environ["TZ"] = name
    else:
        os.environ.pop("TZ", None)
    time.tzset()


def kill_descendants() -> None:
    """Kill and collect everything below this process, again and again until nothing is left."""
    while True:
        for pid in linux.descendants(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def main() -> int:
    linux.adopt_orphans()
    try:
        asyncio.run(Supervisor(Path(sys.argv[1]), dict(os.environ)).serve())
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        kill_descendants()
    return 0


if __name__ == "__main__":
    sys.exit(main())
