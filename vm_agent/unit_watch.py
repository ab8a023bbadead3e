"""The watched units' two sides: a source that is asked for their state, and signals that say when to ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from vm_agent.unit_source import BUS_TIMEOUT_SECONDS, Shows, Systemctl, UnitSource

if TYPE_CHECKING:
    from vm_agent.unit_signals import UnitSignals


class UnitWatch:
    """Wired for a choice of ``auto``, ``dbus`` or ``systemctl``; connects to nothing before it is asked."""

    def __init__(
        self, units: tuple[str, ...], choice: str, bus_path: str, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._units = units
        self._bus_path = bus_path if choice != "systemctl" else ""
        self._on_change = on_change
        self._signals: UnitSignals | None = None
        self.source = UnitSource(self._over_bus(), None if choice == "dbus" else Systemctl())

    def start(self) -> None:
        """Begin to listen for changes, where there are units and a bus is wanted."""
        if not self._units or not self._bus_path:
            return
        from vm_agent.unit_signals import UnitSignals  # noqa: PLC0415 - jeepney only where a bus is used

        self._signals = UnitSignals(self._bus_path, self._units, self._on_change, self.source.retry_bus)
        self._signals.start()

    def numbers(self) -> Mapping[str, float]:
        """Return for ``/metrics`` what gave the last sample and whether changes are heard at once."""
        if not self._units:
            return {}
        return {
            "units_dbus_active": float(self.source.in_use == "dbus"),
            "units_systemctl_active": float(self.source.in_use == "systemctl"),
            "unit_signals_active": float(self._signals is not None and self._signals.listening),
        }

    def _over_bus(self) -> Shows | None:
        if not self._bus_path:
            return None
        from vm_agent.bus_units import BusUnits  # noqa: PLC0415 - jeepney only where a bus is used

        return BusUnits(self._bus_path, BUS_TIMEOUT_SECONDS, self._changes)

    def _changes(self) -> int | None:
        return None if self._signals is None else self._signals.changes()
