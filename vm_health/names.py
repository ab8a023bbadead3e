"""Which names may leave a VM, a tag or a request: systemd's own unit-name grammar and ARM's VM ids.

Everything that could reach a command line passes here first.
"""

from __future__ import annotations

import hashlib
import re

# systemd.unit(5): 255 characters at most of [A-Za-z0-9:_.\-@] and a type suffix. A leading "-" is legal
# there (-.mount) and refused here: nothing that is ever restarted needs it, and it reads as an option.
_UNIT_NAME = re.compile(r"[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]*\.(?:service|socket|timer|mount|target|path)")
_VM_ID = re.compile(
    r"/subscriptions/[0-9a-f-]{36}/resourcegroups/[\w.()-]{1,90}"
    r"/providers/microsoft\.compute/virtualmachines/[\w.-]{1,64}"
)
_TOKEN = re.compile(r"[A-Za-z0-9-]{1,64}")


def is_unit_name(name: str) -> bool:
    """Tell whether ``name`` is a systemd unit name that may be acted on (ASCII, ≤ 255 characters)."""
    return len(name) <= 255 and name.isascii() and _UNIT_NAME.fullmatch(name) is not None


def is_vm_id(vm_id: str) -> bool:
    """Tell whether ``vm_id`` is the lower-case ARM id of a virtual machine."""
    return vm_id == vm_id.lower() and _VM_ID.fullmatch(vm_id) is not None


def is_token(token: str) -> bool:
    """Tell whether ``token`` has the shape of a fencing token."""
    return _TOKEN.fullmatch(token) is not None


def vm_key(vm_id: str) -> str:
    """Hash an ARM id to 32 hex digits (table keys hold no ``/ \\ # ?``); the first one is its partition."""
    return hashlib.sha256(vm_id.lower().encode()).hexdigest()[:32]
