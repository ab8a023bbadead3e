"""``policy check`` and ``policy show``: is the file right, and what applies to one VM. Changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vm_health.errors import ConfigError
from vm_health.policy_book import PolicyBook
from vm_health.silence import Subject
from vm_watchdog.cli.call import Call, UsageError
from vm_watchdog.cli.output import EXIT_OK, plural, table
from vm_watchdog.policy_file import DEFAULT_POLICY_FILE, load_policy


def read_book(path: Path, faults: list[str]) -> PolicyBook:
    """Read a policy file that the caller has named; one that is not there is a fault of the arguments."""
    if path != DEFAULT_POLICY_FILE and not path.exists():
        faults.append(f"the policy must be a file that exists, was {str(path)!r}")
        return PolicyBook()
    return load_policy(path, faults)


def check(call: Call) -> int:
    """Read a policy file whole, and say what stands in it."""
    path = call.arguments.file or DEFAULT_POLICY_FILE
    faults: list[str] = []
    book = read_book(path, faults)
    if faults:
        raise ConfigError(f"policy {path}", faults)
    groups = sum(1 for rule in book.rules if rule.path.startswith("groups."))
    figures = {
        "defaults": len(book.written),
        "group_rules": groups,
        "vm_rules": len(book.rules) - groups,
        "maintenance_windows": len(book.windows),
    }
    exists = "" if path.exists() else " (not there: all values are the built-in ones)"
    words = [
        plural(figures["defaults"], "value") + " in [defaults]",
        plural(groups, "group rule"),
        plural(figures["vm_rules"], "VM rule"),
        plural(len(book.windows), "maintenance window"),
    ]
    call.output.give(
        {"file": str(path), "exists": path.exists(), **figures, "faults": []},
        [f"{path} is right{exists}: {', '.join(words)}"],
    )
    return EXIT_OK


def show(call: Call) -> int:
    """Show every value that applies to a VM, and where it comes from."""
    arguments = call.arguments
    if (arguments.vm is None) == (arguments.name is None):
        raise UsageError("policy show needs either VM (Azure is asked) or --name NAME (nobody is)")
    if arguments.vm is not None:
        if arguments.tag or arguments.file is not None:
            raise UsageError("--tag and --file go with --name: a VM has tags and a policy already")
        return asyncio.run(_show_vm(call))
    tags = dict(_tag(text) for text in arguments.tag)
    group = arguments.group or tags.get("watchdog-group", "")
    subject = Subject(arguments.name, group.lower(), tags)
    path, faults = arguments.file or DEFAULT_POLICY_FILE, list[str]()
    book = read_book(path, faults)
    if faults:
        raise ConfigError(f"policy {path}", faults)
    for fault in book.tag_faults(subject):
        call.output.message(fault)
    rows = [(one.path, one.value, one.source) for one in book.explain(subject)]
    _give(call, subject.name, subject.group, rows)
    return EXIT_OK


async def _show_vm(call: Call) -> int:
    async with call.connect() as watchdog:
        vm = await watchdog.operator.vm(call.arguments.vm, call.arguments.group)
    _give(call, vm.name, vm.group, [(path, one.value, one.source) for path, one in vm.policy.items()])
    return EXIT_OK


def _give(call: Call, name: str, group: str, rows: Sequence[tuple[str, Any, str]]) -> None:
    policy = {
        path: {"value": list(value) if isinstance(value, tuple) else value, "source": source}
        for path, value, source in rows
    }
    call.output.give(
        {"name": name, "group": group, "policy": policy},
        [f"{name}{f' in {group}' if group else ''}", *policy_lines(rows)],
    )


def policy_lines(rows: Iterable[tuple[str, Any, str]]) -> list[str]:
    """Return values with their sources as lines."""
    return [f"  {line}" for line in table([(path, spoken(value), source) for path, value, source in rows])]


def spoken(value: Any) -> str:
    """Return a value of the policy as its file would have it."""
    if isinstance(value, list | tuple):
        return "[" + ", ".join(spoken(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _tag(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--tag must be name=value, was {text!r}")
    return name.lower(), value
