"""Checks that prove what the watchdog must be able to do: side by side, each with an end, none stops another.

Pure but for time: what a check tries is the caller's. A refusal is turned into the role that is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from vm_health.errors import WatchdogError


class Verdict(StrEnum):
    """How a check went. SKIP: it was not tried, and says what it would need."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found, and what is to be done about it (empty: nothing)."""

    verdict: Verdict
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to prove. ``seconds`` replaces the time-out of all, where it needs longer."""

    name: str
    run: Callable[[], Awaitable[Finding]]
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """A check's finding, and how long it took."""

    name: str
    finding: Finding
    seconds: float


@dataclass(frozen=True, slots=True)
class Need:
    """The role that a check needs, the ``scope`` it must be given on, in words, and what it allows."""

    role: str
    scope: str
    actions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a service refused: status (0: there was no answer), its code, its words.

    ``missing`` are the action and the scope that Resource Manager names in a 403.
    """

    status: int
    code: str
    text: str
    missing: tuple[str, str] | None = None


CUSTOM_ROLE = "the watchdog's custom role"
NEW_ROLES_TAKE = "a new assignment takes up to ten minutes to count"


async def run_checks(checks: Sequence[Check], seconds: float) -> list[Result]:
    """Run all checks at once and return their results in order; a check ends after ``seconds``."""
    return list(await asyncio.gather(*(_run(check, check.seconds or seconds) for check in checks)))


def explain(need: Need, refusal: Refusal, identity: str) -> Finding:
    """Turn a refusal into what to do about it: above all, which role is missing on what."""
    if refusal.status in (408, 429) or refusal.status >= 500:
        return Finding(Verdict.WARN, refusal.text, "the service was busy or ill: run doctor again")
    return Finding(Verdict.FAIL, refusal.text, _advice(need, refusal, identity))


def _advice(need: Need, refusal: Refusal, identity: str) -> str:
    match refusal.status:
        case 0:
            return "is there a way there (DNS, firewall, private endpoint), and a token?"
        case 401:
            settings = "WATCHDOG_ARM_AUDIENCE, WATCHDOG_LOGS_AUDIENCE"
            of_whom = f"the token of {identity}: is it of another tenant or cloud ({settings})?"
            return f"{need.scope} does not accept {of_whom}"
        case 403 if refusal.code in _NETWORK_CODES:
            there = "let the function app's subnet in, or run doctor from there"
            return f"the network rules of {need.scope} refuse this address: {there}"
        case 403:
            return f"{identity} lacks a role: give it {_role(need, refusal)}; {NEW_ROLES_TAKE}"
        case 404:
            return f"is {need.scope} really the one that is meant?"
        case _:
            return f"{need.scope} refused what the watchdog will ask for"


def _role(need: Need, refusal: Refusal) -> str:
    actions, scope = need.actions, need.scope
    if refusal.missing is not None:
        actions, scope = (refusal.missing[0],), refusal.missing[1]
    allows = f" (it must allow {', '.join(actions)})" if actions else ""
    return f"{need.role}{allows} on {scope}"


# Azure Storage's code for "not from this network"; a missing role is AuthorizationPermissionMismatch.
_NETWORK_CODES = frozenset({"AuthorizationFailure"})


async def _run(check: Check, seconds: float) -> Result:
    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        async with asyncio.timeout(seconds):
            finding = await check.run()
    except TimeoutError:
        advice = "is there a way there (DNS, firewall, private endpoint)?"
        finding = Finding(Verdict.FAIL, f"no answer within {seconds:g} s", advice)
    except WatchdogError as error:
        finding = Finding(Verdict.FAIL, str(error))
    except Exception as error:  # noqa: BLE001 - whatever one check meets, the others go on
        finding = Finding(Verdict.FAIL, f"{type(error).__name__}: {error}"[:300])
    return Result(check.name, finding, loop.time() - started)


def skipped(name: str, why: str) -> Check:
    """Return a check that is not tried, and says why."""

    async def skip() -> Finding:
        return Finding(Verdict.SKIP, why)

    return Check(name, skip)
