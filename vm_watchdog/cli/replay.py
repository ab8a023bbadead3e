"""``replay``: reads a recording and a policy, and tells what would have happened. Touches nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from vm_health.errors import ConfigError, WireError
from vm_health.evidence_codec import MAX_LINE_CHARS, Recorded, decode_evidence
from vm_health.policy import Policy
from vm_health.policy_book import PolicyBook
from vm_health.replay import Difference, Entry, Timeline, compare, replay
from vm_health.silence import Subject
from vm_watchdog.cli.call import Call
from vm_watchdog.cli.output import EXIT_OK, Output, clock, moment, plural, span
from vm_watchdog.cli.policy import read_book
from vm_watchdog.policy_file import DEFAULT_POLICY_FILE

MAX_FAULTS = 20
RESTARTS = ("restart", "would_restart")


def run(call: Call) -> int:
    """Replay the recording through one policy, or through two and compare."""
    arguments, output = call.arguments, call.output
    faults: list[str] = []
    paths = [arguments.policy or DEFAULT_POLICY_FILE]
    if arguments.against is not None:
        paths.insert(0, arguments.against)
    books = [read_book(path, faults) for path in paths]
    looks = list(_read(arguments.file, faults))
    wanted = [look for look in looks if arguments.vm is None or _is_named(look, arguments.vm)]
    if not faults and not wanted:
        whom = "a look" if arguments.vm is None else f"a look at VM {arguments.vm}"
        faults.append(f"{arguments.file} must hold {whom}")
    if faults:
        raise ConfigError("replay", faults)
    timelines = [replay(wanted, _policy_of(book)) for book in books]
    first, last = min(look.at for look in wanted), max(look.at for look in wanted)
    document = {"looks": len(wanted), "from": first.isoformat(), "until": last.isoformat()}
    names = [str(path) for path in paths]
    if len(books) == 1:
        document |= {"policy": names[0], "vms": [_vm(timeline) for timeline in timelines[0]]}
        output.give(document, _lines(names[0], timelines[0], first, last))
    else:
        pairs = list(zip(*timelines, strict=True))
        document |= {"against": names[0], "policy": names[1], "vms": [_pair(*pair) for pair in pairs]}
        output.give(document, _diff_lines(output, names, pairs, first, last))
    return EXIT_OK


def _read(path: Path, faults: list[str]) -> Iterator[Recorded]:
    """Yield every look of a recording; what can't be read is a fault with its line and field."""
    told = 0
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_CHARS + 2), ""), start=1):
                if not line.strip():
                    continue
                try:
                    yield decode_evidence(line.rstrip("\n"))
                except WireError as error:
                    faults.extend(f"{path} line {number}: {fault}" for fault in error.faults)
                    told += len(error.faults)
                if told >= MAX_FAULTS:
                    del faults[len(faults) - (told - MAX_FAULTS) :]
                    faults.append(f"{path}: more may follow; only the first {MAX_FAULTS} are told")
                    return
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{path} must be a readable UTF-8 file ({error})")


def _is_named(look: Recorded, name: str) -> bool:
    return name.lower() in (look.subject.name.lower(), look.evidence.vm_id)


def _policy_of(book: PolicyBook) -> Callable[[Subject], Policy]:
    def policy_for(subject: Subject) -> Policy:
        policy = book.policy_for(subject)
        is_observed = subject.tags.get("watchdog", "on").lower() != "on"
        return replace(policy, may_act=False) if is_observed else policy

    return policy_for


def _vm(timeline: Timeline) -> dict[str, Any]:
    return {
        "vm_id": timeline.vm_id,
        "name": timeline.name,
        **_figures(timeline),
        "entries": [_entry(entry) for entry in timeline.entries],
    }


def _figures(timeline: Timeline) -> dict[str, Any]:
    return {
        "looks": timeline.looks,
        "restarts": timeline.count("restart"),
        "would_restart": timeline.count("would_restart"),
        "vm_actions": timeline.count("vm_action"),
        "alerts": timeline.count("alert"),
        "critical_seconds": round(timeline.critical_seconds, 3),
        "status": timeline.status,
    }


def _pair(before: Timeline, after: Timeline) -> dict[str, Any]:
    differences = compare(before, after)
    return {
        "vm_id": after.vm_id,
        "name": after.name,
        "before": _figures(before),
        "after": _figures(after),
        "differs": any(one.sign != " " for one in differences),
        "diff": [{"sign": one.sign, **_entry(one.entry)} for one in differences],
    }


def _entry(entry: Entry) -> Mapping[str, Any]:
    return {
        "at": entry.at.isoformat(),
        "kind": entry.kind,
        "reason": entry.reason,
        "assumed": entry.assumed,
        "detail": {name: _plain(value) for name, value in entry.detail.items()},
    }


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | list | None) else str(value)


def _lines(policy: str, timelines: Sequence[Timeline], first: datetime, last: datetime) -> Iterator[str]:
    looks = sum(timeline.looks for timeline in timelines)
    yield f"policy {policy}: {_scope(len(timelines), looks, first, last)}"
    for timeline in timelines:
        yield ""
        yield f"{timeline.name}  {_sum(timeline)}"
        yield from (f"  {line}" for line in _entry_lines(timeline.entries))


def _diff_lines(
    output: Output,
    names: Sequence[str],
    pairs: Sequence[tuple[Timeline, ...]],
    first: datetime,
    last: datetime,
) -> Iterator[str]:
    looks = sum(after.looks for _, after in pairs)
    yield f"{_scope(len(pairs), looks, first, last)}"
    yield f"{output.tint('-')} {names[0]}"
    yield f"{output.tint('+')} {names[1]}"
    for before, after in pairs:
        differences = compare(before, after)
        yield ""
        if all(one.sign == " " for one in differences):
            yield f"{after.name}  the same with both: {_sum(after)}"
            continue
        yield f"{after.name}"
        yield f"{output.tint('-')} {_sum(before)}"
        yield f"{output.tint('+')} {_sum(after)}"
        yield from _signed(output, differences)


def _signed(output: Output, differences: Iterable[Difference]) -> Iterator[str]:
    ones = list(differences)
    lines = _entry_lines([one.entry for one in ones])
    for one, line in zip(ones, lines, strict=True):
        yield f"  {output.tint(one.sign)} {line}"


def _entry_lines(entries: Sequence[Entry]) -> list[str]:
    width = max((len(entry.kind) for entry in entries), default=0)
    return [
        f"{clock(entry.at)}{'~' if entry.assumed else ' '} {entry.kind:<{width}}  {entry.reason}"
        for entry in entries
    ]


def _scope(vms: int, looks: int, first: datetime, last: datetime) -> str:
    return f"{plural(vms, 'VM')}, {plural(looks, 'look')} from {moment(first)} to {moment(last)}"


def _sum(timeline: Timeline) -> str:
    parts = [
        f"CRITICAL for {span(timeline.critical_seconds)}",
        plural(timeline.count(*RESTARTS), "restart"),
        plural(timeline.count("alert"), "alert"),
        f"{timeline.status} at the end",
    ]
    actions = timeline.count("vm_action")
    return ", ".join([*parts[:2], *([plural(actions, "VM action")] if actions else []), *parts[2:]])
