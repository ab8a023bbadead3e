"""The generic webhook: one JSON object per alert, for whatever people have."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from vm_alerts.http import HttpRequest
from vm_alerts.message import AlertMessage

PAYLOAD_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Webhook:
    """Posts to ``url``, which counts as a secret: many services put the token into it."""

    url: str = field(repr=False)
    name: str = "webhook"

    def request(self, message: AlertMessage) -> HttpRequest:
        """Return the request that delivers ``message``; receivers deduplicate by ``key``."""
        notice = message.notice
        payload = {
            "schema": PAYLOAD_SCHEMA,
            "kind": notice.kind,
            "key": notice.key,
            "incident_id": notice.incident_id,
            "title": message.title,
            "status": notice.status,
            "cause": notice.cause,
            "vm": {"id": notice.vm_id, "name": message.vm_name},
            "subjects": list(notice.subjects),
            "reason": notice.reason,
            "attempts": notice.attempts,
            "steps": list(notice.steps),
            "opened_at": notice.opened_at.isoformat(),
            "at": notice.at.isoformat(),
            "links": {"dashboard": message.dashboard_url, "portal": message.portal_url},
        }
        body = json.dumps(payload, separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json", "X-Watchdog-Key": notice.key}
        return HttpRequest(self.url, body, headers)
