"""What operators are answered: one shape for HTTP, for ``--json`` and for the OpenAPI file.

Data only. How it comes from what the watchdog remembers stands in ``views``; what may be asked for in
``api_requests``.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from vm_health.model import Cause, PowerState, Status
from vm_health.silence import Stops
from vm_health.state import Lane, VmActionKind
from vm_watchdog.api_requests import SilenceRequest as SilenceRequest  # noqa: PLC0414 - for callers


class View(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CommandView(View):
    """A Run Command that was sent and has not been seen to end."""

    token: str = Field(description="The fencing token: the VM's agent obeys each one once.")
    lane: Lane


class UnitView(View):
    """Where the remediation of a unit stands."""

    name: str
    attempts: int = Field(description="Restarts tried since it was last stable.")
    not_before: AwareDatetime | None = Field(description="When the next restart may be tried.")
    last_attempt_at: AwareDatetime | None
    up_since: AwareDatetime | None
    circuit_open: bool = Field(description="True: the attempts are used up, people must look.")
    held: str = Field(description="Why an attempt that was due was not made; empty: none was held.")
    command: CommandView | None


class IncidentView(View):
    """A time during which a VM needs people."""

    id: str
    vm_id: str
    name: str
    opened_at: AwareDatetime
    status: Status
    cause: Cause
    subjects: list[str]
    told_at: AwareDatetime | None = Field(description="When people last heard of it.")


class FreezeView(View):
    """Why all action is stopped."""

    cause: Cause
    reason: str
    since: AwareDatetime
    scope: str = Field(description="Who judged: the whole fleet, or one shard of it.")
    incident_id: str


class SilenceView(View):
    """Alerts, action or both kept from some VMs for a time."""

    id: str
    vm: str
    group: str
    tag: str
    all: bool
    starts_at: AwareDatetime
    ends_at: AwareDatetime
    stops: Stops
    created_by: str
    why: str
    is_active: bool


class SilencesView(View):
    """Silences that have not ended, the next to end first."""

    silences: list[SilenceView]


class VmSummary(View):
    """A VM in a list."""

    vm_id: str
    name: str
    group: str = Field(description="Its resource group.")
    status: Status
    severity: int = Field(description="3 CRITICAL, 2 WARNING, 1 UNKNOWN, 0 all else.")
    cause: Cause
    reason: str
    since: AwareDatetime | None
    incident: str | None = Field(description="The open incident's id.")
    is_flapping: bool
    units: list[UnitView]


class TickView(View):
    """The last completed tick."""

    started_at: AwareDatetime
    finished_at: AwareDatetime
    age_seconds: float
    targets: int
    troubles: list[str]


class FleetView(View):
    """The fleet as a whole, and the VMs that need people, the worst first."""

    at: AwareDatetime
    mode: Literal["on", "observe"]
    last_tick: TickView | None
    vms: int
    statuses: dict[Status, int]
    frozen: str = Field(description="Why nobody may act now; empty: action is free, or people overruled.")
    freezes: list[FreezeView]
    thawed_until: AwareDatetime | None
    thawed_by: str
    silences: list[SilenceView] = Field(description="Those in force now.")
    incidents: list[IncidentView] = Field(description="Open ones, the oldest first.")
    needing: list[VmSummary]


class FleetRows(View):
    """Every VM, the worst first."""

    last_tick: AwareDatetime | None
    vms: list[VmSummary]


class SoftView(View):
    """A status that is not yet confirmed by enough looks."""

    status: Status
    cause: Cause | None
    looks: int


class VmActionView(View):
    """A restart or redeployment of the whole VM."""

    kind: VmActionKind
    at: AwareDatetime
    token: str


class PolicyValueView(View):
    """One value of the policy that applies to a VM, and where it comes from."""

    value: Any
    source: str


class VmView(View):
    """Everything that is remembered of a VM, and what applies to it."""

    vm_id: str
    name: str
    group: str
    is_in_inventory: bool | None = Field(description="null: Azure Resource Manager could not be asked.")
    mode: Literal["on", "observe", ""] = Field(description="By the VM's tag; empty where it is not known.")
    power: PowerState
    status: Status
    cause: Cause
    subjects: list[str]
    reason: str
    since: AwareDatetime | None
    soft: SoftView | None
    units: list[UnitView]
    incident: IncidentView | None
    is_flapping: bool
    changes: str = Field(description="The last looks, newest last; 1 where the VM turned bad or back.")
    vm_actions: list[VmActionView]
    next_look_at: AwareDatetime | None
    endpoint: str
    was_reached: bool = Field(description="Whether a probe of its endpoint has ever had an answer.")
    off_at: AwareDatetime | None
    back_at: AwareDatetime | None = Field(description="When it was first seen to run again.")
    excused_since: AwareDatetime | None
    gone_since: AwareDatetime | None
    notices_waiting: int = Field(description="Alerts that are saved and not yet on the queue.")
    silences: list[SilenceView] = Field(description="Those in force that fit this VM.")
    policy: dict[str, PolicyValueView]


class EventView(View):
    """A line of history: what changed or was done, why, and what was known then."""

    at: AwareDatetime
    kind: str
    reason: str
    detail: dict[str, Any]


class HistoryView(View):
    """A VM's history, newest first."""

    vm_id: str
    name: str
    since: AwareDatetime | None
    until: AwareDatetime | None
    events: list[EventView]
    has_more: bool = Field(description="Older events within the same times were left out.")


class WouldHaveView(View):
    """What would have been done, were action not held or only observed."""

    vm_id: str
    name: str
    at: AwareDatetime
    kind: str
    reason: str
    detail: dict[str, Any]


class RestartView(View):
    """A restart that was accepted. Whether it helped is in the VM's history later."""

    vm_id: str
    name: str
    unit: str
    reason: str
    token: str = Field(description="Finds this restart in the history and in the agent's log.")


class HoldView(View):
    """What keeps action back."""

    kind: str
    reason: str


class ExplainView(View):
    """A fresh look at a VM, without doing anything."""

    vm_id: str
    name: str
    group: str
    at: AwareDatetime
    evidence: list[str] = Field(description="What was seen, in words.")
    status: Status
    cause: Cause
    subjects: list[str]
    reason: str
    would_do: list[str] = Field(description="What a real look would do now; empty: nothing.")
    hold: HoldView | None = Field(description="What would keep that back.")
    silences: list[SilenceView]
    policy: dict[str, PolicyValueView]


class FrozenView(View):
    """A freeze as anybody may know of it: no names, no reasons."""

    cause: Cause
    scope: str
    since: AwareDatetime


class LiveView(View):
    """Whether the watchdog itself ran lately."""

    live: bool
    last_tick_at: AwareDatetime | None = None
    last_tick_age_seconds: float | None = None
    frozen: list[FrozenView] | None = Field(default=None, description="null: that could not be read.")
    thawed_until: AwareDatetime | None = None
    reason: str = Field(default="", description="Why it does not count as live.")


class NudgeView(View):
    """The VM that will be looked at at once."""

    queued: str


class FieldProblem(View):
    """What is wrong with one field."""

    field: str
    problem: str
    was: str | None


class Problem(View):
    """An error, as RFC 9457 has it."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[FieldProblem] = []
