"""Where the state of units comes from: the bus, or ``systemctl`` where that is out of reach. Says so once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from vm_agent import systemctl
from vm_health.errors import TransientError
from vm_health.model import UnitSample

_LOG = logging.getLogger(__name__)
BUS_TIMEOUT_SECONDS = 2.0
SHOW_TIMEOUT_SECONDS = 5.0
_BUS_AGAIN_SECONDS = 30.0


class Shows(Protocol):
    """One way to look at units."""

    def show(self, units: Sequence[str]) -> tuple[UnitSample, ...]:
        """Return the state of all ``units``, in their order, or raise a ``TransientError``."""
        ...


class Systemctl:
    """By one ``systemctl show``."""

    def show(self, units: Sequence[str]) -> tuple[UnitSample, ...]:
        """Return the state of all ``units``."""
        return systemctl.show(units, SHOW_TIMEOUT_SECONDS)


class UnitSource:
    """The bus where there is one, else the command; a bus that failed is tried again every 30 s.

    ``bus`` or ``command`` may be None: then there is only the other.
    """

    def __init__(
        self, bus: Shows | None, command: Shows | None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._bus = bus
        self._command = command
        self._monotonic = monotonic
        self._bus_again_at = 0.0
        self._told = ""

    @property
    def in_use(self) -> str:
        """``dbus`` or ``systemctl``: what gave the last answer, "" before the first."""
        return self._told

    def retry_bus(self) -> None:
        """Try the bus at the next look: somebody saw that it is back."""
        self._bus_again_at = 0.0

    def show(self, units: Sequence[str]) -> tuple[UnitSample, ...]:
        """Return the state of all ``units``.

        Raises:
            TransientError: nothing gave an answer; the text names each way that was tried.
        """
        problems = []
        if self._bus is not None and (self._command is None or self._monotonic() >= self._bus_again_at):
            try:
                return self._told_by("dbus", self._bus.show(units), "")
            except TransientError as error:
                problems.append(str(error))
                self._bus_again_at = self._monotonic() + _BUS_AGAIN_SECONDS
        if self._command is not None:
            try:
                return self._told_by("systemctl", self._command.show(units), "; ".join(problems))
            except TransientError as error:
                problems.append(str(error))
        raise TransientError("; ".join(problems))

    def _told_by(self, name: str, found: tuple[UnitSample, ...], reason: str) -> tuple[UnitSample, ...]:
        if name != self._told:
            self._told = name
            _LOG.info("units are read", extra={"source": name, **({"reason": reason} if reason else {})})
        return found
