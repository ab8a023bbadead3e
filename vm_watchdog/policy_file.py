"""The policy as people write it: ``watchdog.toml``, checked whole, as a book of rules. Reads one file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vm_health.fleet import SafetyPolicy
from vm_health.policy import Policy
from vm_health.policy_book import PolicyBook, PolicyRule, changed
from vm_health.policy_overlap import book_faults
from vm_health.settings_table import unknown_names
from vm_health.silence import Matcher
from vm_health.windows import MaintenanceWindow
from vm_watchdog.policy_fields import (
    MATCH_FIELDS,
    POLICY_FIELDS,
    SAFETY_FIELDS,
    THRESHOLD_FIELDS,
    WINDOW_FIELDS,
    Reader,
)

DEFAULT_POLICY_FILE = Path(__file__).parent.parent / "watchdog.toml"
TABLES = ("defaults", "groups", "vms", "safety", "maintenance")
MAX_RULES = 200


def load_policy(path: Path, faults: list[str]) -> PolicyBook:
    """Read the policy, noting every fault; the default one where the default file is not there."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if path != DEFAULT_POLICY_FILE:
            faults.append(f"WATCHDOG_POLICY_FILE must be a file that exists, was {str(path)!r}")
        return PolicyBook()
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"WATCHDOG_POLICY_FILE {path} must be readable UTF-8 ({error})")
        return PolicyBook()
    return parse_policy(text, path.name, faults)


def parse_policy(text: str, name: str, faults: list[str]) -> PolicyBook:
    """Parse the TOML of a policy; ``name`` stands in the faults. With faults, the book must not be used."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        faults.append(f"{name} must be TOML ({error})")
        return PolicyBook()
    reader = Reader(unknown_names(document, TABLES))
    defaults = _changes(reader, reader.table(document, "defaults"), "defaults")
    rules = (*_group_rules(reader, document), *_vm_rules(reader, document))
    safety = reader.values(reader.table(document, "safety"), SAFETY_FIELDS, "safety")
    book = PolicyBook(
        changed(Policy(), defaults),
        rules[:MAX_RULES],
        tuple(_windows(reader, document, name)),
        replace(SafetyPolicy(), **safety),
        frozenset(defaults),
        name,
    )
    if len(rules) > MAX_RULES:
        reader.faults.append(f"groups and vms must be at most {MAX_RULES} together, are {len(rules)}")
    # A limit that could not be read has its default in the book: what that breaks is no fault of the file.
    reader.faults += [
        fault for fault in book_faults(book) if not any(unread in fault for unread in reader.unread)
    ]
    faults.extend(f"{name}: {fault}" for fault in reader.faults)
    return book


def _changes(reader: Reader, table: Mapping[str, Any], path: str, *also: str) -> dict[str, Any]:
    """Return the fields of the policy that ``table`` sets, by their path in the policy."""
    own = reader.values(table, POLICY_FIELDS, path, ("thresholds", *also))
    limits = reader.table(table, "thresholds", f"{path}.")
    return {**own, **reader.values(limits, THRESHOLD_FIELDS, f"{path}.thresholds")}


def _group_rules(reader: Reader, document: Mapping[str, Any]) -> Iterator[PolicyRule]:
    groups = reader.table(document, "groups")
    for name in groups:
        if not name.strip():
            reader.faults.append("groups: a group's name must not be empty")
            continue
        table = reader.table(groups, name, "groups.")
        changes = _changes(reader, table, f"groups.{name}")
        yield PolicyRule(f"[groups.{name}]", f"groups.{name}", Matcher(group=name), changes)


def _vm_rules(reader: Reader, document: Mapping[str, Any]) -> Iterator[PolicyRule]:
    for index, table in enumerate(reader.tables(document, "vms")):
        path = f"vms[{index}]"
        match = _match(reader, table, path)
        changes = _changes(reader, table, path, "match")
        if match is not None:
            yield PolicyRule(f"[[vms]] {match}", path, match, changes)


def _windows(reader: Reader, document: Mapping[str, Any], file_name: str) -> Iterator[MaintenanceWindow]:
    for index, table in enumerate(reader.tables(document, "maintenance")):
        path, own = f"maintenance[{index}]", Reader()
        match = _match(own, table, path)
        found = own.values(table, WINDOW_FIELDS, path, ("match",))
        reader.faults += own.faults
        if match is not None and not own.faults:
            days = frozenset(found.pop("days", ()))
            yield MaintenanceWindow(match=match, days=days, created_by=file_name, **found)


def _match(reader: Reader, table: Mapping[str, Any], path: str) -> Matcher | None:
    """Read whom a rule or a window means; nobody named is a fault and never everybody."""
    if not isinstance(table.get("match"), dict) or not table["match"]:
        reader.faults.append(
            f'{path}.match must be a table of vm, group or tag such as {{ vm = "db-*" }},'
            f" is {table.get('match')!r:.100}"
        )
        return None
    own = Reader()
    found = own.values(table["match"], MATCH_FIELDS, f"{path}.match")
    reader.faults += own.faults
    return None if own.faults else Matcher(**found)
