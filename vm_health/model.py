"""The words of the field as data: samples and reports from a VM, evidence about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Status(StrEnum):
    """How a VM is. The first four are also a check's exit code."""

    HEALTHY = "HEALTHY"
    WARNING = "WARNING"
    CRITICAL = "CRITICAL"
    UNKNOWN = "UNKNOWN"
    STOPPED = "STOPPED"
    MAINTENANCE = "MAINTENANCE"

    @property
    def exit_code(self) -> int:
        """0 HEALTHY, 1 WARNING, 2 CRITICAL, 3 for everything that is not known (as monitoring plugins do)."""
        return {"HEALTHY": 0, "WARNING": 1, "CRITICAL": 2}.get(self.value, 3)

    @property
    def severity(self) -> int:
        """Order for "worse than"; UNKNOWN lies between fine and WARNING, for it is no evidence of harm."""
        return {"WARNING": 2, "CRITICAL": 3, "UNKNOWN": 1}.get(self.value, 0)

    @property
    def needs_people(self) -> bool:
        """Whether this status is worth an alert."""
        return self.severity > 0


def worst(statuses: Iterable[Status]) -> Status:
    """Return the most severe status, HEALTHY for none."""
    return max(statuses, key=lambda status: status.severity, default=Status.HEALTHY)


class Cause(StrEnum):
    """Why a status is what it is: the codes of findings and of verdicts."""

    OK = "ok"
    SERVICE_DOWN = "service_down"
    CRASH_LOOP = "crash_loop"
    DISK_USAGE = "disk_usage"
    INODE_USAGE = "inode_usage"
    MEMORY_USAGE = "memory_usage"
    HEARTBEAT_MISSING = "heartbeat_missing"
    HEARTBEAT_STALE = "heartbeat_stale"
    LOG_ERRORS = "log_errors"
    GIT_OUT_OF_SYNC = "git_out_of_sync"
    CLOCK_UNSYNCHRONIZED = "clock_unsynchronized"
    COLLECTOR_FAILED = "collector_failed"
    SAMPLE_STALE = "sample_stale"
    ENDPOINT_UNREACHABLE = "endpoint_unreachable"
    TELEMETRY_DELAYED = "telemetry_delayed"
    TELEMETRY_UNAVAILABLE = "telemetry_unavailable"
    VM_SILENT = "vm_silent"
    NO_SECOND_WITNESS = "no_second_witness"
    POWERED_OFF = "powered_off"
    POWER_CHANGING = "power_changing"
    POWER_UNKNOWN = "power_unknown"
    SERVICE_STARTING = "service_starting"
    MAINTENANCE = "maintenance"
    DEPLOY_LOCK = "deploy_lock"
    SCHEDULED_EVENT = "scheduled_event"
    VM_UPDATING = "vm_updating"
    VM_GONE = "vm_gone"
    INVENTORY_SUSPECT = "inventory_suspect"
    TELEMETRY_STALE_FOR_ALL = "telemetry_stale_for_all"
    CANARY_FAILED = "canary_failed"
    MASS_FAILURE = "mass_failure"


@dataclass(frozen=True, slots=True)
class UnitSample:
    """One systemd unit, in systemd's own words (``systemctl show``). ``started_at`` is when it last left
    "inactive" (InactiveExitTimestamp): a unit that is still starting has no ``active_since`` yet."""

    name: str
    load_state: str
    active_state: str
    sub_state: str
    service_type: str = "simple"
    result: str = "success"
    restarts: int = 0
    recent_restarts: int = 0
    main_pid: int = 0
    active_since: datetime | None = None
    memory_bytes: int = 0
    started_at: datetime | None = None

    @property
    def is_up(self) -> bool:
        """Active and running; "exited" counts as up only for a oneshot, whose job it is to end."""
        if self.active_state not in ("active", "reloading", "refreshing"):
            return False
        return self.sub_state != "exited" or self.service_type == "oneshot"


@dataclass(frozen=True, slots=True)
class DiskSample:
    """One mounted file system."""

    mount: str
    total_bytes: int
    free_bytes: int
    used_percent: float
    inodes_used_percent: float | None = None


@dataclass(frozen=True, slots=True)
class MemorySample:
    """Main memory; ``used_percent`` counts what is not available, as the kernel estimates it."""

    total_bytes: int
    available_bytes: int
    used_percent: float
    swap_total_bytes: int = 0
    swap_used_percent: float = 0.0


@dataclass(frozen=True, slots=True)
class SystemSample:
    """The machine as a whole. ``pressure`` maps ``cpu|memory|io`` and ``some|full`` (``"io.some"``) to the
    share of the last minute, in percent, in which tasks waited for that resource (the kernel's PSI, avg60).

    ``clock_synchronized`` is None where nothing on the machine tells.
    """

    cpu_percent: float | None = None
    load1: float = 0.0
    load5: float = 0.0
    load15: float = 0.0
    cores: int = 1
    uptime_seconds: float = 0.0
    pressure: Mapping[str, float] = field(default_factory=dict)
    clock_synchronized: bool | None = None
    reboot_required: bool = False


@dataclass(frozen=True, slots=True)
class LogSample:
    """Errors that came into a unit's journal or a log file lately; ``last`` is the newest, cut."""

    source: str
    errors: int
    last: str = ""


@dataclass(frozen=True, slots=True)
class GitSample:
    """A deployed checkout, judged against its upstream as last fetched; ``problem`` says why it isn't."""

    path: str
    commit: str = ""
    branch: str = ""
    is_dirty: bool = False
    behind: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ScheduledEvent:
    """A maintenance that Azure announces through the metadata service; relayed, never approved."""

    event_id: str
    event_type: str
    status: str
    not_before: datetime | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class RepairSample:
    """Where the agent's own remediation of a unit stands; the watchdog holds back while it is at it."""

    unit: str
    attempts: int
    not_before: datetime | None = None
    circuit_open: bool = False


@dataclass(frozen=True, slots=True)
class HeartbeatSample:
    """One heartbeat file; ``age_seconds`` is None where the file is missing or unreadable."""

    path: str
    age_seconds: float | None
    problem: str = ""
    unit: str = ""


@dataclass(frozen=True, slots=True)
class DeployLock:
    """A deployment on the VM that wants no repair until ``until``; ``holder`` says whose it is."""

    until: datetime
    holder: str = ""


@dataclass(frozen=True, slots=True)
class CollectorFailure:
    """A collector that failed or hung: a finding, never the end of a sample."""

    collector: str
    message: str


@dataclass(frozen=True, slots=True)
class Sample:
    """Everything that one round of collecting saw."""

    taken_at: datetime
    units: tuple[UnitSample, ...] = ()
    disks: tuple[DiskSample, ...] = ()
    memory: MemorySample | None = None
    heartbeats: tuple[HeartbeatSample, ...] = ()
    failures: tuple[CollectorFailure, ...] = ()
    system: SystemSample | None = None
    logs: tuple[LogSample, ...] = ()
    checkouts: tuple[GitSample, ...] = ()
    scheduled_events: tuple[ScheduledEvent, ...] = ()
    deploy_lock: DeployLock | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, with its numbers."""

    code: Cause
    status: Status
    subject: str
    message: str
    value: float | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class HealthReport:
    """A sample, what the rules say of it, and who says so. The unit of telemetry and of ``/health``.

    ``age_seconds`` is the sample's age on the VM's own monotonic clock when the report was sent, so that
    the reader needs no agreement between two wall clocks.
    """

    vm_id: str
    host: str
    agent_version: str
    boot_id: str
    sequence: int
    status: Status
    findings: tuple[Finding, ...]
    sample: Sample
    age_seconds: float = 0.0
    endpoint: str = ""
    repairs: tuple[RepairSample, ...] = ()


class PowerState(StrEnum):
    """ARM's ``PowerState/…`` codes, and UNKNOWN where ARM gave none."""

    CREATING = "creating"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DEALLOCATING = "deallocating"
    DEALLOCATED = "deallocated"
    UNKNOWN = "unknown"


class ProbeOutcome(StrEnum):
    """What looking at ``/health`` gave. Only a readable report makes OK or UNHEALTHY."""

    OK = "ok"
    UNHEALTHY = "unhealthy"
    UNREACHABLE = "unreachable"
    NOT_CONFIGURED = "not_configured"


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One look at a VM's endpoint from outside; ``detail`` says what was seen in words."""

    outcome: ProbeOutcome
    detail: str = ""
    report: HealthReport | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The newest ``vm.health`` event of a VM: ``taken_at`` is the VM's clock, ``received_at`` Azure's."""

    report: HealthReport
    taken_at: datetime
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of one VM at one look.

    ``telemetry_available`` is False where the query itself failed: a missing snapshot then says nothing.
    ``maintenance`` holds who wants the VM left alone until when and why; ``is_updating`` that ARM changes it
    just now; ``stopped_by`` who stopped it, where the activity log tells; ``instance_id`` ARM's own id of
    this very machine, which a rebuilt one does not share. ``is_routine`` marks a look of the regular tick.
    """

    vm_id: str
    power: PowerState
    snapshot: Snapshot | None = None
    telemetry_available: bool = True
    probe: ProbeResult = ProbeResult(ProbeOutcome.NOT_CONFIGURED)
    maintenance: str = ""
    is_updating: bool = False
    stopped_by: str = ""
    instance_id: str = ""
    is_routine: bool = True
