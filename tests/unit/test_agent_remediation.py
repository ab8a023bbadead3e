"""When a restart is refused, and that the token is used up before anything is done."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from tests.unit.agent_builders import NOW, a_down_unit, a_unit
from vm_agent.allow_list import distrust, parse_allow_list
from vm_agent.remediation import MARKER, Remediation, Result, remediate
from vm_health.errors import PermanentError, TransientError
from vm_health.model import UnitSample

DIRECTORY, FILE, STICKY = 0o040755, 0o100644, 0o041777


class FakeSystemd:
    """systemd that writes down what it is asked."""

    def __init__(self, after: UnitSample, problem: str = "", hangs: bool = False) -> None:
        self.calls: list[str] = []
        self._after = after
        self._problem = problem
        self._hangs = hangs

    def reset_failed(self, unit: str) -> None:
        self.calls.append(f"reset-failed {unit}")

    def restart(self, unit: str) -> str:
        self.calls.append(f"restart {unit}")
        return self._problem

    def look(self, unit: str) -> UnitSample:
        if self._hangs:
            raise TransientError("systemctl show: it did not end in time")
        return self._after


def attempt(
    systemd: FakeSystemd,
    unit: str = "web.service",
    token: str = "t-1",
    allowed: bool | Exception = True,
    fresh: bool | Exception = True,
) -> Remediation:
    def is_allowed(name: str) -> bool:
        if isinstance(allowed, Exception):
            raise allowed
        return allowed

    def claim(token: str, unit: str, now: datetime) -> bool:
        systemd.calls.append(f"claim {token}")
        if isinstance(fresh, Exception):
            raise fresh
        return fresh

    return remediate(unit, token, NOW, allowed=is_allowed, claim=claim, systemd=systemd)


def test_an_allowed_unit_is_restarted_after_its_token_is_used_up() -> None:
    systemd = FakeSystemd(a_unit())
    done = attempt(systemd)
    assert systemd.calls == ["claim t-1", "reset-failed web.service", "restart web.service"]
    assert (done.result, done.active_state, done.main_pid) == (Result.RESTARTED, "active", 42)
    line = done.line()
    assert line.startswith(MARKER)
    assert "\n" not in line
    assert json.loads(line.removeprefix(MARKER))["result"] == "restarted"


@pytest.mark.parametrize(
    "unit",
    [
        "",
        "web",
        "-x.service",
        "--help",
        "a;b.service",
        "$(id).service",
        "a b.service",
        "../x.service",
        "é.service",
    ],
)
def test_names_outside_the_grammar_are_refused_before_anything_else(unit: str) -> None:
    systemd = FakeSystemd(a_unit())
    done = attempt(systemd, unit=unit)
    assert (done.result, systemd.calls) == (Result.REFUSED, [])


@pytest.mark.parametrize("token", ["", "a b", "x" * 65, "a;b", "a\n"])
def test_tokens_outside_the_grammar_are_refused(token: str) -> None:
    systemd = FakeSystemd(a_unit())
    assert (attempt(systemd, token=token).result, systemd.calls) == (Result.REFUSED, [])


def test_a_unit_that_is_not_allowed_costs_no_token() -> None:
    systemd = FakeSystemd(a_unit())
    assert attempt(systemd, allowed=False).result is Result.REFUSED
    done = attempt(systemd, allowed=PermanentError("allow-list is not trusted"))
    assert (done.result, done.reason) == (Result.REFUSED, "allow-list is not trusted")
    assert systemd.calls == []


def test_a_used_token_and_a_damaged_fence_restart_nothing() -> None:
    systemd = FakeSystemd(a_unit())
    assert attempt(systemd, fresh=False).result is Result.DUPLICATE
    assert attempt(systemd, fresh=PermanentError("damaged")).result is Result.REFUSED
    assert systemd.calls == ["claim t-1", "claim t-1"]


@pytest.mark.parametrize(
    ("systemd", "reason"),
    [
        (FakeSystemd(a_down_unit(), "Job for web.service failed"), "Job for web.service failed"),
        (FakeSystemd(a_down_unit()), "the unit failed again at once (exit-code)"),
        (
            FakeSystemd(a_unit(active_state="activating", sub_state="auto-restart", result="signal")),
            "the unit failed again at once (signal)",
        ),
        (FakeSystemd(a_unit(), hangs=True), "systemctl show: it did not end in time"),
    ],
)
def test_what_systemd_could_not_do_is_a_failure_with_its_words(systemd: FakeSystemd, reason: str) -> None:
    done = attempt(systemd)
    assert (done.result, done.reason) == (Result.FAILED, reason)


def test_exit_codes() -> None:
    assert [result.exit_code for result in Result] == [0, 4, 5, 6]


def test_allow_list_is_one_full_name_a_line_with_comments() -> None:
    text = "# ours\nweb.service  # the site\n\n  db@1.service\n"
    assert parse_allow_list(text, "f") == {"web.service", "db@1.service"}
    with pytest.raises(PermanentError, match="holds 'web', which is not a unit's full name"):
        parse_allow_list("db.service\nweb\n", "f")


@pytest.mark.parametrize(
    ("owner", "mode", "runs_as", "trusted"),
    [
        (0, FILE, 0, True),
        (0, FILE | 0o020, 0, False),
        (0, FILE | 0o002, 0, False),
        (1000, FILE, 0, False),
        (1000, FILE, 1000, True),  # no root, no more rights than that user has anyway
        (1001, FILE, 1000, False),
        (0, DIRECTORY, 0, True),
        (0, STICKY, 0, True),
        (0, DIRECTORY | 0o002, 0, False),
        (1000, DIRECTORY, 0, False),
    ],
)
def test_only_what_nobody_else_can_write_is_trusted(
    owner: int, mode: int, runs_as: int, trusted: bool
) -> None:
    assert (distrust(owner, mode, runs_as) == "") is trusted
