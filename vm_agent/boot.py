"""Which boot of the machine this is."""

from __future__ import annotations

_BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id"


def boot_id() -> str:
    """Return the kernel's id of this boot, "" where it can't be read."""
    try:
        with open(_BOOT_ID_FILE, encoding="ascii") as file:
            return file.read(64).strip()
    except OSError:
        return ""
