"""``python -m devcloud run | demo``: the watchdog on a local Azure."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable

from devcloud.app_process import AppProcessError
from devcloud.azurite import AzuriteError
from devcloud.demo import play
from devcloud.feed import Feed
from devcloud.stack import DEFAULT_PORT, Stack, StackOptions
from devcloud.vms.machine import VmError

EXIT_INTERRUPTED = 130


def main() -> int:
    """Parse the command line and run it; 0 done, 1 failed, 130 ended by Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m devcloud", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="start everything and show the live feed until Ctrl-C")
    demo = commands.add_parser("demo", help="play a scenario; exit 0 only if all of it was seen")
    for command in (run, demo):
        command.add_argument(
            "--vms",
            choices=("auto", "systemd", "process"),
            default="auto",
            help="systemd: a real systemd each (root on Linux); process: plain processes; auto: the best",
        )
        command.add_argument(
            "--port", type=_port, default=DEFAULT_PORT, help="port of the function app; 0 takes a free one"
        )
        command.add_argument(
            "--fast", type=_factor, default=1.0, help="divide every wait of the backoff by this (1 to 20)"
        )
    options = parser.parse_args()
    stack_options = StackOptions(
        kind=None if options.vms == "auto" else options.vms, fast=options.fast, port=options.port
    )
    action = _run if options.command == "run" else _demo
    try:
        return asyncio.run(_until_signal(action, stack_options))
    except (AppProcessError, AzuriteError, VmError, OSError) as error:
        print(f"could not start: {error}", file=sys.stderr)
        return 1


async def _run(options: StackOptions) -> int:
    async with Stack(options, _progress) as stack:
        print(f"\ndashboard: {stack.dashboard_url}")
        print(
            "Ctrl-C ends everything. Who is healthy, what was decided and why, what was done:\n", flush=True
        )
        await Feed(stack.app, _write, _wants_colour()).run()
    return 1  # the function app has ended by itself


async def _demo(options: StackOptions) -> int:
    async with Stack(options, _progress) as stack:
        print(f"\ndashboard: {stack.dashboard_url}\n", flush=True)
        feed = asyncio.create_task(Feed(stack.app, _write, _wants_colour()).run())
        try:
            seen = await play(stack, _write)
        finally:
            feed.cancel()
            await asyncio.gather(feed, return_exceptions=True)
    print("\nWhat had to be seen:")
    for check in seen:
        print(f"  {'seen    ' if check.seen else 'NOT SEEN'}  {check.text}")
    return 0 if all(check.seen for check in seen) else 1


async def _until_signal(action: Callable[[StackOptions], Awaitable[int]], options: StackOptions) -> int:
    """Run ``action``; the first SIGINT or SIGTERM cancels it, and it then ends every process in order."""
    task = asyncio.ensure_future(action(options))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        print("\nended.", flush=True)
        return EXIT_INTERRUPTED


def _factor(text: str) -> float:
    value = float(text)
    if not 1 <= value <= 20:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to 20, was {text}")
    return value


def _port(text: str) -> int:
    if not text.isdecimal() or not int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"must be a port from 0 to 65535, was {text}")
    return int(text)


def _progress(text: str) -> None:
    print(f"  … {text}", flush=True)


def _write(line: str) -> None:
    print(line, flush=True)


def _wants_colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


if __name__ == "__main__":
    sys.exit(main())
