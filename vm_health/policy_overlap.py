"""What is wrong with a policy as a whole: every combination of rules that may apply to one VM is checked.

Pure. No limit involves more than two fields, so what any number of rules can do wrong, two of them can.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from fnmatch import fnmatchcase
from itertools import combinations

from vm_health.fleet import SafetyPolicy
from vm_health.policy import Policy, policy_faults
from vm_health.policy_book import PolicyBook, PolicyRule, changed
from vm_health.rules import Thresholds
from vm_health.safety import safety_faults
from vm_health.silence import Matcher
from vm_health.windows import window_faults

_WILD = re.compile(r"[*?\[]")
_WILD_END = re.compile(r"[*?\]]")
_THRESHOLDS = frozenset(own.name for own in fields(Thresholds))
# What a file calls differently ("backoff steps must not fall") is left as a sentence.
_OWN = frozenset(own.name for own in (*fields(Policy), *fields(SafetyPolicy))) - {"backoff"}


def book_faults(book: PolicyBook) -> list[str]:
    """List what is unusable in ``book``, one sentence each, with the path of its place."""
    default_faults = policy_faults(book.defaults)
    faults = [placed("defaults", fault) for fault in default_faults]
    rule_faults = list(_rule_faults(book, frozenset(default_faults)))
    faults += rule_faults or _pair_faults(book, frozenset(default_faults))
    faults += [placed("safety", fault) for fault in safety_faults(book.safety)]
    for window in book.windows:
        faults += [f"maintenance.{window.name}.{fault}" for fault in window_faults(window)]
    names = Counter(window.name for window in book.windows)
    return faults + [
        f"maintenance.{name}.name must be given once, is given {times} times"
        for name, times in names.items()
        if times > 1
    ]


def placed(path: str, fault: str) -> str:
    """Put the place before a sentence: as a path where the sentence begins with a field's name."""
    first = fault.split(" ", 1)[0]
    if first in _THRESHOLDS:
        return f"{path}.thresholds.{fault}"
    return f"{path}.{fault}" if first in _OWN else f"{path}: {fault}"


def may_overlap(one: Matcher, other: Matcher) -> bool:
    """Tell whether some VM may fit both; in doubt, it may."""
    if one.tag and other.tag and one.tag[0].lower() == other.tag[0].lower():
        tags = _patterns_may_overlap(one.tag[1], other.tag[1])
    else:
        tags = True
    return tags and _patterns_may_overlap(one.vm, other.vm) and _patterns_may_overlap(one.group, other.group)


def _rule_faults(book: PolicyBook, known: frozenset[str]) -> Iterator[str]:
    for rule in book.rules:
        for fault in policy_faults(changed(book.defaults, rule.changes)):
            if fault not in known:
                yield placed(rule.path, fault)


def _pair_faults(book: PolicyBook, known: frozenset[str]) -> list[str]:
    """Look for rules that are fine alone and not together."""
    return [
        f"{weaker.path} together with {stronger.path}: {fault}"
        for weaker, stronger in _overlapping_pairs(book)
        for fault in policy_faults(changed(book.defaults, {**weaker.changes, **stronger.changes}))
        if fault not in known
    ]


def _overlapping_pairs(book: PolicyBook) -> Iterator[tuple[PolicyRule, PolicyRule]]:
    for weaker, stronger in combinations(book.rules, 2):
        if may_overlap(weaker.match, stronger.match):
            yield weaker, stronger


def _patterns_may_overlap(one: str, other: str) -> bool:
    if not one or not other:
        return True
    one, other = one.lower(), other.lower()
    if not _WILD.search(one):
        return fnmatchcase(one, other)
    if not _WILD.search(other):
        return fnmatchcase(other, one)
    head, other_head = _WILD.split(one)[0], _WILD.split(other)[0]
    tail, other_tail = _WILD_END.split(one)[-1], _WILD_END.split(other)[-1]
    return (head.startswith(other_head) or other_head.startswith(head)) and (
        tail.endswith(other_tail) or other_tail.endswith(tail)
    )
