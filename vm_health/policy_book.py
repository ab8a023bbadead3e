"""Which policy applies to which VM, and from where every value comes.

Defaults, then group rules, then VM rules, each in the order of the file, then the VM's own tag. Pure: who
wrote the rules down and how is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from vm_health.fleet import SafetyPolicy
from vm_health.policy import Policy
from vm_health.silence import Matcher, Silence, Subject
from vm_health.state import VmActionKind
from vm_health.windows import MaintenanceWindow

TAG_LADDER = "watchdog-ladder"
MAX_REMEMBERED = 10_000
MAX_SHOWN_CHARS = 60

Ladder = tuple[VmActionKind, ...]

# What people call a field, where that isn't its own name: the policy file and `explain` speak alike.
SPELLINGS: Mapping[str, str] = {
    "backoff.steps_seconds": "backoff_seconds",
    "backoff.jitter_fraction": "backoff_jitter",
    "restart_on_stale_heartbeat": "on_stale_heartbeat",
}
# Not a matter of policy: the mode of the installation and the VM's tag `watchdog` say it.
_UNSPOKEN = frozenset({"may_act"})


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """What is different for the VMs that ``match`` fits.

    ``changes`` maps a field's path in :class:`Policy` (``thresholds.disk_warning_percent``) to its value;
    ``source`` is what an explanation names (``[groups.web]``), ``path`` what a fault does (``groups.web``).
    """

    source: str
    path: str
    match: Matcher
    changes: Mapping[str, Any]


class Applied(NamedTuple):
    """One value that applies to a VM, as people write it, and where it comes from."""

    path: str
    value: Any
    source: str


@dataclass(frozen=True, slots=True)
class PolicyBook:
    """The whole policy. ``rules`` stand in the order in which they override each other, the weakest first.

    ``written`` are the paths that ``[defaults]`` of ``file_name`` gives itself: for explanations alone.
    """

    defaults: Policy = field(default_factory=Policy)
    rules: tuple[PolicyRule, ...] = ()
    windows: tuple[MaintenanceWindow, ...] = ()
    safety: SafetyPolicy = field(default_factory=SafetyPolicy)
    written: frozenset[str] = field(default=frozenset(), compare=False)
    file_name: str = field(default="watchdog.toml", compare=False)
    # Both only remember what follows from the rest: a thousand VMs of a group are one policy.
    _by_group: dict[str, tuple[tuple[int, Matcher | None], ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _by_rules: dict[tuple[tuple[int, ...], Ladder | None], Policy] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def policy_for(self, subject: Subject) -> Policy:
        """Return what applies to ``subject``; the same object for all VMs to which the same applies."""
        key = (self._fitting(subject), _tag_ladder(subject))
        found = self._by_rules.get(key)
        if found is None:
            found = self._by_rules[key] = self._resolve(*key)
        return found

    def explain(self, subject: Subject) -> list[Applied]:
        """Return every value that applies to ``subject`` and its source, in the order of the policy."""
        sources = dict.fromkeys(self.written, f"{self.file_name} [defaults]")
        for index in self._fitting(subject):
            sources.update(dict.fromkeys(self.rules[index].changes, self.rules[index].source))
        if _tag_ladder(subject) is not None:
            sources["ladder"] = f"tag {TAG_LADDER}"
        return [
            Applied(SPELLINGS.get(path, path), _spoken(path, value), sources.get(path, "default"))
            for path, value in policy_values(self.policy_for(subject))
        ]

    def tag_faults(self, subject: Subject) -> list[str]:
        """List which of the VM's tags are ignored, and why, one sentence each."""
        text = subject.tags.get(TAG_LADDER)
        if text is None or _tag_ladder(subject) is not None:
            return []
        words = ", ".join(kind.value for kind in VmActionKind)
        return [
            f"tag {TAG_LADDER} must be none, or a list with commas of {words}, each once,"
            f" is {text[:MAX_SHOWN_CHARS]!r}: ignored"
        ]

    def silences_at(self, now: datetime) -> tuple[Silence, ...]:
        """Return the maintenance windows that are in force, as silences."""
        found = (window.silence_at(now) for window in self.windows)
        return tuple(silence for silence in found if silence is not None)

    def _fitting(self, subject: Subject) -> tuple[int, ...]:
        """Return the places of the rules that fit: by group at a glance, by name and tag one by one."""
        if not self.rules:
            return ()
        candidates = self._by_group.get(subject.group)
        if candidates is None:
            if len(self._by_group) >= MAX_REMEMBERED:
                self._by_group.clear()
            candidates = self._by_group[subject.group] = self._candidates(subject)
        return tuple(index for index, match in candidates if match is None or match.fits(subject))

    def _candidates(self, subject: Subject) -> tuple[tuple[int, Matcher | None], ...]:
        """Return the rules that may fit the group of ``subject``, and what else they ask for."""
        return tuple(
            (index, rule.match if rule.match.vm or rule.match.tag else None)
            for index, rule in enumerate(self.rules)
            if Matcher(group=rule.match.group).fits(subject)
        )

    def _resolve(self, fitting: tuple[int, ...], ladder: Ladder | None) -> Policy:
        policy = self.defaults
        for index in fitting:
            policy = changed(policy, self.rules[index].changes)
        return policy if ladder is None else replace(policy, ladder=ladder)


def changed(policy: Policy, changes: Mapping[str, Any]) -> Policy:
    """Return ``policy`` with ``changes`` (field paths to values) in it."""
    own: dict[str, Any] = {}
    for path, value in changes.items():
        part, _, leaf = path.partition(".")
        own[part] = replace(own.get(part, getattr(policy, part)), **{leaf: value}) if leaf else value
    return replace(policy, **own)


def policy_values(policy: Policy) -> Iterator[tuple[str, Any]]:
    """Yield every field that people may set: its path and its value."""
    for own in fields(policy):
        value = getattr(policy, own.name)
        if is_dataclass(value):
            yield from ((f"{own.name}.{leaf.name}", getattr(value, leaf.name)) for leaf in fields(value))
        elif own.name not in _UNSPOKEN:
            yield own.name, value


def _spoken(path: str, value: Any) -> Any:
    if path == "restart_on_stale_heartbeat":
        return "restart" if value else "alert"
    return [kind.value for kind in value] if path == "ladder" else value


def _tag_ladder(subject: Subject) -> Ladder | None:
    """Return the ladder that the VM's tag asks for, None where there is none or it can't be read."""
    text = subject.tags.get(TAG_LADDER)
    if text is None:
        return None
    words = [word.strip().lower() for word in text.split(",")]
    if words == ["none"]:
        return ()
    known = {kind.value: kind for kind in VmActionKind}
    if len(set(words)) != len(words) or not set(words) <= set(known):
        return None
    return tuple(known[word] for word in words)
