"""A connection to the system bus, as far as looking at systemd needs one: ask in batches, hear signals.

Knows D-Bus and systemd's names, but no sample. It never reconnects by itself: whoever holds it closes it
after an error and makes another.
"""

from __future__ import annotations

import functools
import select
import struct
import time
from collections.abc import Sequence
from typing import Any

from jeepney import DBusAddress, HeaderFields, Message, MessageType, Parser, new_method_call
from jeepney.io.blocking import prep_socket

from vm_health.errors import TransientError

SYSTEMD = "org.freedesktop.systemd1"
MANAGER_PATH = "/org/freedesktop/systemd1"
MANAGER = f"{SYSTEMD}.Manager"
PROPERTIES = "org.freedesktop.DBus.Properties"
_BUS = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
_SERIAL_OFFSET = 8
_READ_BYTES = 65_536


class BusRefusalError(TransientError):
    """The other side answered, with an error; the connection is as good as before."""


class Bus:
    """One connection, for one thread. The constructor connects, for a bus without a connection is nothing.

    Raises:
        TransientError: the bus is not there, does not let us in, or does not answer in time.
    """

    def __init__(self, path: str, timeout_seconds: float) -> None:
        try:
            self._socket = prep_socket(path, timeout=timeout_seconds)
        except (OSError, ValueError) as error:  # AuthenticationError is a ValueError
            raise TransientError(f"bus {path.lstrip(chr(0))}: {error}"[:300]) from error
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._parser = Parser()
        self._serial = 0
        try:
            self.ask([hello()], timeout_seconds)
        except TransientError:
            self.close()
            raise

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def ask(self, requests: Sequence[bytes], timeout_seconds: float) -> list[Any]:
        """Send all ``requests`` at once and return the bodies of their answers, in the same order.

        An answer that is an error stands there as a ``BusRefusalError``: one unit's may not hide the others'.

        Raises:
            TransientError: the connection broke or not everything was answered in time.
        """
        first = self._serial + 1
        packets = []
        for request in requests:
            self._serial = self._serial % 0xFFFF_FFFE + 1
            packet = bytearray(request)
            struct.pack_into("<I", packet, _SERIAL_OFFSET, self._serial)
            packets.append(packet)
        serials = {
            struct.unpack_from("<I", packet, _SERIAL_OFFSET)[0]: at for at, packet in enumerate(packets)
        }
        answers: list[Any] = [None] * len(packets)
        deadline = time.monotonic() + timeout_seconds
        try:
            self._socket.settimeout(max(0.001, timeout_seconds))
            self._socket.sendall(b"".join(packets))
        except OSError as error:
            raise TransientError(f"bus: {error.strerror or error}") from error
        while serials:
            message = self.receive(deadline - time.monotonic())
            if message is None:
                raise TransientError(f"bus: no answer within {timeout_seconds:g} s (request {first})")
            place = serials.pop(message.header.fields.get(HeaderFields.reply_serial, -1), None)
            if place is not None:
                answers[place] = _body(message)
        return answers

    def receive(self, timeout_seconds: float | None) -> Message | None:
        """Return the next message, None where none came in time; without a time-out it waits for ever.

        Raises:
            TransientError: the connection broke, or what came is no D-Bus.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        try:
            while (message := self._parser.get_next_message()) is None:
                left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
                if not self._poll.poll(left):
                    return None
                data = self._socket.recv(_READ_BYTES)
                if not data:
                    raise TransientError("bus: the connection was closed")
                self._parser.add_data(data)
        except (OSError, ValueError, KeyError, IndexError, AssertionError, struct.error) as error:
            raise TransientError(f"bus: {error}"[:300]) from error
        return message


def _body(message: Message) -> Any:
    if message.header.message_type is MessageType.error:
        name = str(message.header.fields.get(HeaderFields.error_name, "error"))
        text = str(message.body[0]) if message.body else ""
        return BusRefusalError(f"{name}: {text}"[:300])
    return message.body


def hello() -> bytes:
    """The first call on every connection."""
    return bytes(new_method_call(_BUS, "Hello").serialise(serial=1))


def add_match(rule: str) -> bytes:
    """Ask the bus for the signals that fit ``rule``."""
    return bytes(new_method_call(_BUS, "AddMatch", "s", (rule,)).serialise(serial=1))


def manager_call(method: str, signature: str = "", body: tuple[Any, ...] = ()) -> bytes:
    """A call to systemd's manager."""
    address = DBusAddress(MANAGER_PATH, SYSTEMD, MANAGER)
    return bytes(new_method_call(address, method, signature or None, body).serialise(serial=1))


@functools.lru_cache(maxsize=1024)  # 64 units with 6 properties each, and each is asked every few seconds
def get_property(path: str, interface: str, name: str, service: str = SYSTEMD) -> bytes:
    """A call for one property; the answer's body is ``((signature, value),)``."""
    address = DBusAddress(path, service, PROPERTIES)
    return bytes(new_method_call(address, "Get", "ss", (interface, name)).serialise(serial=1))
