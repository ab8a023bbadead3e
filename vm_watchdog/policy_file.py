"""The policy as people write it: ``watchdog.toml``, checked whole. Groups and single VMs come later."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from vm_health.backoff import BackoffPolicy
from vm_health.policy import Policy, policy_faults
from vm_health.rules import Thresholds
from vm_health.settings_table import unknown_names

DEFAULT_POLICY_FILE = Path(__file__).parent.parent / "watchdog.toml"

MAX_NUMBER = 10**12
_WHOLE = ("confirm_down", "confirm_up", "confirm_silent", "max_attempts")
_SECONDS = ("snapshot_max_age_seconds", "stable_after_seconds", "verify_after_seconds")
_COUNTS = ("crash_loop_restarts", "log_errors")
_PERCENT = ("disk_warning_percent", "disk_critical_percent", "memory_warning_percent")


def load_policy(path: Path, faults: list[str]) -> Policy:
    """Read the policy, noting every fault; the default one where the default file is not there."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if path != DEFAULT_POLICY_FILE:
            faults.append(f"WATCHDOG_POLICY_FILE must be a file that exists, was {str(path)!r}")
        return Policy()
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"WATCHDOG_POLICY_FILE {path} must be readable UTF-8 ({error})")
        return Policy()
    return parse_policy(text, path.name, faults)


def parse_policy(text: str, name: str, faults: list[str]) -> Policy:
    """Parse the TOML of a policy; ``name`` stands in the faults."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        faults.append(f"{name} must be TOML ({error})")
        return Policy()
    found: list[str] = unknown_names(document, ("defaults",))
    defaults = document.get("defaults", {})
    if not isinstance(defaults, dict):
        faults.append(f"{name}: defaults must be a table")
        return Policy()
    policy = _policy(defaults, found)
    found += policy_faults(policy) if not found else []
    faults.extend(f"{name}: {fault}" for fault in found)
    return policy


def _policy(table: dict[str, Any], faults: list[str]) -> Policy:
    known = (*_WHOLE, *_SECONDS, "thresholds", "backoff_seconds", "backoff_jitter")
    faults += unknown_names((f"defaults.{key}" for key in table), [f"defaults.{key}" for key in known])
    policy = Policy()
    values = {name: _number(table, name, faults, whole=name in _WHOLE) for name in (*_WHOLE, *_SECONDS)}
    policy = replace(policy, **{name: value for name, value in values.items() if value is not None})
    return replace(policy, thresholds=_thresholds(table, faults), backoff=_backoff(table, faults))


def _thresholds(table: dict[str, Any], faults: list[str]) -> Thresholds:
    limits = table.get("thresholds", {})
    if not isinstance(limits, dict):
        faults.append("defaults.thresholds must be a table")
        return Thresholds()
    wanted = (*_PERCENT, *_COUNTS, "heartbeat_max_age_seconds")
    faults += unknown_names(
        (f"defaults.thresholds.{key}" for key in limits), [f"defaults.thresholds.{key}" for key in wanted]
    )
    values = {
        name: _number(limits, name, faults, "defaults.thresholds.", whole=name in _COUNTS) for name in wanted
    }
    return replace(Thresholds(), **{name: value for name, value in values.items() if value is not None})


def _backoff(table: dict[str, Any], faults: list[str]) -> BackoffPolicy:
    policy = BackoffPolicy()
    steps = table.get("backoff_seconds", list(policy.steps_seconds))
    if not isinstance(steps, list) or any(not _is_number(step) for step in steps):
        faults.append(f"defaults.backoff_seconds must be a list of numbers, is {steps!r}")
        steps = list(policy.steps_seconds)
    jitter = _number(table, "backoff_jitter", faults)
    return BackoffPolicy(
        tuple(float(step) for step in steps), policy.jitter_fraction if jitter is None else jitter
    )


def _number(
    table: dict[str, Any], name: str, faults: list[str], path: str = "defaults.", *, whole: bool = False
) -> Any:
    value = table.get(name)
    if value is None:
        return None
    if not _is_number(value) or (whole and not isinstance(value, int)):
        faults.append(f"{path}{name} must be a {'whole ' if whole else ''}number, is {value!r}")
        return None
    return value if whole else float(value)


def _is_number(value: object) -> bool:
    """Tell whether ``value`` can be counted with: TOML also knows nan, inf and integers of any length."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER
