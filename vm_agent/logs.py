"""How the agent's log lines look and where they go: to standard error, and to a file where one is named.

No secret ever gets here: callers log hosts, names and counts.
"""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime

_OWN_FIELDS = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


# sd-daemon(3): the journal takes a line's level from "<4>" in front of it.
_PRIORITIES = {
    logging.CRITICAL: "<2>",
    logging.ERROR: "<3>",
    logging.WARNING: "<4>",
    logging.INFO: "<6>",
    logging.DEBUG: "<7>",
}
_LOG_FILE_BYTES = 1_000_000
_LOG_FILES_KEPT = 5


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


class JournalFormatter(LineFormatter):
    """The same with the level as the journal reads it; tracebacks too, for it reads line by line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record with a priority before each line."""
        priority = _PRIORITIES.get(record.levelno, "<6>")
        return "\n".join(priority + line for line in super().format(record).splitlines())


class FileFormatter(LineFormatter):
    """The same with the time, which a file does not add."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record behind its time."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return f"{moment} {super().format(record)}"


def configure(*, for_journal: bool = False, log_file: str = "") -> None:
    """Send INFO and above to standard error, and to ``log_file``, five old ones of 1 MB being kept."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JournalFormatter() if for_journal else LineFormatter())
    logging.raiseExceptions = False  # a full or closed journal must not end the agent
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    if log_file:
        _add_file(root, log_file)


def _add_file(root: logging.Logger, path: str) -> None:
    """Log to ``path`` too; where that cannot be, one line says so and the journal has it all."""
    from logging.handlers import RotatingFileHandler  # noqa: PLC0415 - half a megabyte, for the few who want it

    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o750, exist_ok=True)
        handler = RotatingFileHandler(
            path, maxBytes=_LOG_FILE_BYTES, backupCount=_LOG_FILES_KEPT, encoding="utf-8"
        )
    except OSError as error:
        root.warning("log file cannot be written", extra={"path": path, "reason": error.strerror})
        return
    handler.setFormatter(FileFormatter())
    root.addHandler(handler)


def _shown(value: object) -> str:
    text = str(value)
    return repr(text) if not text or " " in text or not text.isprintable() else text
