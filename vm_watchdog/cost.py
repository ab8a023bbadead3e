"""What a fleet costs a month, computed from sizes as they are really encoded and dated list prices. Pure.

An estimate that says what it rests on: every assumption is a named number, and whatever could not be verified
is marked. The cost of the VMs themselves is not the watchdog's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from vm_watchdog.cost_sizes import METRIC_BYTES, event_bytes, metric_count, typical_report

MONTH_SECONDS = 730 * 3_600  # the month that Azure's own calculator has
GB = 1e9
PRICES_OF = "2026-11, US list prices in USD, without discounts"


@dataclass(frozen=True, slots=True)
class Price:
    """What ``per`` units cost, after ``free`` units a month. ``verified`` False: to be checked."""

    usd: float
    per: float
    unit: str
    free: float = 0.0
    verified: bool = True


PRICES = {
    "compute": Price(0.000026, 1, "GB-s", free=100_000),
    "executions": Price(0.40, 1e6, "executions", free=250_000),
    "tables": Price(0.00036, 10_000, "transactions"),
    "queues": Price(0.004, 10_000, "transactions", verified=False),
    "blobs": Price(0.055, 10_000, "writes", verified=False),
    "logs": Price(2.30, 1, "GB", free=5),
}


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is watched, and how often.

    Args:
        interval_seconds: from tick to tick.
        probes: whether endpoints are probed.
        report_seconds: how often an agent reports while nothing changes.
        metrics_seconds: how often an agent sends its metrics.
        units: units that an agent watches.
    """

    vms: int
    interval_seconds: float = 60.0
    probes: bool = True
    report_seconds: float = 60.0
    metrics_seconds: float = 300.0
    units: int = 5


@dataclass(frozen=True, slots=True)
class Assumptions:
    """Numbers that no setting gives. Words for people stand beside each in ``ASSUMED``."""

    instance_gb: float = 2.0
    tick_base_seconds: float = 1.5
    list_page_vms: int = 100
    list_page_seconds: float = 0.3
    cpu_seconds_a_vm: float = 0.001
    probe_seconds: float = 0.05
    probes_at_once: int = 100
    shard_vms: int = 500
    incidents_a_vm: float = 1.0
    rechecks_an_incident: float = 4.0
    alerts_an_incident: float = 2.0
    recheck_seconds: float = 2.0
    table_calls_an_incident: float = 25.0
    states_a_page: int = 1_000
    polled_queues: int = 4
    poll_seconds: float = 2.0
    own_log_bytes: int = 1_000
    own_logs_an_execution: int = 4
    billed_share: float = 0.75


ASSUMED = {
    "instance_gb": "memory of a Flex Consumption instance, GB; one instance is enough",
    "tick_base_seconds": "a tick without any VM: query, tables, queues",
    "list_page_vms": "VMs on a page of Azure Resource Manager's list (?)",
    "list_page_seconds": "seconds for such a page (?)",
    "cpu_seconds_a_vm": "CPU for one VM's look",
    "probe_seconds": "seconds for one probe",
    "probes_at_once": "probes at once (WATCHDOG_PROBE_CONCURRENCY)",
    "shard_vms": "VMs a shard (WATCHDOG_SHARD_SIZE)",
    "incidents_a_vm": "incidents a VM and month",
    "rechecks_an_incident": "looks of a single VM in an incident",
    "alerts_an_incident": "alerts an incident: fired and resolved",
    "recheck_seconds": "seconds for one such look",
    "table_calls_an_incident": "table transactions of an incident: state, history, slots",
    "states_a_page": "states that one table transaction reads",
    "polled_queues": "queues that the Functions host polls, poison queue included",
    "poll_seconds": "how often it polls each, an instance being always there",
    "own_log_bytes": "bytes of one record of the function app in its own log",
    "own_logs_an_execution": "such records an execution",
    "billed_share": "billed size as a share of the JSON that was sent",
}

NOT_COUNTED = (
    "the VMs, and traffic within their region",
    "what is stored (a year's history of 1,000 VMs is well below 1 GB)",
    "retention of logs beyond the 31 days that are included",
    "alert rules of Azure Monitor",
    "channels that cost money, such as SMS",
    "reports that agents send at once because something changed",
)


@dataclass(frozen=True, slots=True)
class Part:
    """One line of the bill; ``how`` says where the quantity comes from."""

    name: str
    price: Price
    quantity: float
    how: str

    @property
    def billed(self) -> float:
        """What is left after the free grant."""
        return max(0.0, self.quantity - self.price.free)

    @property
    def usd(self) -> float:
        """What it costs a month."""
        return self.billed / self.price.per * self.price.usd


@dataclass(frozen=True, slots=True)
class Estimate:
    """The bill of one fleet."""

    fleet: Fleet
    parts: tuple[Part, ...]
    tick_seconds: float
    report_bytes: int
    assumptions: Assumptions = field(default_factory=Assumptions)

    @property
    def usd(self) -> float:
        """What all of it costs a month."""
        return sum(part.usd for part in self.parts)


def estimate(fleet: Fleet, assumptions: Assumptions | None = None) -> Estimate:
    """Return what ``fleet`` costs a month."""
    assumed = Assumptions() if assumptions is None else assumptions
    report_bytes = event_bytes(typical_report(fleet.units))
    parts = (*_compute(fleet, assumed), *_storage(fleet, assumed), *_logs(fleet, assumed, report_bytes))
    return Estimate(fleet, parts, _tick_seconds(fleet, assumed), report_bytes, assumed)


def shards_for(vms: int, shard_vms: int) -> int:
    """Return the messages a tick is cut into, 0 where it is not cut: a power of two up to 16."""
    shards = 1
    while shards < 16 and vms > shards * shard_vms:
        shards *= 2
    return 0 if shards == 1 else shards


def _tick_seconds(fleet: Fleet, assumed: Assumptions) -> float:
    pages = math.ceil(fleet.vms / assumed.list_page_vms)
    # The shards of a tick fit into one instance's batch of the queue, and share one list of the inventory.
    probing = math.ceil(fleet.vms / assumed.probes_at_once) * assumed.probe_seconds if fleet.probes else 0.0
    return (
        assumed.tick_base_seconds
        + pages * assumed.list_page_seconds
        + fleet.vms * assumed.cpu_seconds_a_vm
        + probing
    )


def _ticks(fleet: Fleet) -> float:
    return MONTH_SECONDS / fleet.interval_seconds


def _incidents(fleet: Fleet, assumed: Assumptions) -> float:
    return fleet.vms * assumed.incidents_a_vm


def _executions(fleet: Fleet, assumed: Assumptions) -> float:
    messages = assumed.rechecks_an_incident + assumed.alerts_an_incident
    return (
        _ticks(fleet) * (1 + shards_for(fleet.vms, assumed.shard_vms)) + _incidents(fleet, assumed) * messages
    )


def _compute(fleet: Fleet, assumed: Assumptions) -> Iterator[Part]:
    tick, ticks = _tick_seconds(fleet, assumed), _ticks(fleet)
    # At least 1 s is billed, then every 0.1 s begun; a tick never costs more than the interval it lies in.
    billed = min(max(1.0, math.ceil(tick * 10) / 10), fleet.interval_seconds)
    messages = assumed.rechecks_an_incident + assumed.alerts_an_incident
    seconds = ticks * billed + _incidents(fleet, assumed) * messages * assumed.recheck_seconds
    yield Part(
        "Functions, compute", PRICES["compute"], seconds * assumed.instance_gb,
        f"{ticks:,.0f} ticks of {billed:.1f} s with {assumed.instance_gb:g} GB, and looks at single VMs",
    )  # fmt: skip
    yield Part(
        "Functions, executions", PRICES["executions"], _executions(fleet, assumed),
        f"1 a tick, {shards_for(fleet.vms, assumed.shard_vms)} shards, {messages:g} an incident",
    )  # fmt: skip


def _storage(fleet: Fleet, assumed: Assumptions) -> Iterator[Part]:
    ticks, shards = _ticks(fleet), max(1, shards_for(fleet.vms, assumed.shard_vms))
    # Each evaluation reads its states, the fleet's state and the silences; a tick writes its record.
    reads = math.ceil(fleet.vms / assumed.states_a_page) + 3 * shards + 1
    incidents = _incidents(fleet, assumed)
    yield Part(
        "Table Storage", PRICES["tables"], ticks * reads + incidents * assumed.table_calls_an_incident,
        f"{reads} a tick, {assumed.table_calls_an_incident:g} an incident; an unchanged VM is not written",
    )  # fmt: skip
    polls = MONTH_SECONDS / assumed.poll_seconds * assumed.polled_queues
    messages = incidents * (assumed.rechecks_an_incident + assumed.alerts_an_incident)
    sharded = ticks * shards_for(fleet.vms, assumed.shard_vms)
    yield Part(
        "Queue Storage", PRICES["queues"], polls + 3 * (messages + sharded),
        f"{assumed.polled_queues} queues polled every {assumed.poll_seconds:g} s, 3 for each message",
    )  # fmt: skip
    yield Part("Blob Storage", PRICES["blobs"], ticks, "the Functions host notes each run of its timer")


def _logs(fleet: Fleet, assumed: Assumptions, report_bytes: int) -> Iterator[Part]:
    reports = fleet.vms * MONTH_SECONDS / fleet.report_seconds
    metrics = fleet.vms * MONTH_SECONDS / fleet.metrics_seconds * metric_count(fleet.units)
    own = _executions(fleet, assumed) * assumed.own_logs_an_execution
    sent = reports * report_bytes + metrics * METRIC_BYTES + own * assumed.own_log_bytes
    yield Part(
        "Log Analytics", PRICES["logs"], sent * assumed.billed_share / GB,
        f"a report of {report_bytes:,} bytes every {fleet.report_seconds:g} s, {metric_count(fleet.units)}"
        f" metrics every {fleet.metrics_seconds:g} s, and the function app's own log",
    )  # fmt: skip
