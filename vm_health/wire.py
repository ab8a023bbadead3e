"""HealthReport <-> JSON: the one schema that agent, endpoint and query share.

Encoding is compact and deterministic. Decoding trusts nothing: sizes, types and names are checked, unknown
fields are ignored so that agents may be newer than the watchdog.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vm_health.errors import WireError
from vm_health.fields import Fields, load_object
from vm_health.model import Cause, Finding, HealthReport, Status
from vm_health.names import is_vm_id
from vm_health.wire_sample import read_repairs, read_sample, repairs_to_list, sample_to_dict

_CAUSES = frozenset(Cause)  # StrEnum members compare as their text; `in Cause` needs Python 3.12
SCHEMA_VERSION = 1
MAX_MESSAGE_CHARS = 4_096  # a finding quotes up to three texts of the sample, each as long as a text may be
MAX_REPORT_CHARS = 48_000  # six properties of 8,192: Application Insights cuts a property there
PROPERTY_CHARS = 8_192
REPORT_PROPERTIES = ("report", "report2", "report3", "report4", "report5", "report6")


def report_to_dict(report: HealthReport) -> dict[str, Any]:
    """Return ``report`` as JSON-ready values."""
    return {
        "schema": SCHEMA_VERSION,
        "vm_id": report.vm_id,
        "host": report.host,
        "agent_version": report.agent_version,
        "boot_id": report.boot_id,
        "sequence": report.sequence,
        "status": report.status.value,
        "age_seconds": round(report.age_seconds, 3),
        "endpoint": report.endpoint,
        "findings": [_finding_to_dict(finding) for finding in report.findings],
        **sample_to_dict(report.sample),
        **({"repairs": repairs_to_list(report.repairs)} if report.repairs else {}),
    }


def encode_report(report: HealthReport) -> str:
    """Return ``report`` as one compact line of JSON."""
    return json.dumps(report_to_dict(report), separators=(",", ":"), allow_nan=False)


def report_properties(report: HealthReport) -> dict[str, str]:
    """Split the encoded report over as many event properties as its length needs.

    Raises:
        WireError: the report is longer than all of the properties together.
    """
    text = encode_report(report)
    if len(text) > MAX_REPORT_CHARS:
        raise WireError([f"report must be at most {MAX_REPORT_CHARS} characters, has {len(text)}"])
    parts = [text[start : start + PROPERTY_CHARS] for start in range(0, len(text), PROPERTY_CHARS)]
    return dict(zip(REPORT_PROPERTIES, parts, strict=False))


def decode_report(text: str) -> HealthReport:
    """Parse and check a report that came from a VM.

    Raises:
        WireError: with every fault found; nothing of a faulty report is used.
    """
    faults: list[str] = []
    report = _read_report(load_object(text, MAX_REPORT_CHARS, faults), faults)
    if faults:
        raise WireError(faults[:20])
    return report


def _read_report(value: Mapping[str, Any], faults: list[str]) -> HealthReport:
    fields = Fields(dict(value), "", faults)
    if fields.whole("schema") != SCHEMA_VERSION:
        fields.fault("schema", str(SCHEMA_VERSION))
    vm_id = fields.text("vm_id").lower()
    if vm_id and not is_vm_id(vm_id):
        fields.fault("vm_id", "the ARM id of a virtual machine, or empty")
    return HealthReport(
        vm_id=vm_id,
        host=fields.text("host"),
        agent_version=fields.text("agent_version"),
        boot_id=fields.text("boot_id", ""),
        sequence=fields.whole("sequence", 0),
        status=_read_status(fields),
        findings=tuple(
            finding for item in fields.children("findings") if (finding := _read_finding(item)) is not None
        ),
        sample=read_sample(fields),
        age_seconds=fields.number("age_seconds", 0.0),
        endpoint=fields.text("endpoint", ""),
        repairs=read_repairs(fields),
    )


def _read_status(fields: Fields) -> Status:
    return fields.choice("status", Status, ", ".join(Status)) or Status.UNKNOWN


def _read_finding(item: Fields) -> Finding | None:
    code = item.text("code")
    if code not in _CAUSES:  # a newer agent's finding: the sample beside it is judged all the same
        return None
    return Finding(
        code=Cause(code),
        status=_read_status(item),
        subject=item.text("subject"),
        message=item.text("message", max_chars=MAX_MESSAGE_CHARS),
        value=item.optional_number("value"),
        limit=item.optional_number("limit"),
    )


def _finding_to_dict(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code.value,
        "status": finding.status.value,
        "subject": finding.subject,
        "message": finding.message,
        "value": finding.value,
        "limit": finding.limit,
    }
