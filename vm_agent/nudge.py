"""Tells the watchdog that something changed here, so that it need not wait for its next round.

A courtesy: best effort, once, from a thread of its own. The watchdog looks for itself and believes nothing.
"""

from __future__ import annotations

import json
import logging
import threading

from vm_agent.transport import exchange
from vm_health.errors import TransientError
from vm_health.settings_table import Secret

_LOG = logging.getLogger(__name__)
_TIMEOUT_SECONDS = 5.0


class Nudger:
    """Calls one URL; nudges that come while one is under way become one."""

    def __init__(self, url: str, key: Secret) -> None:
        self._url = url
        self._key = key
        self._vm_id = ""
        self._wanted = threading.Event()
        self._failing = False

    def start(self) -> None:
        """Begin to wait for nudges."""
        threading.Thread(target=self._run, name="nudge", daemon=True).start()

    def nudge(self, vm_id: str) -> None:
        """Ask for a look at ``vm_id``; returns at once. Without an id there is nothing to ask for."""
        if vm_id:
            self._vm_id = vm_id
            self._wanted.set()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            self._call()

    def _call(self) -> None:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["x-functions-key"] = self._key.reveal()
        body = json.dumps({"vm_id": self._vm_id}).encode()
        try:
            answer = exchange("POST", self._url, headers=headers, body=body, timeout_seconds=_TIMEOUT_SECONDS)
            problem = "" if answer.status < 300 else f"answer {answer.status}"  # redirects are not followed
        except TransientError as error:
            problem = str(error)
        if problem and not self._failing:
            _LOG.warning("watchdog could not be nudged, it will see by itself", extra={"reason": problem})
        self._failing = bool(problem)
