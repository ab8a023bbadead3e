"""What a setting of the agent may be, beside the kinds that both sides share.

Pure. A kind raises ``ValueError`` whose text completes the sentence "must be …"; it never repeats the
value, for that may be a secret.
"""

from __future__ import annotations

from ipaddress import ip_address

from vm_health.names import is_unit_name, is_vm_id

MAX_UNITS = 64  # with these a report stays well inside the 48,000 characters that it may have
MAX_PATHS = 32
MAX_PATH_CHARS = 512


def address(text: str) -> str:
    """An IP address to listen on."""
    try:
        return str(ip_address(text.strip("[]")))
    except ValueError:
        raise ValueError("an IPv4 or IPv6 address, such as 0.0.0.0 or 127.0.0.1") from None


def path(text: str) -> str:
    """One absolute path."""
    if not text.startswith("/") or len(text) > MAX_PATH_CHARS or not text.isprintable():
        raise ValueError(f"an absolute path of at most {MAX_PATH_CHARS} printable characters")
    return text


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


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]
