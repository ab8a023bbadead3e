"""The dashboard's page, rendered on the server. Everything in it is escaped: names come from VMs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from vm_watchdog.ports import TickRecord

_WEB = Path(__file__).parent / "web"


def render_fleet(rows: Sequence[dict[str, Any]], record: TickRecord | None, now: datetime) -> str:
    """Return the fleet's page: what needs people first."""
    needing = sum(1 for row in rows if row["severity"] > 0)
    age = None if record is None else (now - record.finished_at).total_seconds()
    troubles = () if record is None else record.troubles
    page: str = _template("fleet.html").render(
        rows=rows, needing=needing, now=now, tick_age=age, troubles=troubles
    )
    return page


@cache
def _template(name: str) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415 - pages are rare

    environment = Environment(
        loader=FileSystemLoader(_WEB), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(name)
