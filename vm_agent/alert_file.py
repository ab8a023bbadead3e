"""What must not be forgotten of alerts: the open incident, and what is still to be sent: ``alerts.json``."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from vm_agent.files import read_bounded, write_atomically
from vm_health.errors import WireError
from vm_health.fields import Fields, load_object
from vm_health.state import Notice, VmState
from vm_health.state_codec import decode_notice, decode_state, encode_notice, encode_state

FILE_NAME = "alerts.json"
_MAX_BYTES = 1_000_000
_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Unsent:
    """One notice for one channel."""

    channel: str
    notice: Notice


@dataclass(frozen=True, slots=True)
class AlertMemory:
    """The state of this VM as alerts see it, and what waits, oldest first."""

    state: VmState = field(default_factory=VmState)
    unsent: Sequence[Unsent] = ()


class AlertFile:
    """Keeps one ``AlertMemory`` in a directory."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self.path = os.path.join(directory, FILE_NAME)

    def load(self) -> AlertMemory:
        """Return what was kept, an empty memory where there is nothing.

        Raises:
            OSError: it is there and cannot be read.
            WireError: it is damaged.
        """
        try:
            text = read_bounded(self.path, _MAX_BYTES).decode(errors="replace")
        except FileNotFoundError:
            return AlertMemory()
        except ValueError as error:
            raise WireError([str(error)]) from error
        faults: list[str] = []
        fields = Fields(load_object(text, _MAX_BYTES, faults), "", faults)
        if fields.whole("schema") != _SCHEMA:
            fields.fault("schema", str(_SCHEMA))
        state = fields.text("state", max_chars=_MAX_BYTES)
        unsent = [
            (item.text("channel"), item.text("notice", max_chars=_MAX_BYTES))
            for item in fields.children("unsent")
        ]
        if faults:
            raise WireError(faults[:20])
        return AlertMemory(
            decode_state(state), [Unsent(channel, decode_notice(text)) for channel, text in unsent]
        )

    def save(self, memory: AlertMemory) -> None:
        """Keep ``memory``; on return it is on the disk.

        Raises:
            OSError: it is not.
        """
        os.makedirs(self._directory, mode=0o750, exist_ok=True)
        content = {
            "schema": _SCHEMA,
            "state": encode_state(memory.state),
            "unsent": [
                {"channel": item.channel, "notice": encode_notice(item.notice)} for item in memory.unsent
            ],
        }
        write_atomically(self.path, json.dumps(content).encode())
