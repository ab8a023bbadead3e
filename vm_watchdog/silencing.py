"""Silences as people ask for them: checked, kept, ended, and written into history. What one stops is not
decided here."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from vm_health.silence import Silence, Subject, silence_faults
from vm_health.state import FLEET_ID, Event
from vm_health.windows import tag_silence
from vm_watchdog.api_requests import FieldFault, SilenceRequest, ahead
from vm_watchdog.checks import InputError, by_faults, refuse
from vm_watchdog.look import Ports
from vm_watchdog.lookup import name_of
from vm_watchdog.problems import UnknownError

# The core's names of what a person calls otherwise.
_CALLED = {"created_by": "by", "ends_at": "until", "starts_at": "starts_at", "why": "why"}


async def begin(ports: Ports, request: SilenceRequest, silence_id: str, now: datetime) -> Silence:
    """Keep a new silence and write down who wanted it.

    Raises:
        InputError: with every fault of the request.
    """
    silence = _silence(request, silence_id, now)
    await ports.silences.add_silence(silence)
    until = f"{silence.ends_at:%Y-%m-%d %H:%M} UTC"
    reason = f"{silence.match}: {silence.stops} silenced until {until} by {silence.created_by}: {silence.why}"
    await _write_down(ports, silence, "silenced", reason, silence.created_by, now)
    return silence


async def end(ports: Ports, silence_id: str, by: str, now: datetime) -> Silence:
    """End a silence now and write down who did.

    Raises:
        InputError: nobody says who asks.
        UnknownError: there is none with this id, or it has ended.
    """
    refuse(by_faults(by))
    ended = await ports.silences.end_silence(silence_id, now)
    if ended is None:
        raise UnknownError(f"no silence {silence_id[:64]!r} is in force or to come")
    reason = f"{ended.match}: silence {ended.id} ended by {by}"
    await _write_down(ports, ended, "silence_ended", reason, by, now)
    return ended


def fitting(silences: Iterable[Silence], subject: Subject, now: datetime) -> list[Silence]:
    """Return the silences in force that are meant for a VM, its own tag's among them."""
    tagged = tag_silence(subject, now).silence
    every = silences if tagged is None else (*silences, tagged)
    return [one for one in every if one.is_active(now) and one.match.fits(subject)]


def _silence(request: SilenceRequest, silence_id: str, now: datetime) -> Silence:
    try:
        starts_at = now if request.starts_at is None else ahead(request.starts_at, now)
        ends_at = ahead(request.until, starts_at)
    except OverflowError:
        raise InputError([FieldFault("until", "must be a moment of this era")]) from None
    silence = Silence(silence_id, request.matcher, starts_at, ends_at, request.stops, request.by, request.why)
    faults = [_named(text) for text in silence_faults(silence)]
    if ends_at <= now and not faults:
        faults.append(FieldFault("until", "must be ahead", ends_at.isoformat()))
    refuse(faults)
    return silence


def _named(text: str) -> FieldFault:
    """Split a fault of the core into the field as it is called here, and what it must be."""
    name, _, problem = text.partition(" ")
    return FieldFault(_CALLED[name], problem) if name in _CALLED else FieldFault("until", text)


async def _write_down(ports: Ports, silence: Silence, kind: str, reason: str, by: str, now: datetime) -> None:
    """Into the VM's history where one VM is named, else into the fleet's."""
    detail = {
        "silence": silence.id,
        "match": str(silence.match),
        "stops": silence.stops.value,
        "starts_at": silence.starts_at.isoformat(),
        "ends_at": silence.ends_at.isoformat(),
        "by": by,
        "why": silence.why,
    }
    await ports.store.append_events(await _one_vm(ports, silence), [Event(kind, reason, now, detail)])


async def _one_vm(ports: Ports, silence: Silence) -> str:
    """Return the VM that a silence names, where it is known and no other is of that name."""
    name = silence.match.vm.lower()
    if not name or set("*?[") & set(name):
        return FLEET_ID
    named = [vm_id for vm_id in await ports.store.load(0, 1) if name_of(vm_id) == name]
    return named[0] if len(named) == 1 else FLEET_ID
