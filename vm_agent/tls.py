"""TLS for the endpoint: certificate and key from files, read again when they change.

Loaded only where it is asked for. A handshake begins when a client says something: who says nothing costs
no more than without TLS.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import time
from collections.abc import Callable

from vm_agent.http_request import Refused
from vm_health.errors import ConfigError

_LOG = logging.getLogger(__name__)
_LOOK_EVERY_SECONDS = 10.0
_HANDSHAKE = b"\x16"


class Certificate:
    """A certificate with its key.

    Raises:
        ConfigError: the files cannot be used; it names the setting.
    """

    def __init__(
        self, cert_file: str, key_file: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._cert_file = cert_file
        self._key_file = key_file
        self._stamp = self._now_on_disk()
        self._monotonic = monotonic
        self._looked_at = monotonic()
        self._context = _load(cert_file, key_file)

    def context(self) -> ssl.SSLContext:
        """Return what to speak TLS with: renewed files count within seconds, broken ones are told once."""
        now = self._monotonic()
        if now >= self._looked_at + _LOOK_EVERY_SECONDS:
            self._looked_at = now
            stamp = self._now_on_disk()
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._context = _load(self._cert_file, self._key_file)
                    _LOG.info("certificate read anew", extra={"file": self._cert_file})
                except ConfigError as error:
                    _LOG.warning("new certificate not used", extra={"reason": "; ".join(error.faults)})
        return self._context

    def _now_on_disk(self) -> tuple[object, ...]:
        found: list[object] = []
        for path in (self._cert_file, self._key_file):
            try:
                status = os.stat(path)
                found.append((status.st_ino, status.st_mtime_ns, status.st_size))
            except OSError:
                found.append(None)
        return tuple(found)


def _load(cert_file: str, key_file: str) -> ssl.SSLContext:
    faults = []
    for name, path in (("TLS_CERT_FILE", cert_file), ("TLS_KEY_FILE", key_file)):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            faults.append(
                f"VM_AGENT_{name} must be a file that vm-agent may read, was {path} ({error.strerror})"
            )
    if not faults:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        try:
            context.load_cert_chain(cert_file, key_file, password=lambda: "")  # else it asks on the terminal
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or str(error)
            faults.append(
                "VM_AGENT_TLS_CERT_FILE and VM_AGENT_TLS_KEY_FILE must be a certificate chain and its key"
                f" without password in PEM, were {cert_file} and {key_file} ({reason})"
            )
        else:
            return context
    raise ConfigError("settings of vm-agent", faults)


class TlsStream:
    """A TCP socket that speaks TLS from the client's first byte on."""

    __slots__ = ("_certificate", "_refused", "_socket", "_tls", "wants_write")

    def __init__(self, accepted: socket.socket, certificate: Certificate) -> None:
        self._socket = accepted
        self._certificate = certificate
        self._tls: ssl.SSLSocket | None = None
        self._refused = False
        self.wants_write = False

    @property
    def handshaking(self) -> bool:
        """Whether the client has begun a handshake that has not ended."""
        return self._tls is not None and self._tls.version() is None

    def receive(self, size: int) -> bytes | None:
        """Return some bytes, b"" at the end, None where there are none yet.

        Raises:
            Refused: the client speaks no TLS.
        """
        self.wants_write = False
        try:
            if self._refused:
                return self._socket.recv(size)
            if self._tls is None:
                first = self._socket.recv(1, socket.MSG_PEEK)
                if not first:
                    return b""
                if first != _HANDSHAKE:
                    self._refused = True
                    raise Refused(400, "this port speaks TLS: use https://")
                self._tls = self._certificate.context().wrap_socket(
                    self._socket, server_side=True, do_handshake_on_connect=False
                )
            return self._tls.recv(size)
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        except ssl.SSLWantWriteError:
            self.wants_write = True
            return None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def send(self, parts: list[memoryview]) -> int | None:
        """Send what is left in one piece, so that head and body share a record."""
        if len(parts) > 1:
            parts[:] = [memoryview(b"".join(parts))]
        try:
            return (self._tls or self._socket).send(parts[0])
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None

    def end(self) -> None:
        """Send close_notify and FIN."""
        if self._tls is not None:
            with contextlib.suppress(OSError, ValueError):
                self._tls.unwrap()
        (self._tls or self._socket).shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Free the socket."""
        (self._tls or self._socket).close()
