"""Notice <-> JSON, as it travels on the alerts queue and waits in an outbox."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vm_health.errors import WireError
from vm_health.fields import MAX_TEXT_CHARS, Fields, load_object
from vm_health.json_parts import MAX_REASON_CHARS, dump, plain, read_cause, read_status, readable
from vm_health.state import Notice, NoticeKind

MAX_NOTICE_CHARS = 48_000  # a queue message holds 64 KiB of base64, which is 48 KiB of text


def encode_notice(notice: Notice) -> str:
    """Return ``notice`` as compact JSON that fits a queue message: of one that is too long, the end of its
    subjects and then of its reason is left out, for an alert that cannot be sent tells nobody."""
    subjects, reason = list(notice.subjects), readable(notice.reason, MAX_REASON_CHARS)
    while True:
        text = dump(plain(notice) | {"subjects": subjects, "reason": reason})
        if len(text) <= MAX_NOTICE_CHARS:
            return text
        if len(subjects) > 1:
            del subjects[len(subjects) // 2 :]
        elif reason:
            reason = reason[: len(reason) // 2]
        else:
            raise WireError([f"notice must be at most {MAX_NOTICE_CHARS} characters, has {len(text)}"])


def decode_notice(text: str) -> Notice:
    """Parse what :func:`encode_notice` wrote.

    Raises:
        WireError: with every fault found.
    """
    faults: list[str] = []
    notice = read_notice(Fields(load_object(text, MAX_NOTICE_CHARS, faults), "", faults))
    if faults:
        raise WireError(faults[:20])
    return notice


def read_notice(fields: Fields) -> Notice:
    """Read a notice from a JSON object, noting faults in it."""
    return Notice(
        kind=fields.choice("kind", NoticeKind, ", ".join(NoticeKind)) or NoticeKind.FIRED,
        key=fields.text("key"),
        vm_id=fields.text("vm_id"),
        incident_id=fields.text("incident_id"),
        status=read_status(fields),
        cause=read_cause(fields),
        subjects=fields.texts("subjects"),
        reason=fields.text("reason", max_chars=MAX_REASON_CHARS),
        opened_at=fields.moment("opened_at"),
        at=fields.moment("at"),
        attempts=fields.whole("attempts", 0),
        steps=fields.texts("steps"),
    )


def notices_to_list(notices: Iterable[Notice]) -> list[dict[str, Any]]:
    """Return notices as JSON-ready values."""
    return [
        plain(one)
        | {
            "reason": readable(one.reason, MAX_REASON_CHARS),
            "steps": [readable(step, MAX_TEXT_CHARS) for step in one.steps],
        }
        for one in notices
    ]
