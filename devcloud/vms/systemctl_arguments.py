"""The command line of ``systemctl`` as far as the stand-in knows it. Carries nothing out."""

from __future__ import annotations

from dataclasses import dataclass, field

_IGNORED_OPTIONS = {"--no-pager", "--quiet", "-q", "--no-legend", "--plain", "--full", "-l", "--all", "-a"}
_IGNORED_OPTIONS |= {"--no-ask-password", "--now", "--no-block", "--system", "--wait", "--failed"}


@dataclass(slots=True)
class Command:
    """A parsed command line."""

    verb: str = ""
    units: list[str] = field(default_factory=list)
    properties: list[str] = field(default_factory=list)
    timestamp: str = "pretty"
    values_only: bool = False
    quiet: bool = False
    bad_option: str = ""


def parse(arguments: list[str]) -> Command:
    """Options may stand anywhere, as with the real command; after ``--`` there are none."""
    command, words = Command(), list(arguments)
    positional: list[str] = []
    while words:
        word = words.pop(0)
        if word == "--":
            positional += words
            break
        if word in ("-p", "--property", "-P") and words:
            command.properties += words.pop(0).split(",")
            command.values_only |= word == "-P"
        elif word.startswith("--property="):
            command.properties += word.partition("=")[2].split(",")
        elif word.startswith("--timestamp="):
            command.timestamp = word.partition("=")[2]
        elif word == "--value":
            command.values_only = True
        elif word in _IGNORED_OPTIONS:
            command.quiet |= word in ("--quiet", "-q")
        elif word.startswith("-"):
            command.bad_option = word
        else:
            positional.append(word)
    command.verb = positional[0] if positional else "list-units"
    command.units = [name if "." in name else f"{name}.service" for name in positional[1:]]
    return command
