"""What a Run Command that has ended says. The words come from a VM: bounded, and believed no further."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vm_health.state import CommandResult
from vm_watchdog.run_command_script import RESULT_MARKER

_MAX_FIELDS = 10
_MAX_NAME_CHARS = 40
_MAX_VALUE_CHARS = 200
_MAX_NUMBER = 1e15
_RESTARTED = "restarted"


def managed_result(state: str, exit_code: int | None, output: str, error: str) -> CommandResult:
    """Return what a managed command's instance view says."""
    succeeded = state == "Succeeded" and exit_code == 0
    said = marked_line(output)
    if said:
        return CommandResult(succeeded, _detail(said), said)
    return CommandResult(succeeded, f"{state}, exit code {exit_code}: {_tail(error.strip() or output)}")


def action_result(body: Mapping[str, Any]) -> CommandResult:
    """Return what the action's answer says; it has no exit code, so that only the agent's word counts."""
    values = body.get("value")
    first = values[0] if isinstance(values, list) and values else None
    message = str(first.get("message") or "") if isinstance(first, dict) else ""
    output = message.partition("[stdout]")[2].rpartition("[stderr]")[0]
    said = marked_line(output)
    if said:
        return CommandResult(said.get("result") == _RESTARTED, _detail(said), said)
    return CommandResult(False, f"the command ended without a result: {_tail(message)}")


def marked_line(output: str) -> dict[str, Any]:
    """Return the agent's last marked line: the first few of its fields that are text, numbers, booleans."""
    for line in reversed(output.splitlines()):
        if line.startswith(RESULT_MARKER):
            try:
                said = json.loads(line[len(RESULT_MARKER) :])
            except (ValueError, RecursionError):
                return {}
            return _bounded(said) if isinstance(said, dict) else {}
    return {}


def _bounded(said: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in said.items():
        if len(kept) == _MAX_FIELDS:
            break
        if isinstance(value, str):
            kept[_printable(name[:_MAX_NAME_CHARS])] = _printable(value[:_MAX_VALUE_CHARS])
        elif isinstance(value, bool) or (isinstance(value, (int, float)) and _is_plain(value)):
            kept[_printable(name[:_MAX_NAME_CHARS])] = value
    return kept


def _is_plain(number: float) -> bool:
    return abs(number) < _MAX_NUMBER  # never true of NaN; ints of 400 digits compare too


def _detail(said: Mapping[str, Any]) -> str:
    result, reason = str(said.get("result", "no result"))[:_MAX_NAME_CHARS], str(said.get("reason") or "")
    return f"{result}: {reason}" if reason else result


def _tail(text: str) -> str:
    return _printable(text.strip()[-_MAX_VALUE_CHARS:])


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)
