"""Writes the files that come from tables in the code: run ``make docs`` after a setting or route changed."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from vm_agent import settings as agent  # noqa: E402
from vm_health.settings_table import example_lines  # noqa: E402
from vm_watchdog import settings as watchdog  # noqa: E402
from vm_watchdog.openapi import document_text  # noqa: E402

_WATCHDOG = """\
# Settings of the watchdog, in the function app's application settings (WATCHDOG_*). Those that are commented
# out have these defaults; subscriptions, workspace and storage must be given.
"""
_AGENT = """\

# ---- the agent, on every VM ----
# Settings of the agent on a VM, in /etc/vm-agent/agent.env or in the environment. All may be left out: then
# it watches disks and memory, serves http://0.0.0.0:8080/health and reports to nobody.
"""


def env_example() -> str:
    """Return the text of ``.env.example``."""
    lines = "\n".join(example_lines(watchdog.SETTINGS, watchdog.PREFIX))
    return f"{_WATCHDOG}{lines}\n{_AGENT}{agent.env_example()}"


if __name__ == "__main__":
    (ROOT / ".env.example").write_text(env_example(), encoding="utf-8")
    (ROOT / "docs" / "openapi.json").write_text(document_text(), encoding="utf-8")
