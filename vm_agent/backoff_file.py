"""Where local repair stands, kept over restarts of the agent and the machine: ``restart_backoff.json``.

A file that can't be read or understood is never taken for an empty one: forgotten attempts would begin anew,
and a unit that breaks the machine at each start would be started for ever.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from vm_agent.files import read_bounded, write_atomically
from vm_health.backoff import delay
from vm_health.errors import PermanentError, WireError
from vm_health.policy import Policy
from vm_health.state import UnitState
from vm_health.state_codec import MAX_STATE_CHARS, decode_units, encode_units

FILE_NAME = "restart_backoff.json"


class BackoffFile:
    """The states of all units in one file; an empty one is no file."""

    def __init__(self, directory: str) -> None:
        self.path = os.path.join(directory, FILE_NAME)

    def exists(self) -> bool:
        """Tell whether there is anything to load."""
        return os.path.lexists(self.path)

    def load(self) -> dict[str, UnitState]:
        """Return what is remembered.

        Raises:
            PermanentError: the file is there and is no good; nothing may be restarted.
        """
        try:
            return decode_units(read_bounded(self.path, MAX_STATE_CHARS).decode())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise PermanentError(f"{self.path} cannot be read ({error.strerror})") from error
        except (ValueError, WireError) as error:
            advice = "remove it to begin anew"
            raise PermanentError(f"{self.path} is damaged ({str(error)[:100]}); {advice}") from error

    def save(self, units: Mapping[str, UnitState]) -> None:
        """Keep ``units``; on return they are on the disk.

        Raises:
            PermanentError: they are not; nothing may be restarted.
        """
        try:
            if units:
                write_atomically(self.path, encode_units(units).encode())
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.path)
        except OSError as error:
            raise PermanentError(f"{self.path} cannot be written ({error.strerror})") from error


def after_clock_jump(state: UnitState, policy: Policy, now: datetime) -> UnitState:
    """Return ``state`` with no moment that the clock, having been set back, will not reach for long."""
    wait = timedelta(seconds=delay(state.attempts + 1, policy.backoff) * (1 + policy.backoff.jitter_fraction))
    if state.not_before is not None and state.not_before > now + wait:
        state = replace(state, not_before=now + wait)
    if state.last_attempt_at is not None and state.last_attempt_at > now:
        state = replace(state, last_attempt_at=now)
    if state.up_since is not None and state.up_since > now:
        state = replace(state, up_since=now)
    return state
