"""Evidence <-> a line of JSON: what was seen of a VM at one look, so that it can be judged again later.

A recording is a file of such lines. Reading one trusts nothing, as with everything that comes from a file;
what a newer version adds to a line is ignored. What a look led to is not recorded: that is the point.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from vm_health.errors import WireError
from vm_health.fields import Fields, load_object
from vm_health.model import Evidence, HealthReport, PowerState, ProbeOutcome, ProbeResult, Snapshot
from vm_health.names import is_vm_id
from vm_health.silence import Subject
from vm_health.wire import MAX_REPORT_CHARS, decode_report, report_to_dict

RECORD_SCHEMA = 1
MAX_LINE_CHARS = 3 * MAX_REPORT_CHARS  # two reports, each escaped once more at the worst, and the rest
MAX_TEXT_CHARS = 4_096
MAX_TAGS = 50  # as many as Azure allows on a resource


@dataclass(frozen=True, slots=True)
class Recorded:
    """One look: what was seen of which VM, and when. ``subject`` is what the VM's policy is chosen by."""

    at: datetime
    evidence: Evidence
    subject: Subject


def encode_evidence(evidence: Evidence, at: datetime, subject: Subject | None = None) -> str:
    """Return one look as a line of compact JSON, without a line break."""
    snapshot, probe = evidence.snapshot, evidence.probe
    value: dict[str, Any] = {
        "schema": RECORD_SCHEMA,
        "at": at.isoformat(),
        "vm_id": evidence.vm_id,
        "power": evidence.power.value,
        "telemetry_available": evidence.telemetry_available,
        "probe": {"outcome": probe.outcome.value, "detail": probe.detail, "report": _plain(probe.report)},
        "maintenance": evidence.maintenance,
        "is_updating": evidence.is_updating,
        "stopped_by": evidence.stopped_by,
        "instance_id": evidence.instance_id,
        "is_routine": evidence.is_routine,
    }
    if snapshot is not None:
        value["snapshot"] = {
            "taken_at": snapshot.taken_at.isoformat(),
            "received_at": snapshot.received_at.isoformat(),
            "report": _plain(snapshot.report),
        }
    if subject is not None:
        value["subject"] = {"name": subject.name, "group": subject.group, "tags": dict(subject.tags)}
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def decode_evidence(text: str) -> Recorded:
    """Parse a line that :func:`encode_evidence` wrote.

    Without a ``subject`` the VM's name and resource group are taken from its id.

    Raises:
        WireError: with every fault found.
    """
    faults: list[str] = []
    value = load_object(text, MAX_LINE_CHARS, faults)
    if faults:
        raise WireError(faults)
    fields = Fields(value, "", faults)
    if fields.whole("schema") != RECORD_SCHEMA:
        fields.fault("schema", str(RECORD_SCHEMA))
    vm_id = fields.text("vm_id").lower()
    if not is_vm_id(vm_id):
        fields.fault("vm_id", "the ARM id of a virtual machine")
    evidence = Evidence(
        vm_id=vm_id,
        power=fields.choice("power", PowerState, ", ".join(PowerState)) or PowerState.UNKNOWN,
        snapshot=_read_snapshot(fields, value),
        telemetry_available=fields.flag("telemetry_available", True),
        probe=_read_probe(fields, value),
        maintenance=fields.text("maintenance", "", MAX_TEXT_CHARS),
        is_updating=fields.flag("is_updating"),
        stopped_by=fields.text("stopped_by", "", MAX_TEXT_CHARS),
        instance_id=fields.text("instance_id", ""),
        is_routine=fields.flag("is_routine", True),
    )
    found = Recorded(fields.moment("at"), evidence, _read_subject(fields, value, vm_id))
    if faults:
        raise WireError(list(dict.fromkeys(faults))[:20])
    return found


def subject_of(vm_id: str) -> Subject:
    """Return what an ARM id alone tells: the VM's name, and its resource group as its group."""
    parts = vm_id.split("/")
    return Subject(parts[-1], parts[4] if len(parts) > 4 else "")


def _plain(report: HealthReport | None) -> Mapping[str, Any] | None:
    return None if report is None else report_to_dict(report)


def _read_snapshot(fields: Fields, value: Mapping[str, Any]) -> Snapshot | None:
    item = fields.child("snapshot")
    if item is None:
        return None
    report = _read_report(value, "snapshot", item.faults)
    taken_at, received_at = item.moment("taken_at"), item.moment("received_at")
    if value["snapshot"].get("report") is None:
        item.fault("report", "a health report")
    if report is None:
        return None
    return Snapshot(report, taken_at, received_at)


def _read_probe(fields: Fields, value: Mapping[str, Any]) -> ProbeResult:
    item = fields.child("probe")
    if item is None:
        return ProbeResult(ProbeOutcome.NOT_CONFIGURED)
    outcome = item.choice("outcome", ProbeOutcome, ", ".join(ProbeOutcome)) or ProbeOutcome.UNREACHABLE
    report = _read_report(value, "probe", item.faults)
    if value["probe"].get("report") is None and outcome in (ProbeOutcome.OK, ProbeOutcome.UNHEALTHY):
        item.fault("report", f"a health report where the outcome is {outcome}")
    return ProbeResult(outcome, item.text("detail", "", MAX_TEXT_CHARS), report)


def _read_report(value: Mapping[str, Any], parent: str, faults: list[str]) -> HealthReport | None:
    """Read a report with the one reader there is for reports; its faults get their place in front."""
    found = value[parent].get("report")
    if found is None:
        return None
    try:
        return decode_report(json.dumps(found, separators=(",", ":")))
    except WireError as error:
        faults.extend(f"{parent}.report: {fault}" for fault in error.faults)
    except RecursionError:  # what could just be parsed may be too deep to be written again
        faults.append(f"{parent}.report must not be nested this deep")
    return None


def _read_subject(fields: Fields, value: Mapping[str, Any], vm_id: str) -> Subject:
    item = fields.child("subject")
    if item is None:
        return subject_of(vm_id)
    tags = value["subject"].get("tags") or {}
    if not isinstance(tags, dict) or len(tags) > MAX_TAGS or not all(map(_is_short_text, tags.values())):
        item.fault("tags", f"an object of at most {MAX_TAGS} strings")
        tags = {}
    return Subject(item.text("name"), item.text("group", ""), tags)


def _is_short_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT_CHARS
