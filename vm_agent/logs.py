"""How the agent's log lines look: for the journal, one line each, the extras as ``key=value`` behind.

No secret ever gets here: callers log hosts, names and counts.
"""

from __future__ import annotations

import logging
import sys

_OWN_FIELDS = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class LineFormatter(logging.Formatter):
    """Level, constant message, then what was given as ``extra``; the journal adds the time itself."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line (tracebacks follow on lines of their own)."""
        extras = " ".join(
            f"{key}={_shown(value)}" for key, value in record.__dict__.items() if key not in _OWN_FIELDS
        )
        line = super().format(record)
        head, newline, rest = line.partition("\n")
        return f"{record.levelname} {head}" + (f" {extras}" if extras else "") + newline + rest


def configure() -> None:
    """Send INFO and above to standard error, which systemd writes into the journal."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.raiseExceptions = False  # a full or closed journal must not end the agent
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


def _shown(value: object) -> str:
    text = str(value)
    return repr(text) if not text or " " in text or not text.isprintable() else text
