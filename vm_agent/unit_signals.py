"""Listens to systemd on the bus and rings when a watched unit changed. Looks at nothing itself.

The bus filters: an unrelated unit's signal never reaches this process. ``UnitNew`` and ``UnitRemoved`` are
left out on purpose: asking systemd for a unit that is not loaded loads and drops it, so the sampler's own
questions would wake it again and again. ``JobRemoved`` tells of starts, the properties of all else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from jeepney import HeaderFields, Message

from vm_agent.bus_units import list_units
from vm_agent.systemd_bus import (
    MANAGER,
    MANAGER_PATH,
    PROPERTIES,
    SYSTEMD,
    Bus,
    BusRefusalError,
    add_match,
    manager_call,
)
from vm_health.backoff import BackoffPolicy, delay
from vm_health.errors import TransientError

_LOG = logging.getLogger(__name__)
_TIMEOUT_SECONDS = 2.0
_RETRIES = BackoffPolicy((0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0))
_UNIT = f"{SYSTEMD}.Unit"


class UnitSignals:
    """A thread that hears of every change of ``units``; when the bus goes away it listens to the next one."""

    def __init__(
        self,
        bus_path: str,
        units: Sequence[str],
        on_change: Callable[[], None],
        on_listening: Callable[[], None],
    ) -> None:
        self._bus_path = bus_path
        self._units = tuple(units)
        self._on_change = on_change
        self._on_listening = on_listening
        self._states: dict[str, tuple[Any, ...]] = {}
        self._listening = False
        self._heard = 0

    @property
    def listening(self) -> bool:
        """Whether changes are heard now."""
        return self._listening

    def changes(self) -> int | None:
        """Return how often something was heard, None while nobody listens."""
        return self._heard if self._listening else None

    def start(self) -> None:
        """Begin to listen, or to try to."""
        threading.Thread(target=self._run, name="unit-signals", daemon=True).start()

    def _run(self) -> None:
        attempt = 0
        while True:
            began = time.monotonic()
            try:
                self._listen()
            except TransientError as error:
                if self._listening or attempt == 0:
                    _LOG.info("changes of units are not heard", extra={"reason": str(error)})
                attempt = (
                    1 if self._listening and time.monotonic() - began > _TIMEOUT_SECONDS else attempt + 1
                )
                self._listening = False
            time.sleep(delay(attempt, _RETRIES))

    def _listen(self) -> None:
        bus = Bus(self._bus_path, _TIMEOUT_SECONDS)
        try:
            self._subscribe(bus)
            self._listening = True
            _LOG.info("changes of units are heard", extra={"units": len(self._units)})
            self._on_listening()
            self._tell()  # what happened while nobody listened
            while True:
                message = bus.receive(None)
                if message is not None and self.is_news(message):
                    self._tell()
        finally:
            bus.close()

    def _tell(self) -> None:
        self._heard += 1
        self._on_change()

    def _subscribe(self, bus: Bus) -> None:
        rows = list_units(bus, self._units, _TIMEOUT_SECONDS)
        self._states = {row[6]: (row[3], row[4], None) for row in rows}
        requests = [add_match(rule) for rule in rules(self._units, [row[6] for row in rows])]
        for answer in bus.ask([*requests, manager_call("Subscribe")], _TIMEOUT_SECONDS):
            if isinstance(answer, BusRefusalError):
                raise answer

    def is_news(self, message: Message) -> bool:
        """Tell whether a signal says that a state changed; a unit's status text, for one, is no news.

        Raises:
            TransientError: systemd left the bus or came anew; then nobody is subscribed any longer.
        """
        fields, body = message.header.fields, message.body
        member = fields.get(HeaderFields.member)
        if member == "NameOwnerChanged":
            raise TransientError("bus: systemd is connected anew")
        if member == "Reloading":
            return bool(body == (False,))
        if member != "PropertiesChanged":
            return bool(member == "JobRemoved")
        changed, path = body[1], fields.get(HeaderFields.path, "")
        state = tuple(changed.get(name, ("", None))[1] for name in ("ActiveState", "SubState"))
        entered = changed.get("ActiveEnterTimestampMonotonic", ("", None))[1]
        known = self._states.get(path)
        self._states[path] = (*state, entered)
        # The first signal has a time of entering to compare with, the listing had none.
        return known is None or known[:2] != state or known[2] not in (None, entered)


def rules(units: Sequence[str], paths: Sequence[str]) -> list[str]:
    """Return the match rules for ``units`` and their object paths; the bus allows a few hundred."""
    systemd = f"type='signal',sender='{SYSTEMD}'"
    manager = f"{systemd},path='{MANAGER_PATH}',interface='{MANAGER}'"
    return [
        f"type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='{SYSTEMD}'",
        f"{manager},member='Reloading'",
        *(f"{manager},member='JobRemoved',arg2='{unit}'" for unit in units),
        *(
            f"{systemd},path='{path}',interface='{PROPERTIES}',member='PropertiesChanged',arg0='{_UNIT}'"
            for path in dict.fromkeys(paths)
        ),
    ]
