"""Which VM a person means: by name among what is remembered and what Azure shows, or by its full ARM id."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from vm_health.errors import WatchdogError
from vm_health.names import is_vm_id
from vm_health.silence import Subject
from vm_watchdog.look import Ports
from vm_watchdog.ports import Stored, Target
from vm_watchdog.problems import AmbiguousError, UnknownError

log = logging.getLogger("vm_watchdog.lookup")

MAX_NAMED = 10


@dataclass(frozen=True, slots=True)
class Found:
    """A VM: what Azure says of it (None: not in the inventory, or it could not be asked) and what is
    remembered (None: never looked at). ``was_asked`` tells that Azure could be asked."""

    vm_id: str
    target: Target | None = None
    stored: Stored | None = None
    was_asked: bool = True

    @property
    def name(self) -> str:
        """Its name, in the owner's spelling where that is known."""
        return name_of(self.vm_id) if self.target is None else self.target.name

    @property
    def group(self) -> str:
        """The group that budgets count in; where only the id is known, the resource group."""
        return resource_group_of(self.vm_id) if self.target is None else self.target.group

    @property
    def subject(self) -> Subject:
        """What silences and policy match against."""
        return Subject(self.name, self.group) if self.target is None else self.target.subject


def name_of(vm_id: str) -> str:
    """Return the VM's name within its ARM id."""
    return vm_id.rsplit("/", 1)[-1]


def resource_group_of(vm_id: str) -> str:
    """Return the resource group within an ARM id."""
    parts = vm_id.split("/")
    return parts[4] if len(parts) > 4 else ""


async def find_vm(ports: Ports, name: str, group: str = "") -> Found:
    """Return the VM that ``name`` (and ``group``: tag or resource group) means; case does not matter.

    Raises:
        NotFoundError: none is known by that name.
        ConflictError: more than one is.
    """
    vm_id = name.lower()
    if is_vm_id(vm_id):
        found = await _by_id(ports, vm_id)
        if found.target is None and found.stored is None:
            raise UnknownError(f"no VM {vm_id} is in the inventory or remembered")
        return found
    states = await ports.store.load(0, 1)
    targets = await _targets(ports)
    known = {**dict.fromkeys(states), **(targets or {})}
    named = [vm_id for vm_id in known if name_of(vm_id) == name.lower()]
    fitting = [vm_id for vm_id in named if not group or group.lower() in _groups(vm_id, known[vm_id])]
    if len(fitting) > 1:
        raise AmbiguousError(_ambiguous(name, [Found(vm_id, known[vm_id]) for vm_id in fitting]))
    if not fitting:
        raise UnknownError(_unknown(name, group, named, known))
    (vm_id,) = fitting
    return Found(vm_id, known[vm_id], states.get(vm_id), targets is not None)


async def find_history(ports: Ports, name: str, group: str = "") -> Found:
    """Return the VM whose history is meant: a full id need not be known any more, for history outlives all.

    Raises:
        NotFoundError, ConflictError: as :func:`find_vm`.
    """
    vm_id = name.lower()
    return Found(vm_id) if is_vm_id(vm_id) else await find_vm(ports, name, group)


async def _by_id(ports: Ports, vm_id: str) -> Found:
    stored = await ports.store.load_one(vm_id)
    try:
        return Found(vm_id, await ports.inventory.get_target(vm_id), stored)
    except WatchdogError as error:
        log.warning("the inventory can't be read", extra={"problem": str(error)})
        return Found(vm_id, None, stored, was_asked=False)


async def _targets(ports: Ports) -> Mapping[str, Target] | None:
    """List the inventory; None where that fails: what is remembered can still be shown then."""
    try:
        return {target.vm_id: target for target in await ports.inventory.list_targets()}
    except WatchdogError as error:
        log.warning("the inventory can't be read", extra={"problem": str(error)})
        return None


def _groups(vm_id: str, target: Target | None) -> set[str]:
    groups = {resource_group_of(vm_id)}
    return groups if target is None else groups | {target.group, target.resource_group.lower()}


def _ambiguous(name: str, found: Sequence[Found]) -> str:
    groups = sorted({one.group for one in found})
    if len(groups) == len(found):
        return f"{len(found)} VMs are named {name!r}: say which group, of {', '.join(groups[:MAX_NAMED])}"
    ids = sorted(one.vm_id for one in found)
    return f"{len(found)} VMs are named {name!r}: give the full id, one of {', '.join(ids[:MAX_NAMED])}"


def _unknown(name: str, group: str, named: Sequence[str], known: Mapping[str, Target | None]) -> str:
    if named:
        groups = sorted({one for vm_id in named for one in _groups(vm_id, known[vm_id])})
        return f"no VM {name!r} is in a group {group!r}; one is in {', '.join(groups[:MAX_NAMED])}"
    near = get_close_matches(name.lower(), sorted({name_of(vm_id) for vm_id in known}), 3)
    hint = f"; near it: {', '.join(near)}" if near else "; one that is gone has its history under its full id"
    return f"no VM is named {name!r}{hint}"
