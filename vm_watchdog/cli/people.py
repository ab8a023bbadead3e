"""``silence``, ``restart`` and ``thaw``: what people ask for. Checked and kept by the operator's side."""

from __future__ import annotations

import getpass

from vm_watchdog.api_models import SilenceView
from vm_watchdog.api_requests import SilenceRequest, ahead, parse_when
from vm_watchdog.checks import checked
from vm_watchdog.cli.call import Call, UsageError
from vm_watchdog.cli.look import asked, silence_line
from vm_watchdog.cli.output import EXIT_OK, moment

_UNIT_TYPES = (".service", ".socket", ".timer", ".mount", ".target", ".path")


def silence_add(call: Call) -> int:
    """Begin a silence."""
    arguments = call.arguments
    names = ("vm", "group", "tag", "all", "until", "starts_at", "stops", "why")
    values = {name: getattr(arguments, name) for name in names} | {"by": _by(call)}
    request = checked(SilenceRequest, values)
    view = asked(call, lambda operator, _: operator.add_silence(request))
    return _give(call, "silenced", view)


def silence_end(call: Call) -> int:
    """End a silence."""
    view = asked(call, lambda operator, _: operator.end_silence(call.arguments.id, _by(call)))
    return _give(call, "ended", view)


def silence_list(call: Call) -> int:
    """List silences that have not ended."""
    found = asked(call, lambda operator, _: operator.silences())
    lines = [silence_line(silence) for silence in found] or ["no silence is in force or to come"]
    call.output.give({"silences": [silence.model_dump(mode="json") for silence in found]}, lines)
    return EXIT_OK


def restart(call: Call) -> int:
    """Restart a unit."""
    arguments = call.arguments
    unit = arguments.unit if arguments.unit.endswith(_UNIT_TYPES) else f"{arguments.unit}.service"
    view = asked(
        call,
        lambda operator, _: operator.restart(arguments.vm, unit, _by(call), arguments.why, arguments.group),
    )
    lines = [
        f"{view.name}: {view.reason}",
        f"sent with token {view.token}; what comes of it: vm-watchdog history {view.name} --since 10m",
    ]
    call.output.give(view.model_dump(mode="json"), lines)
    return EXIT_OK


def thaw(call: Call) -> int:
    """Overrule all freezes for a time."""
    arguments, now = call.arguments, call.clock()
    try:
        until = ahead(parse_when(arguments.until), now)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"--for {error}, was {arguments.until!r}") from None
    fleet = asked(call, lambda operator, _: operator.thaw(until, _by(call), arguments.why))
    frozen = "; ".join(freeze.reason for freeze in fleet.freezes) or "nothing is frozen now"
    lines = [f"thawed until {moment(fleet.thawed_until)} by {fleet.thawed_by}; overruled: {frozen}"]
    call.output.give(fleet.model_dump(mode="json"), lines)
    return EXIT_OK


def _give(call: Call, word: str, view: SilenceView) -> int:
    call.output.give(view.model_dump(mode="json"), [f"{word}: {silence_line(view)}"])
    return EXIT_OK


def _by(call: Call) -> str:
    """Return who asks: as given, or who is logged in, behind sudo too."""
    given = call.arguments.by or call.environ.get("SUDO_USER") or call.environ.get("LOGNAME")
    try:
        return str(given or getpass.getuser())
    except (OSError, KeyError):
        raise UsageError("--by must say who asks: nobody is logged in here") from None
