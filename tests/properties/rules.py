"""What may happen in a story, and how often. The first rules are the simplest."""

from __future__ import annotations

from collections.abc import Sequence

from tests.properties import rules_time as when
from tests.properties import rules_world as what
from tests.properties.steps import Rule

CALM = (
    Rule("minute", when.minute, 4, is_calm=True),
    Rule("unit changes", what.unit_changes, 6, is_calm=True),
    Rule("wait", when.wait, 3, is_calm=True),
)
STORM = (
    *CALM,
    Rule("nudge", when.nudge, 2),
    Rule("extra tick", when.extra_tick),
    Rule("commands", what.command, 2),
    Rule("power", what.power, 2),
    Rule("silent VM", what.dies, 2),
    Rule("senses of one", what.senses_of_one, 2),
    Rule("senses of all", what.senses_of_all, 2),
    Rule("many fall", what.many_fall),
    Rule("comes and goes", what.comes_and_goes),
    Rule("tags", what.tags),
    Rule("wishes", what.wishes),
    Rule("silence", what.silence),
    Rule("unsilence", what.unsilence),
    Rule("request", what.request),
    Rule("overrule", what.overrule),
    Rule("queues", what.queues),
    Rule("outage", when.outage),
    Rule("starting", what.unit_starts),
    Rule("slow queue", when.slow_queue),
    Rule("bring", when.bring, 2),
    Rule("hiccup", when.hiccup, 2),
)
RACES = (*STORM, Rule("race", when.race, 12), Rule("crash", when.crash, 8))


def enabled(rules: Sequence[Rule], mask: int) -> list[Rule]:
    """The rules of one story: each is in or out by a bit of ``mask``, those of a calm day always in.

    Stories that can do everything seldom do anything for long.
    """
    chosen = [one for number, one in enumerate(rules) if one.is_calm or not mask >> number & 1]
    return [one for rule in chosen for one in [rule] * rule.weight]
