"""Writes the polkit rule that lets the agent's own user restart exactly the allowed units. Pure text.

Reads no list and writes no file: ``install`` does, and calls ``rule`` with what the root-owned allow-list
says. The names end up inside JavaScript that polkit runs, so only what systemd's grammar allows gets there,
escaped. polkit up to 0.105 knows no such rules: there ``vm-agent-repair.timer`` repairs (docs/agent.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from vm_health.errors import ConfigError
from vm_health.names import is_unit_name

RULES_FILE = "/etc/polkit-1/rules.d/50-vm-agent.rules"
# What polkit may rule on by script: 0.106 was the first; its version says "0.105" or, since 2022, "122".
_FIRST_WITH_RULES = (0, 106)
_USER_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,30}")

_RULE = """\
// Lets the user of vm-agent.service restart these units, and clear their start limit, without a password.
// Written by `vm-agent install` from the allow-list: edit that and install again; edits here get lost.
// polkit shows a unit under its own name, so an alias in the list allows nothing.
polkit.addRule(function(action, subject) {
    var units = %(units)s;
    var verbs = ["restart", "reset-failed"];
    if (action.id !== "org.freedesktop.systemd1.manage-units" || subject.user !== %(user)s) {
        return polkit.Result.NOT_HANDLED;
    }
    if (verbs.indexOf(action.lookup("verb")) >= 0 && units.indexOf(action.lookup("unit")) >= 0) {
        return polkit.Result.YES;
    }
    return polkit.Result.NO;
});
"""


def rule(units: Iterable[str], user: str = "vm-agent") -> str:
    """Return the rule's text for ``units``, in their order of names; none is fine and allows nothing.

    Raises:
        ConfigError: with every name that is no unit's full name, and for a user name that is none.
    """
    names = sorted(set(units))
    faults = [
        f"unit must be a full name such as nginx.service, was {name!r}"
        for name in names
        if not is_unit_name(name)
    ]
    if not _USER_NAME.fullmatch(user):
        faults.append(f"user must be a system user's name, was {user!r}")
    if faults:
        raise ConfigError("polkit rule of vm-agent", faults)
    listed = "".join(f"\n        {json.dumps(name)}," for name in names).removesuffix(",")
    return _RULE % {"units": f"[{listed}\n    ]" if names else "[]", "user": json.dumps(user)}


def knows_rules(version: str) -> bool:
    """Tell whether the polkit that calls itself ``version`` (``pkaction --version``) runs such rules."""
    found = re.search(r"(\d+)(?:\.(\d+))?", version)
    return found is not None and (int(found[1]), int(found[2] or 0)) >= _FIRST_WITH_RULES
