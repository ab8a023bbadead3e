"""The error tree. Adapters translate what libraries raise into these; nothing above them sees the rest."""

from __future__ import annotations

from collections.abc import Iterable


class WatchdogError(Exception):
    """Base of every error this project raises on purpose."""


class ConfigError(WatchdogError):
    """Settings or policy are unusable; carries every fault that was found, not only the first."""

    def __init__(self, source: str, faults: Iterable[str]) -> None:
        self.source = source
        self.faults = tuple(faults)
        lines = "\n".join(f"  - {fault}" for fault in self.faults)
        noun = "fault" if len(self.faults) == 1 else "faults"
        super().__init__(f"{source}: {len(self.faults)} {noun}\n{lines}")


class WireError(WatchdogError):
    """A report does not have the agreed shape; carries every fault that was found."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("not a health report: " + "; ".join(self.faults))


class TransientError(WatchdogError):
    """Another try later may work; ``retry_after_seconds`` is what the other side asked for, if it did."""

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(message)


class PermanentError(WatchdogError):
    """The same call will fail again."""


class NotFoundError(PermanentError):
    """The thing is not there."""


class ConflictError(WatchdogError):
    """Another instance changed the state first. Losing this race is normal."""
