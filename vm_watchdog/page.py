"""The dashboard's page, rendered on the server. Everything in it is escaped: names come from VMs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from vm_watchdog.api_models import FleetView, VmSummary

_WEB = Path(__file__).parent / "web"


def render_fleet(view: FleetView, rows: Sequence[VmSummary]) -> str:
    """Return the fleet's page: why nobody may act, where that is so, then what needs people first."""
    needing = sum(1 for row in rows if row.severity > 0)
    page: str = _template("fleet.html").render(view=view, rows=rows, needing=needing)
    return page


@cache
def _template(name: str) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415 - pages are rare

    environment = Environment(
        loader=FileSystemLoader(_WEB), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(name)
