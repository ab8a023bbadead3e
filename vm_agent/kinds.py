"""What a setting of the agent may be, beside the kinds that both sides share.

Pure. A kind raises ``ValueError`` whose text completes the sentence "must be …"; it never repeats the
value, for that may be a secret.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from vm_health.names import is_unit_name, is_vm_id
from vm_health.settings_table import Secret

MAX_UNITS = 64  # with these a report stays well inside the 48,000 characters that it may have
MAX_PATHS = 32
MAX_PATH_CHARS = 512
MIN_TOKEN_CHARS = 16


def address(text: str) -> str:
    """An IP address to listen on."""
    try:
        return str(ip_address(text.strip("[]")))
    except ValueError:
        raise ValueError("an IPv4 or IPv6 address, such as 0.0.0.0 or 127.0.0.1") from None


def path(text: str) -> str:
    """One absolute path."""
    if not _is_path(text):
        raise ValueError(f"an absolute path of at most {MAX_PATH_CHARS} printable characters")
    return text


def path_or_off(text: str) -> str:
    """One absolute path, "" for none (an empty variable counts as not given, so there is a word for it)."""
    try:
        return "" if text.lower() in ("", "off") else path(text)
    except ValueError as error:
        raise ValueError(f"off, or {error}") from None


def paths(text: str) -> tuple[str, ...]:
    """Absolute paths with commas between them."""
    found = _items(text)
    try:
        if len(found) <= MAX_PATHS:
            return tuple(path(item) for item in found)
    except ValueError:
        pass
    raise ValueError(
        f"at most {MAX_PATHS} absolute paths (each at most {MAX_PATH_CHARS} characters) separated by commas"
    )


def heartbeats(text: str) -> tuple[tuple[str, str], ...]:
    """Heartbeat files with commas between them, each a path or ``unit=path``: pairs of unit and path."""
    found: list[tuple[str, str]] = []
    for item in _items(text):
        unit, separator, file = ("", "", item) if item.startswith("/") else item.partition("=")
        name = unit_name(unit.strip()) if separator else ""
        if (separator and not is_unit_name(name)) or not _is_path(file.strip()):
            found = []
            break
        found.append((name, file.strip()))
    if not 1 <= len(found) <= MAX_PATHS:
        raise ValueError(
            f"at most {MAX_PATHS} absolute paths (each at most {MAX_PATH_CHARS} characters) separated by"
            " commas, each with unit= before it or without"
        )
    return tuple(found)


def bus_address(text: str) -> str:
    """A D-Bus address; the value is its socket's path. Of several (";"), the first with a path counts."""
    for part in text.split(";"):
        transport, _, options = part.strip().partition(":")
        for option in options.split(","):
            name, _, value = option.partition("=")
            if transport == "unix" and name == "path" and _is_path(value):
                return value
    raise ValueError("a D-Bus address of a socket, such as unix:path=/run/dbus/system_bus_socket")


def pattern(text: str) -> re.Pattern[str]:
    """A regular expression."""
    try:
        if len(text) <= MAX_PATH_CHARS:
            return re.compile(text)
    except (re.error, RecursionError, OverflowError):
        pass
    raise ValueError(f"a regular expression of at most {MAX_PATH_CHARS} characters")


def units(text: str) -> tuple[str, ...]:
    """Unit names with commas between them; one without a type suffix is a service."""
    found = tuple(dict.fromkeys(unit_name(item) for item in _items(text)))
    wrong = [item for item in found if not is_unit_name(item) or "@." in item]  # "x@." is a template
    if wrong or len(found) > MAX_UNITS:
        about = f" ({', '.join(wrong)[:200]} is not one)" if wrong else f" ({len(found)} are given)"
        raise ValueError(f"at most {MAX_UNITS} systemd unit names separated by commas{about}")
    return found


def unit_name(text: str) -> str:
    """Complete a unit's name the way systemctl does: "nginx" is "nginx.service"."""
    return text if is_unit_name(text) else f"{text}.service"


def vm_id(text: str) -> str:
    """The VM's ARM id, made lower-case."""
    if not is_vm_id(text.lower()):
        raise ValueError(
            "an ARM id: /subscriptions/<id>/resourceGroups/<group>"
            "/providers/Microsoft.Compute/virtualMachines/<name>"
        )
    return text.lower()


def switch(text: str) -> bool:
    """On or off, in the words that environments and TOML have for it."""
    word = text.lower()
    if word in ("on", "true", "yes", "1"):
        return True
    if word in ("off", "false", "no", "0"):
        return False
    raise ValueError("on or off")


def log_file(text: str) -> str:
    """A file's path; a relative one counts from where the agent is started."""
    if len(text) > MAX_PATH_CHARS or not text.isprintable() or text.endswith("/"):
        raise ValueError(f"a file's path of at most {MAX_PATH_CHARS} printable characters")
    return text


def token(text: str) -> Secret:
    """A token that clients send in a header."""
    if not MIN_TOKEN_CHARS <= len(text) <= MAX_PATH_CHARS or not text.isascii() or not text.isprintable():
        raise ValueError(f"{MIN_TOKEN_CHARS} to {MAX_PATH_CHARS} plain ASCII characters")
    if " " in text:
        raise ValueError("without blanks")
    return Secret(text)


def _is_path(text: str) -> bool:
    return text.startswith("/") and len(text) <= MAX_PATH_CHARS and text.isprintable()


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]
