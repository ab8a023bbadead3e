"""Doctor's own words and its patience: which role a refusal means, and that no check stops another."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from tests.builders import SUBSCRIPTION, a_target
from vm_health.errors import PermanentError
from vm_watchdog.doctor import Check, Finding, Need, Refusal, Verdict, explain, run_checks, skipped
from vm_watchdog.doctor_azure import SCRIPT, command_need, list_need, logs_need, view_need
from vm_watchdog.doctor_identity import identity_in
from vm_watchdog.doctor_storage import queue_need, table_need

WHO = "object id 1234"
ACCOUNT = "https://acc1.table.core.windows.net"


@pytest.mark.parametrize(
    ("need", "role", "scope"),
    [
        (list_need(SUBSCRIPTION), "Reader, or the watchdog's custom role", f"/subscriptions/{SUBSCRIPTION}"),
        (
            view_need(a_target()),
            "Microsoft.Compute/virtualMachines/instanceView/read",
            "/resourceGroups/rg-web",
        ),
        (
            command_need(a_target()),
            "Microsoft.Compute/virtualMachines/runCommands/write",
            "/resourceGroups/rg-web",
        ),
        (
            command_need(a_target()),
            "Microsoft.Compute/virtualMachines/runCommand/action",
            "/resourceGroups/rg-web",
        ),
        (logs_need("guid-1"), "Log Analytics Reader", "the Log Analytics workspace guid-1"),
        (
            table_need(ACCOUNT),
            "Storage Table Data Contributor",
            "the storage account of acc1.table.core.windows.net",
        ),
        (queue_need(ACCOUNT), "Storage Queue Data Contributor", "the storage account of acc1"),
    ],
)
def test_a_403_names_the_role_and_what_it_is_missing_on(need: Need, role: str, scope: str) -> None:
    finding = explain(need, Refusal(403, "AuthorizationPermissionMismatch", "403: no"), WHO)
    assert finding.verdict is Verdict.FAIL
    assert WHO in finding.advice
    assert role in finding.advice
    assert scope in finding.advice


def test_what_resource_manager_itself_names_is_more_exact() -> None:
    missing = ("Microsoft.Compute/virtualMachines/read", "/subscriptions/s/resourceGroups/g")
    finding = explain(list_need("s"), Refusal(403, "AuthorizationFailed", "403: no", missing), WHO)
    assert f"(it must allow {missing[0]}) on {missing[1]};" in finding.advice


@pytest.mark.parametrize(
    ("status", "code", "verdict", "advice"),
    [
        (403, "AuthorizationFailure", Verdict.FAIL, "network rules of the storage account of acc1"),
        (401, "", Verdict.FAIL, "of another tenant or cloud"),
        (404, "", Verdict.FAIL, "really the one that is meant"),
        (429, "", Verdict.WARN, "run doctor again"),
        (503, "", Verdict.WARN, "run doctor again"),
        (0, "", Verdict.FAIL, "DNS, firewall"),
        (400, "BadRequest", Verdict.FAIL, "refused"),
    ],
)
def test_other_refusals_mean_other_things(status: int, code: str, verdict: Verdict, advice: str) -> None:
    finding = explain(table_need(ACCOUNT), Refusal(status, code, "it said no"), WHO)
    assert (finding.verdict, finding.found) == (verdict, "it said no")
    assert advice in finding.advice
    assert "lacks a role" not in finding.advice


async def test_all_checks_run_side_by_side_and_none_stops_another() -> None:
    """Each of three waits until all have begun: one after the other would never end."""
    begun = asyncio.Barrier(3)

    async def waits() -> Finding:
        await begun.wait()
        return Finding(Verdict.OK, "fine")

    async def refused() -> Finding:
        await begun.wait()
        raise PermanentError("no")

    async def breaks() -> Finding:
        await begun.wait()
        raise ZeroDivisionError("the unforeseen")

    async def hangs() -> Finding:
        await asyncio.Event().wait()
        raise AssertionError

    checks = [Check("a", waits), Check("b", refused), Check("c", breaks), Check("d", hangs, 0.01)]
    results = await run_checks([*checks, skipped("e", "not asked for")], 10)
    assert [(result.name, result.finding.verdict) for result in results] == [
        ("a", Verdict.OK),
        ("b", Verdict.FAIL),
        ("c", Verdict.FAIL),
        ("d", Verdict.FAIL),
        ("e", Verdict.SKIP),
    ]
    assert [result.finding.found for result in results][1:4] == [
        "no",
        "ZeroDivisionError: the unforeseen",
        "no answer within 0.01 s",
    ]


def a_token(**claims: str) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"head.{body}.signature"


@pytest.mark.parametrize(
    ("token", "who"),
    [
        (a_token(oid="o-1", appid="a-1"), "object id o-1 (application a-1)"),
        (a_token(oid="o-1"), "object id o-1"),
        (a_token(upn="jane"), "the watchdog's identity"),
        ("opaque", "the watchdog's identity"),
        ("a.%%%.c", "the watchdog's identity"),
        ("a.bnVsbA.c", "the watchdog's identity"),
    ],
)
def test_who_it_is_without_showing_the_token(token: str, who: str) -> None:
    assert identity_in(token) == who


def test_the_script_is_a_constant_that_changes_nothing() -> None:
    assert not any(word in line for line in SCRIPT for word in ("restart", "rm ", ">/etc", "systemctl", "{"))
