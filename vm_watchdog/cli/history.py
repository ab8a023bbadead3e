"""``history``: what happened to a VM and why; with ``--at``, everything about the decision of one moment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from vm_health.errors import WatchdogError
from vm_watchdog.api_models import EventView, HistoryView, PolicyValueView
from vm_watchdog.api_requests import MAX_HISTORY, parse_when
from vm_watchdog.cli.call import Call, UsageError
from vm_watchdog.cli.look import asked
from vm_watchdog.cli.output import EXIT_CRITICAL, EXIT_OK, clock, moment
from vm_watchdog.cli.policy import spoken
from vm_watchdog.operator import Operator

# What somebody may have meant by "it was restarted then", the likelier first.
DECISIONS = ("restart", "requested", "vm_action", "would_restart", "would_vm_action", "held")
AROUND = timedelta(minutes=15)
NEAR_SECONDS = 600.0
_TIME = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?")
_LIMITS = ("backoff_seconds", "backoff_jitter", "max_attempts", "stable_after_seconds", "confirm_down")


def history(call: Call) -> int:
    """Show a VM's history, or the one decision that ``--at`` means."""
    arguments, now = call.arguments, call.clock()
    since, until = _when(arguments.since, "--since", now), _when(arguments.until, "--until", now)
    if arguments.at is not None:
        if since is not None or until is not None:
            raise UsageError("--at stands alone: it shows one moment")
        return _show_moment(call, moment_meant(arguments.at, now))
    if arguments.limit > MAX_HISTORY:
        raise UsageError(f"--limit must be 1 to {MAX_HISTORY}, was {arguments.limit}")
    found = asked(
        call,
        lambda operator, _: operator.history(arguments.vm, arguments.group, arguments.limit, since, until),
    )
    call.output.give(found.model_dump(mode="json"), _history_lines(found))
    return EXIT_OK


def moment_meant(text: str, now: datetime) -> datetime:
    """Return what ``--at`` means: an ISO time, or the last time that it was so late on a clock in UTC."""
    match = _TIME.fullmatch(text)
    if match is None:
        return _given(text, "--at", now)
    hour, minute, second = (int(part or 0) for part in match.groups())
    today = now.astimezone(UTC).replace(hour=hour, minute=minute, second=second, microsecond=0)
    return today if today <= now else today - timedelta(days=1)


def decision_at(events: list[EventView], at: datetime) -> EventView | None:
    """Return the decision that somebody means by ``at``: of those within the minute, or else the nearest,
    the one that did the most. None where there is none within ten minutes."""
    decisions = [event for event in events if event.kind in DECISIONS]
    within = [event for event in decisions if at <= event.at < at + timedelta(minutes=1)]
    if within:
        return min(within, key=lambda event: (DECISIONS.index(event.kind), event.at))
    near = [event for event in decisions if abs((event.at - at).total_seconds()) <= NEAR_SECONDS]
    return min(near, key=lambda event: abs((event.at - at).total_seconds()), default=None)


def _show_moment(call: Call, at: datetime) -> int:
    arguments = call.arguments

    async def question(operator: Operator, _: object) -> tuple[HistoryView, dict[str, PolicyValueView]]:
        found = await operator.history(arguments.vm, arguments.group, MAX_HISTORY, at - AROUND, at + AROUND)
        try:
            policy = (await operator.vm(arguments.vm, arguments.group)).policy
        except WatchdogError:  # a VM that is gone has a history still
            policy = {}
        return found, policy

    found, policy = asked(call, question)
    decision = decision_at(found.events, at)
    related = [] if decision is None else _related(found.events, decision)
    document = {
        "at": at.isoformat(),
        "decision": None if decision is None else decision.model_dump(mode="json"),
        "related": [event.model_dump(mode="json") for event in related],
        "policy_now": {name: policy[name].model_dump(mode="json") for name in _LIMITS if name in policy},
        "around": found.model_dump(mode="json"),
    }
    lines = (
        _nothing_lines(found, at)
        if decision is None
        else _moment_lines(found.name, decision, related, policy)
    )
    call.output.give(document, lines)
    return EXIT_OK if decision is not None else EXIT_CRITICAL


def _related(events: list[EventView], decision: EventView) -> list[EventView]:
    """Return what led to the decision and what came of it, oldest first: its own token and unit, and turns of
    the VM's status."""
    token, unit = decision.detail.get("token"), decision.detail.get("unit")
    found = []
    for event in reversed(events):
        if event is decision:
            continue
        same = event.detail.get("token") == token if "token" in event.detail else None
        if same or (same is None and (event.kind == "transition" or event.detail.get("unit") == unit)):
            found.append(event)
    return found


def _moment_lines(
    name: str, decision: EventView, related: list[EventView], policy: Mapping[str, PolicyValueView]
) -> Iterator[str]:
    detail = decision.detail
    yield f"{moment(decision.at)}  {name}  {decision.kind}"
    yield f"  why        {decision.reason}"
    if detail.get("evidence"):
        yield f"  evidence   {detail['evidence']}"
    if detail.get("seen_by"):
        state = f"; {detail['unit']} {detail['unit_state']}" if detail.get("unit_state") else ""
        yield f"  seen by    {detail['seen_by']} at {detail.get('observed_at', '?')}{state}"
    yield from (f"  asked by   {detail['by']}: {detail.get('why', '')}" for _ in ("by",) if detail.get("by"))
    limits = _limits(detail, policy)
    if limits:
        yield f"  policy     {limits}"
    if detail.get("token"):
        yield f"  token      {detail['token']}"
    words = {"restart_sent": "sent", "vm_action_sent": "sent", "restart_refused": "refused"}
    words |= {"vm_action_refused": "refused", "restart_done": "came back", "restart_failed": "came back"}
    words |= {"restart_hung": "came back"}
    for event in related:
        label = words.get(event.kind) or ("before" if event.at <= decision.at else "after")
        yield f"  {label:<10} {clock(event.at)} {event.kind}: {event.reason}{_answer(event)}"
    if not any(event.kind in words for event in related) and decision.kind in ("restart", "requested"):
        yield "  sent       nothing is recorded of how asking Azure went"


def _limits(detail: Mapping[str, Any], policy: Mapping[str, PolicyValueView]) -> str:
    then = [f"{name} {spoken(detail[name])}" for name in ("attempt", *_LIMITS) if name in detail]
    now = [
        f"{name} {spoken(policy[name].value)}" for name in _LIMITS if name in policy and name not in detail
    ]
    parts = [*then[:1], *then[1:]]
    return ", ".join(parts) + (f"; as it is now: {', '.join(now)}" if now else "")


def _answer(event: EventView) -> str:
    if "lane" in event.detail:
        return f" (lane {event.detail['lane']}, {event.detail.get('outcome', '')})"
    result = event.detail.get("result")
    return f" ({', '.join(f'{name} {value}' for name, value in result.items())})" if result else ""


def _nothing_lines(found: HistoryView, at: datetime) -> Iterator[str]:
    yield f"{found.name}: nothing was decided on within 10 minutes of {moment(at)}"
    yield from _event_lines(found)


def _history_lines(found: HistoryView) -> Iterator[str]:
    if not found.events:
        yield f"{found.name}: no history in that time"
    yield from _event_lines(found)


def _event_lines(found: HistoryView) -> Iterator[str]:
    if found.has_more:
        yield "older events are left out: --limit or --until reaches them"
    width = max((len(event.kind) for event in found.events), default=0)
    for event in reversed(found.events):
        yield f"{moment(event.at)}  {event.kind:<{width}}  {event.reason}"


def _when(text: str | None, option: str, now: datetime) -> datetime | None:
    return None if text is None else _given(text, option, now)


def _given(text: str, option: str, now: datetime) -> datetime:
    try:
        when = parse_when(text)
        return now - when if isinstance(when, timedelta) else when
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{option} {error}, was {text!r}") from None
