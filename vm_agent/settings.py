"""The one table of the agent's settings: name, kind, default and help.

Parsing, the documentation and ``.env.example`` come from here. Reads nothing; ``config.py`` does.
"""

from __future__ import annotations

from vm_agent import kinds, urls
from vm_health.rules import MAX_STARTUP_GRACE_SECONDS, Thresholds
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
    Setting(
        "STARTUP_GRACE_SECONDS",
        f"{_LIMITS.startup_grace_seconds:g}",
        number(0, MAX_STARTUP_GRACE_SECONDS),
        "A unit that starts counts as down only after this time, and its heartbeat file is not judged before;"
        " 0: at once.",
    ),
    Setting(
        "LOG_ERRORS",
        str(_LIMITS.log_errors),
        whole(0, 1000),
        "More recent errors in one log than this are a WARNING.",
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
        kinds.heartbeats,
        "Files that services touch to show that they still work: paths, or unit=path, separated by commas.",
        absent=(),
    ),
    Setting(
        "UNIT_SOURCE",
        "auto",
        choice("auto", "dbus", "systemctl"),
        "How units are looked at. dbus: a change is seen at once; systemctl: at the next sample; auto: the"
        " former where it can be had.",
    ),
    Setting(
        "SYSTEM_BUS",
        "unix:path=/run/dbus/system_bus_socket",
        kinds.bus_address,
        "D-Bus address of the system bus. Also read as DBUS_SYSTEM_BUS_ADDRESS, as other programs name it.",
        alias="DBUS_SYSTEM_BUS_ADDRESS",
    ),
    Setting(
        "DISK_MOUNTS",
        "",
        kinds.paths,
        "Mount points whose usage is watched, separated by commas; empty: all file systems on disks.",
        absent=(),
    ),
    Setting(
        "JOURNAL",
        "auto",
        choice("auto", "on", "off"),
        "Whether errors (priority err and worse) in the units' journal are counted; auto: where that may be"
        " read.",
    ),
    Setting(
        "LOG_FILES",
        "",
        kinds.paths,
        "Log files in which errors are counted, separated by commas; read from their end on.",
        absent=(),
    ),
    Setting(
        "LOG_PATTERN",
        r"\b(ERROR|CRITICAL|FATAL|Traceback)\b",
        kinds.pattern,
        "What makes a line of LOG_FILES an error: a regular expression (Python's).",
    ),
    Setting(
        "LOG_WINDOW_SECONDS", "900", number(60, 86_400), "How long an error counts as recent, in seconds."
    ),
    # Each time costs a journalctl, about 12 ms of CPU: at 60 s that would be half of what the agent takes.
    Setting("LOG_INTERVAL_SECONDS", "120", number(1, 3600), "How often logs are read, in seconds."),
    Setting(
        "GIT_CHECKOUTS",
        "",
        kinds.paths,
        "Deployed Git checkouts, separated by commas: changed by hand, or behind what was last fetched, is a"
        " WARNING.",
        absent=(),
    ),
    Setting(
        "GIT_INTERVAL_SECONDS", "300", number(1, 86_400), "How often checkouts are looked at, in seconds."
    ),
    Setting(
        "SCHEDULED_EVENTS",
        "off",
        kinds.switch,
        "on: maintenance that Azure announces for this VM is reported (never approved). Azure starts its"
        " announcements for a VM when it is first asked.",
    ),
    Setting(
        "DEPLOY_LOCK_FILE",
        "/run/vm-agent/deploy.lock",
        kinds.path_or_off,
        "A deployment's lock, as `vm-agent lock` writes it: while it holds, nothing is restarted and no alert"
        " is sent. off: no lock is heeded.",
    ),
    Setting("SAMPLE_INTERVAL_SECONDS", "15", number(0.1, 3600), "How often the VM is looked at, in seconds."),
    Setting(
        "REPORT_INTERVAL_SECONDS",
        "60",
        number(0.1, 3600),
        "How often a report is sent while nothing changes, in seconds; a change is sent at once.",
    ),
    Setting(
        "METRICS_INTERVAL_SECONDS",
        "300",
        number(1, 3600),
        "How often metrics are sent, in seconds: count, sum, least and most of the samples since.",
    ),
    *LIMITS,
    Setting("LISTEN_ADDRESS", "0.0.0.0", kinds.address, "Address that /health is served on."),  # noqa: S104 - the watchdog probes from outside
    Setting("LISTEN_PORT", "8080", whole(0, 65_535), "Port that /health is served on; 0 takes a free one."),
    Setting(
        "TOKEN",
        "",
        kinds.token,
        "Who asks for /metrics or / must send it: as bearer token, or as password of basic authentication.",
        absent=Secret(),
        secret=True,
    ),
    Setting(
        "TLS_CERT_FILE",
        "",
        kinds.path,
        "Certificate chain (PEM): everything is served over https then. Needs TLS_KEY_FILE. Renewed files"
        " count.",
    ),
    Setting("TLS_KEY_FILE", "", kinds.path, "Private key (PEM) for TLS_CERT_FILE, without a password."),
    Setting(
        "MAX_CONNECTIONS",
        "1200",
        whole(1, 50_000),
        "Most connections to the endpoint at once; one more closes the one that has been silent longest.",
    ),
    Setting(
        "REQUEST_TIMEOUT_SECONDS",
        "5",
        number(0.1, 300),
        "A client must have sent its request within this time from the first byte.",
    ),
    Setting(
        "IDLE_TIMEOUT_SECONDS",
        "75",
        number(0.1, 3600),
        "A connection without a request is closed after this time; longer than the scrape interval saves"
        " work.",
    ),
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
    Setting(
        "SPOOL_MAX_BYTES",
        "10000000",
        whole(100_000, 10_000_000_000),
        "Most bytes of telemetry that wait in STATE_DIR/spool while it can't be sent; the oldest go first.",
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
    Setting(
        "RESTART",
        "off",
        kinds.switch,
        "on: the agent itself restarts units that are down and in ALLOW_LIST; also `--restart`.",
    ),
    Setting(
        "ALERT",
        "off",
        kinds.switch,
        "on: the agent itself sends alerts, beside the watchdog's; also `--alert`. Needs ALERT_WEBHOOK_URL.",
    ),
    Setting(
        "ALERT_WEBHOOK_URL",
        "",
        urls.secret_url,
        "Gets one JSON object per alert; https, or http to a loopback or private address.",
        absent=Secret(),
        secret=True,
    ),
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
    Setting(
        "LOG_FILE",
        "",
        kinds.log_file,
        "Also log there, such as logs/vm_health.log: 1 MB a file, five old ones are kept.",
    ),
)

CONFIG_HELP = "File with the same settings in lower case (TOML). The environment wins. It may be missing."


def env_example() -> str:
    """Return the settings with their defaults as the agent's part of ``.env.example``."""
    lines = [f"# {CONFIG_HELP}", f"#{PREFIX}{CONFIG_NAME}={DEFAULT_CONFIG_FILE}"]
    return "\n".join([*lines, *example_lines(SETTINGS, PREFIX)]) + "\n"
