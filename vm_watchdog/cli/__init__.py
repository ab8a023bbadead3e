"""The command line. Reads arguments, prints, and turns what happened into an exit code; decides nothing.

Each command loads what it needs when it is called: a replay needs no Azure, and help needs nothing.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from importlib import import_module

from vm_health.errors import ConfigError, WatchdogError
from vm_watchdog.cli.call import Call, Connect, UsageError, connect_by_settings, utc_now
from vm_watchdog.cli.output import EXIT_CONFIG, EXIT_UNKNOWN, EXIT_USAGE, Output
from vm_watchdog.cli.parser import build_parser


def main(
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
    connect: Connect | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> int:
    """Run one command and return the exit code of the process.

    ``connect`` opens the watchdog that a command works with; by default the one that ``environ`` describes.
    """
    environ = os.environ if environ is None else environ
    arguments = build_parser().parse_args(argv)
    output = Output(environ, as_json=arguments.json)
    call = Call(arguments, environ, output, connect or connect_by_settings(environ), clock)
    try:
        command = import_module(f"vm_watchdog.cli.{arguments.module}")
        code: int = getattr(command, arguments.function)(call)
    except UsageError as error:
        output.message(str(error))
        return EXIT_USAGE
    except ConfigError as error:
        output.message(str(error))
        # What was asked for is the caller's to correct, settings and files are somebody else's, perhaps.
        return EXIT_USAGE if error.source == "the request" else EXIT_CONFIG
    except WatchdogError as error:
        output.message(str(error))
        return int(arguments.failure)
    except BrokenPipeError:
        output.abandon()
        return EXIT_UNKNOWN
    except Exception:  # noqa: BLE001 - Python's own exit code for it is 1, and that would read as WARNING
        output.message(f"this is a fault of the program:\n{traceback.format_exc()}")
        return EXIT_UNKNOWN
    return code
