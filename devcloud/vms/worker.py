"""The sample workload of a simulated VM: proves that it lives by a heartbeat file, and can crash on request.

Standard library only, runs as a script. Knows nothing of the VM or of the watchdog.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType


def write_heartbeat(path: Path) -> None:
    """Replace the heartbeat file in one step, so that a reader never sees half of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(f"{time.time():.3f}\n", encoding="ascii")
    partial.replace(path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="worker", description=__doc__)
    parser.add_argument("--heartbeat", type=Path, required=True, help="file written every interval")
    parser.add_argument("--crash-file", type=Path, help="while this file exists, exit 1 at start")
    parser.add_argument("--interval-seconds", type=float, default=1.0)
    options = parser.parse_args(arguments)

    if options.crash_file is not None and options.crash_file.exists():
        print(f"worker: {options.crash_file} exists, giving up", file=sys.stderr, flush=True)
        return 1

    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    options.heartbeat.parent.mkdir(parents=True, exist_ok=True)
    print(f"worker: started, pid {os.getpid()}", flush=True)
    beats = 0
    while not stopping.is_set():
        write_heartbeat(options.heartbeat)
        beats += 1
        if beats % 60 == 0:
            print(f"worker: {beats} heartbeats", flush=True)
        stopping.wait(options.interval_seconds)
    print("worker: stopped", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
