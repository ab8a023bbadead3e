"""The one table of the agent's settings: name, kind, default and help.

Parsing, the documentation and ``.env.example`` come from here. Reads nothing; ``config.py`` does.
"""

from __future__ import annotations

from vm_agent import kinds, urls
from vm_health.rules import Thresholds
from vm_health.settings_table import Secret, Setting, choice, example_lines, number, whole

PREFIX = "VM_AGENT_"
CONFIG_NAME = "CONFIG"
DEFAULT_CONFIG_FILE = "/etc/vm-agent/agent.toml"
_LIMITS = Thresholds()


LIMITS: tuple[Setting, ...] = (
    Setting(
        "DISK_WARNING_PERCENT",
        f"{_LIMITS.disk_warning_percent:g}",
        number(0, 100),
        "A disk fuller than this is a WARNING.",
    ),
    Setting(
        "DISK_CRITICAL_PERCENT",
        f"{_LIMITS.disk_critical_percent:g}",
        number(0, 100),
        "A disk fuller than this is CRITICAL.",
    ),
    Setting(
        "MEMORY_WARNING_PERCENT",
        f"{_LIMITS.memory_warning_percent:g}",
        number(0, 100),
        "More memory in use than this is a WARNING.",
    ),
    Setting(
        "CRASH_LOOP_RESTARTS",
        str(_LIMITS.crash_loop_restarts),
        whole(1, 10_000),
        "More restarts of one unit than this within 15 minutes are a WARNING.",
    ),
    Setting(
        "HEARTBEAT_MAX_AGE_SECONDS",
        f"{_LIMITS.heartbeat_max_age_seconds:g}",
        number(1, 10_000_000),
        "A heartbeat file older than this is a WARNING.",
    ),
)

SETTINGS: tuple[Setting, ...] = (
    Setting(
        "UNITS",
        "",
        kinds.units,
        'systemd units that must be up, separated by commas; a name without suffix gets ".service".',
        absent=(),
    ),
    Setting(
        "HEARTBEAT_FILES",
        "",
        kinds.paths,
        "Files that services touch to show that they still work, separated by commas.",
        absent=(),
    ),
    Setting("DISK_MOUNTS", "/", kinds.paths, "Mount points whose usage is watched, separated by commas."),
    Setting("SAMPLE_INTERVAL_SECONDS", "15", number(0.1, 3600), "How often the VM is looked at, in seconds."),
    Setting(
        "REPORT_INTERVAL_SECONDS",
        "60",
        number(0.1, 3600),
        "How often a report is sent while nothing changes, in seconds; a change is sent at once.",
    ),
    *LIMITS,
    Setting("LISTEN_ADDRESS", "0.0.0.0", kinds.address, "Address that /health is served on."),  # noqa: S104 - the watchdog probes from outside
    Setting("LISTEN_PORT", "8080", whole(0, 65_535), "Port that /health is served on; 0 takes a free one."),
    Setting(
        "ENDPOINT",
        "",
        urls.plain_url,
        "URL under which the watchdog reaches this agent; empty: http://<first address>:<port>.",
    ),
    Setting(
        "APPLICATIONINSIGHTS_CONNECTION_STRING",
        "",
        urls.connection_string,
        "Where telemetry goes; empty: nowhere. Also read without the prefix, as Azure's own tools name it.",
        absent=None,
        secret=True,
        alias="APPLICATIONINSIGHTS_CONNECTION_STRING",
    ),
    Setting(
        "TELEMETRY_AUTH",
        "none",
        choice("none", "entra"),
        "none: the instrumentation key suffices. entra: a token of the VM's managed identity is sent too.",
    ),
    Setting("IMDS_URL", "http://169.254.169.254", urls.url, "Azure's metadata service: VM id and tokens."),
    Setting("VM_ID", "", kinds.vm_id, "ARM id of this VM; empty: asked from the metadata service."),
    Setting(
        "NUDGE_URL",
        "",
        urls.url,
        "Called on every change, so that the watchdog looks at once; empty: not called.",
    ),
    Setting("NUDGE_KEY", "", Secret, "Function key for NUDGE_URL.", absent=Secret(), secret=True),
    Setting("STATE_DIR", "/var/lib/vm-agent", kinds.path, "Directory that the running agent may write to."),
    Setting(
        "ALLOW_LIST",
        "/etc/vm-agent/allow-units",
        kinds.path,
        "Units that `remediate` may restart, one a line; root's own file. vm-agent.service always may be.",
    ),
    Setting(
        "ROOT_STATE_DIR",
        "/var/lib/vm-agent-remediate",
        kinds.path,
        "Where `remediate` keeps used tokens; root's own, so that the agent's user can't forge them.",
    ),
)

CONFIG_HELP = "File with the same settings in lower case (TOML). The environment wins. It may be missing."


def env_example() -> str:
    """Return the settings with their defaults as the agent's part of ``.env.example``."""
    lines = [f"# {CONFIG_HELP}", f"#{PREFIX}{CONFIG_NAME}={DEFAULT_CONFIG_FILE}"]
    return "\n".join([*lines, *example_lines(SETTINGS, PREFIX)]) + "\n"
