"""``python -m devcloud.functions_host --app DIR --port N`` hosts an app; its settings are the environment."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from .errors import HostError
from .host import FunctionsHost
from .host_json import read_host_json
from .logs import configure_logging

_EXIT_BAD_SETTINGS = 2


async def _serve(host: FunctionsHost) -> bool:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    await host.start()
    await stop.wait()
    return await host.stop()


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; answers the exit code where the app could not be hosted."""
    parser = argparse.ArgumentParser(prog="python -m devcloud.functions_host", description=__doc__)
    parser.add_argument(
        "--app", type=Path, required=True, help="directory with function_app.py and host.json"
    )
    parser.add_argument("--port", type=int, required=True, help="port for HTTP functions; 0 takes a free one")
    parser.add_argument(
        "--host", action="append", help="address for HTTP functions (127.0.0.1); may be given several times"
    )
    parser.add_argument("--log-json", action="store_true", help="one JSON line a log record")
    parser.add_argument(
        "--max-polling-interval-seconds", type=float, help="in place of host.json's queues.maxPollingInterval"
    )
    options = parser.parse_args(arguments)
    try:
        levels = read_host_json(options.app / "host.json").log_levels
        configure_logging(json_lines=options.log_json, levels=levels)
        host = FunctionsHost(
            options.app,
            os.environ,
            addresses=options.host or ("127.0.0.1",),
            port=options.port,
            max_polling_interval_seconds=options.max_polling_interval_seconds,
        )
        finished = asyncio.run(_serve(host))
    except HostError as error:
        for fault in error.faults:
            print(fault, file=sys.stderr)
        return _EXIT_BAD_SETTINGS
    logging.shutdown()
    sys.stdout.flush()
    # As in Azure, the process ends without tearing the app down: clients that an app keeps for its life would
    # complain about not being closed, and a function stuck on a worker thread would be waited for for ever.
    os._exit(0 if finished else 1)


if __name__ == "__main__":
    sys.exit(main())
