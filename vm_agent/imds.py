"""Azure's instance metadata service: which VM this is, and tokens of its managed identity.

It is plain HTTP on a link-local address by Azure's design and is never asked through a proxy.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from vm_agent.transport import exchange
from vm_health.backoff import BackoffPolicy, delay
from vm_health.errors import TransientError
from vm_health.names import is_vm_id

_LOG = logging.getLogger(__name__)
_TIMEOUT_SECONDS = 5.0
_RENEW_BEFORE_SECONDS = 300.0
_RETRIES = BackoffPolicy((1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0))
MONITOR_RESOURCE = "https://monitor.azure.com/"


class Imds:
    """Asks the metadata service; keeps nothing."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def vm_id(self) -> str:
        """Return this VM's ARM id in lower case.

        Raises:
            TransientError: no answer, or one without a usable id.
        """
        found = str(
            self._get("/metadata/instance/compute?api-version=2021-02-01").get("resourceId", "")
        ).lower()
        if not is_vm_id(found):
            raise TransientError(f"metadata service: resourceId is {found[:200]!r}, not a VM's id")
        return found

    def token(self, resource: str) -> tuple[str, float]:
        """Return a token for ``resource`` and for how many seconds it holds.

        Raises:
            TransientError: no answer, or one without a token.
        """
        found = self._get(f"/metadata/identity/oauth2/token?api-version=2018-02-01&resource={resource}")
        token = found.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token:
            raise TransientError("metadata service: the answer holds no access_token")
        try:
            return token, float(found["expires_in"])
        except (KeyError, TypeError, ValueError):
            return token, 0.0  # used once and asked again

    def scheduled_events(self) -> dict[str, Any]:
        """Return the document of announced maintenance.

        Raises:
            TransientError: no answer; the first one after a boot may take minutes.
        """
        return self._get("/metadata/scheduledevents?api-version=2020-07-01")

    def _get(self, target: str) -> dict[str, Any]:
        answer = exchange(
            "GET", self._url + target, headers={"Metadata": "true"}, timeout_seconds=_TIMEOUT_SECONDS
        )
        if answer.status != 200:
            raise TransientError(f"metadata service: answer {answer.status}")
        try:
            found = json.loads(answer.body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise TransientError("metadata service: the answer is not a JSON object")
        return found


class TokenCache:
    """Keeps one token until five minutes before it ends."""

    def __init__(self, imds: Imds, resource: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._imds = imds
        self._resource = resource
        self._monotonic = monotonic
        self._token = ""
        self._renew_at = 0.0

    def token(self) -> str:
        """Return a token that still holds for a while.

        Raises:
            TransientError: a new one is needed and was not to be had.
        """
        if not self._token or self._monotonic() >= self._renew_at:
            token, holds_seconds = self._imds.token(self._resource)
            self._renew_at = self._monotonic() + holds_seconds - _RENEW_BEFORE_SECONDS
            self._token = token
        return self._token

    def forget(self) -> None:
        """Ask anew next time: the token was refused."""
        self._token = ""


class VmIdentity:
    """This VM's ARM id: as configured, else asked for in the background until somebody answers."""

    def __init__(self, configured: str, imds: Imds) -> None:
        self._vm_id = configured
        self._imds = imds

    def vm_id(self) -> str:
        """Return the id, "" as long as it is not known."""
        return self._vm_id

    def start(self) -> None:
        """Begin to ask, where there is something to ask for."""
        if not self._vm_id:
            threading.Thread(target=self._ask, name="vm-identity", daemon=True).start()

    def _ask(self) -> None:
        attempt = 0
        while not self._vm_id:
            try:
                self._vm_id = self._imds.vm_id()
                _LOG.info("metadata service told the VM's id", extra={"vm_id": self._vm_id})
            except TransientError as error:
                attempt += 1
                if attempt == 1:
                    _LOG.warning("VM's id is not known yet, asking on", extra={"reason": str(error)})
                time.sleep(delay(attempt, _RETRIES))
