"""What every command gets: its arguments, a way to speak, and a way to the watchdog that it may open."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vm_watchdog.cli.output import Output

if TYPE_CHECKING:
    from vm_watchdog.app import Watchdog

    Connect = Callable[[], AbstractAsyncContextManager[Watchdog]]
else:
    Connect = Callable


class UsageError(Exception):
    """An argument is not what it must be; the message names it."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a command. Only ``connect`` reads the platform's settings."""

    arguments: argparse.Namespace
    environ: Mapping[str, str]
    output: Output
    connect: Connect
    clock: Callable[[], datetime]


def connect_by_settings(environ: Mapping[str, str]) -> Connect:
    """Return what opens the watchdog that ``environ`` describes, and closes it afterwards."""

    @asynccontextmanager
    async def connected() -> AsyncIterator[Watchdog]:
        from vm_watchdog import bootstrap, settings  # noqa: PLC0415 - commands without Azure load no SDK

        watchdog = bootstrap.build(settings.load(environ))
        try:
            yield watchdog
        finally:
            await watchdog.close()

    return connected


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)
