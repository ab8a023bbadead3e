"""What Run Command runs in a VM: one constant script. Names go in as named parameters only.

Both lanes turn *named* parameters into environment variables; unnamed ones are appended unquoted to a
shell line (Azure/run-command-handler-linux) and are never used.
"""

from __future__ import annotations

from vm_health.names import is_token, is_unit_name
from vm_health.state import RestartUnit

COMMAND_PREFIX = "watchdog-"  # managed commands are resources of the VM: these are ours
TIMEOUT_SECONDS = 120
RESULT_MARKER = "VM_AGENT_RESULT "
SCRIPT = (
    "PATH=/opt/vm-agent/bin:$PATH",
    "if ! command -v vm-agent >/dev/null; then",
    """  echo 'VM_AGENT_RESULT {"result":"failed","reason":"vm-agent is not installed on this VM"}'""",
    "  exit 7",
    "fi",
    'exec vm-agent remediate --unit "$UNIT" --token "$TOKEN"',
)


def fault_of(restart: RestartUnit) -> str:
    """Say why a restart may not leave, empty where it may."""
    if not is_unit_name(restart.unit):
        return "refused: not a systemd unit name"
    return "" if is_token(restart.token) else "refused: not a token"


def parameters(restart: RestartUnit) -> list[dict[str, str]]:
    """Return the script's parameters."""
    return [{"name": "UNIT", "value": restart.unit}, {"name": "TOKEN", "value": restart.token}]
