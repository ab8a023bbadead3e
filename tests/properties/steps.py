"""A step of a story, told by six bytes, and how it picks a VM and a unit. Small numbers are simple."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from tests.properties.sim_vm import SimVm
from tests.properties.world import World


class Step(NamedTuple):
    """Which rule, on which VM, and four numbers of 0…255 that mean what the rule says."""

    rule: int
    vm: int
    a: int
    b: int
    c: int
    d: int


@dataclass(frozen=True)
class Rule:
    """One kind of step; ``weight`` is its share, ``is_calm`` that promises of time hold after it."""

    name: str
    play: Callable[[World, Step], None]
    weight: int = 1
    is_calm: bool = False


def vm_of(world: World, step: Step) -> SimVm:
    """The VM that a step is about."""
    every = list(world.cloud.vms.values())
    return every[step.vm % len(every)]


def unit_of(vm: SimVm, step: Step) -> str:
    """The unit that a step is about."""
    return list(vm.units)[step.vm // 16 % len(vm.units)]
