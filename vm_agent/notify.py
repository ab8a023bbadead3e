"""Tells systemd how the agent is (sd_notify): that it runs, what it sees, that its sampler still turns.

Answers for the wire only: one datagram a message, and no failure that reaches the caller. When a ping is due
is the sampling loop's to say. Without a socket (started by hand) all of it does nothing.
Source: sd_notify(3), systemd.service(5).
"""

from __future__ import annotations

import logging
import socket

from vm_health.model import HealthReport

_LOG = logging.getLogger(__name__)
_TIMEOUT_SECONDS = 2.0
_MOST_CHARACTERS = 300
# Several samples may fail to come in time on a busy machine; a sampler that is stuck misses them all.
_MISSED_SAMPLES = 4


class Notifier:
    """Speaks to the service manager at ``address``, which is the value of ``NOTIFY_SOCKET``.

    ``watchdog_seconds`` is the unit's ``WatchdogSec=``, 0 for none. Where the sampling interval is too long
    for it, systemd is told a longer one: a slow rhythm that somebody chose is not a stuck sampler.
    """

    def __init__(
        self, address: str = "", watchdog_seconds: float = 0.0, interval_seconds: float = 0.0
    ) -> None:
        # Others (vsock:) are for a VM's own manager and never a service's.
        self._address = address if address.startswith(("/", "@")) else ""
        self._watchdog_seconds = watchdog_seconds
        self._needed_seconds = _MISSED_SAMPLES * interval_seconds
        self._socket: socket.socket | None = None
        self._ready = False
        self._status = ""
        self._complained = False

    def sampled(self, report: HealthReport) -> None:
        """Say that a sample was completed: ready at the first, a ping at each, the status where it is new."""
        lines = [] if self._ready else ["READY=1"]
        if self._watchdog_seconds:
            if not self._ready and self._needed_seconds > self._watchdog_seconds:
                lines.append(f"WATCHDOG_USEC={int(self._needed_seconds * 1e6)}")
            lines.append("WATCHDOG=1")
        status = status_line(report)
        if status != self._status:
            lines.append(f"STATUS={status}")
        if lines and self._send("\n".join(lines)):
            self._ready = True
            self._status = status

    def stopping(self) -> None:
        """Say that the agent ends on purpose."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> bool:
        if not self._address:
            return False
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self._socket.settimeout(_TIMEOUT_SECONDS)
            # A leading @ stands for the NUL byte of an abstract name.
            to = "\0" + self._address[1:] if self._address.startswith("@") else self._address
            self._socket.sendto(message.encode(), to)
        except OSError as error:
            if not self._complained:  # once: systemd's own verdict follows if it goes on
                _LOG.warning("systemd cannot be told", extra={"reason": error.strerror or str(error)})
            self._complained = True
            return False
        self._complained = False
        return True


def status_line(report: HealthReport) -> str:
    """Return the report in one line for ``systemctl status``.

    A message may quote what a file or a unit said; a line break in it would begin a field of the protocol.
    """
    reasons = "; ".join(finding.message for finding in report.findings) or "all is well"
    text = " ".join(f"{report.status.value}: {reasons}".split())
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return shown if len(shown) <= _MOST_CHARACTERS else shown[: _MOST_CHARACTERS - 3] + "..."
