"""The watchdog's command line over fakes: what it asks for, what it prints, how it ends."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import logging
import shlex
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.builders import NOW, VM_ID, at
from tests.fakes import World, a_watched_vm
from vm_health.errors import ConfigError, TransientError
from vm_health.evidence_codec import decode_evidence
from vm_health.model import Status
from vm_health.state import CommandResult
from vm_health.version import VERSION
from vm_watchdog.adapters import storage_queue
from vm_watchdog.app import Watchdog
from vm_watchdog.cli import main
from vm_watchdog.cli.history import moment_meant
from vm_watchdog.cli.logs import LineFormatter
from vm_watchdog.cli.output import Output, exit_code_of, span, table
from vm_watchdog.cli.parser import build_parser
from vm_watchdog.cli.run import handlers_of

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
LOGIN = {"LOGNAME": "jane"}


@dataclass
class Terminal:
    """Runs commands against a world and keeps what they say."""

    world: World
    capsys: pytest.CaptureFixture[str]
    error: Exception | None = None

    def run(self, *argv: str, environ: dict[str, str] | None = None) -> int:
        @asynccontextmanager
        async def connected() -> AsyncIterator[Watchdog]:
            if self.error is not None:
                raise self.error
            yield self.world.watchdog

        return main(argv, LOGIN if environ is None else environ, connected, self.world.clock)

    @property
    def out(self) -> str:
        return self.capsys.readouterr().out

    def json(self, *argv: str, code: int = 0) -> Any:
        assert self.run(*argv, "--json") == code
        return json.loads(self.out)


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str]) -> Terminal:
    """A terminal at a fleet of one healthy VM, web-1, as of NOW."""
    world = asyncio.run(a_watched_vm())
    world.clock.now = at(-30)
    return Terminal(world, capsys)


@pytest.fixture
def crashed(terminal: Terminal) -> Terminal:
    """web-1's service went down at second 0 and was restarted at second 10."""

    async def crash() -> None:
        terminal.world.is_down()
        await terminal.world.tick(0)
        await terminal.world.recheck(10)
        [(_, restart)] = terminal.world.runner.restarts
        terminal.world.runner.results[restart.token] = CommandResult(
            True, "restarted", {"result": "restarted", "main_pid": 4712}
        )
        await terminal.world.recheck(16)

    asyncio.run(crash())
    return terminal


# --- the parser and its help -----------------------------------------------------------------------------


def commands(parser: argparse.ArgumentParser | None = None, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Every command that can be called, as words."""
    parser = parser or build_parser()
    parts = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not parts:
        yield " ".join(path)
    for part in parts:
        for name, command in part.choices.items():
            yield from commands(command, (*path, name))


@pytest.mark.parametrize("command", list(commands()))
def test_every_command_has_help_with_exit_codes_and_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"], {})
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: vm-watchdog {command}" in text
    assert "--json" in text
    assert "exit codes: 0" in text
    assert "example" in text.split("exit codes:")[1]
    assert f"  vm-watchdog {command}" in text.split("exit codes:")[1] or "| jq" in text


@pytest.mark.parametrize("command", list(commands()))
def test_the_examples_in_help_are_understood(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"], {})
    lines = capsys.readouterr().out.splitlines()
    told = [line.strip() for line in lines if "  vm-watchdog " in line or "=observe vm-watchdog " in line]
    told = [line for line in told if not line.startswith("usage")]
    assert told
    for line in told:
        assert_understood(line)


def assert_understood(line: str) -> None:
    """A shell line with a command of ours: what comes before it and behind a pipe is not ours."""
    words = shlex.split(line.partition(" | ")[0].partition("  #")[0])
    build_parser().parse_args(words[words.index("vm-watchdog") + 1 :])


def test_the_document_has_every_command_and_every_command_in_it_is_understood() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    shown = [line[2:] for line in text.splitlines() if line.startswith("$ ") and "vm-watchdog " in line]
    for line in shown:
        assert_understood(line)
    assert {
        command for command in commands() if not any(f"vm-watchdog {command}" in line for line in shown)
    } == set()


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["frobnicate"],
        ["history"],
        ["history", "web-1", "--limit", "0"],
        ["history", "web-1", "--limit", "1001"],
        ["history", "web-1", "--since", "yesterday"],
        ["history", "web-1", "--since", "2026-11-24T12:00:00"],
        ["history", "web-1", "--at", "25:00"],
        ["history", "web-1", "--at", "03:12", "--since", "2h"],
        ["run", "--every", "0"],
        ["run", "--listen", "8080"],
        ["cost", "--vms", "0"],
        ["silence", "add", "--vm", "web-1", "--why", "x"],
        ["silence", "add", "--for", "2h", "--why", "x"],
        ["silence", "add", "--vm", "*", "--for", "2h", "--why", "x"],
        ["silence", "add", "--all", "--vm", "web-1", "--for", "2h", "--why", "x"],
        ["silence", "add", "--vm", "web-1", "--for", "91d", "--why", "x"],
        ["silence", "add", "--vm", "web-1", "--for", "2h", "--why", " "],
        ["silence", "add", "--vm", "web-1", "--for", "2h", "--until", "3h", "--why", "x"],
        ["restart", "web-1", "web;id", "--why", "x"],
        ["restart", "web-1", "web.service"],
        ["thaw", "--for", "soon", "--why", "x"],
        ["thaw", "--for", "2d", "--why", "x"],
        ["policy", "show"],
        ["policy", "show", "web-1", "--name", "web-1"],
        ["policy", "show", "--name", "web-1", "--tag", "no-value"],
        ["policy", "show", "web-1", "--file", "watchdog.toml"],
    ],
    ids=" ".join,
)
def test_wrong_arguments_end_with_64_and_a_word(terminal: Terminal, argv: list[str]) -> None:
    try:
        code: object = terminal.run(*argv)
    except SystemExit as ended:
        code = ended.code
    assert code == 64
    said = terminal.capsys.readouterr()
    assert said.out == ""
    assert "vm-watchdog" in said.err
    assert "Traceback" not in said.err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"], {})
    assert (ended.value.code, capsys.readouterr().out) == (0, f"vm-watchdog {VERSION}\n")


# --- what may go wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [["status"], ["tick"], ["run"], ["doctor"], ["silence", "list"]])
def test_wrong_settings_end_with_78_and_every_fault(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*argv, "--json"], {"WATCHDOG_MODE": "sometimes", "WATCHDOG_WORKSPACE": "x"}) == 78
    said = capsys.readouterr()
    assert said.out == ""
    for fault in (
        "WATCHDOG_MODE must be one of on, observe",
        "WATCHDOG_WORKSPACE is not a setting",
        "SUBSCRIPTIONS",
    ):
        assert fault in said.err


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["status"], 3),
        (["explain", "web-1"], 3),
        (["history", "web-1"], 3),
        (["tick"], 2),
        (["thaw", "--for", "1h", "--why", "x"], 2),
        (["restart", "web-1", "web", "--why", "x"], 2),
    ],
)
def test_what_azure_fails_is_unknown_where_one_looks_and_failed_where_one_acts(
    terminal: Terminal, argv: list[str], code: int
) -> None:
    terminal.world.store.error = TransientError("reading states: 503")
    terminal.error = TransientError("reading states: 503")
    assert terminal.run(*argv) == code
    said = terminal.capsys.readouterr()
    assert (said.out, said.err) == ("", "vm-watchdog: reading states: 503\n")


def test_what_nobody_foresaw_is_not_known_and_no_warning(terminal: Terminal) -> None:
    terminal.error = RuntimeError("the unforeseen")
    assert terminal.run("status") == 3
    assert "the unforeseen" in terminal.capsys.readouterr().err


@pytest.mark.parametrize("argv", [["explain", "web-2"], ["history", "web-2"], ["policy", "show", "web-2"]])
def test_a_vm_that_nobody_knows(terminal: Terminal, argv: list[str]) -> None:
    assert terminal.run(*argv) == 3
    assert "no VM is named 'web-2'; near it: web-1" in terminal.capsys.readouterr().err


# --- looking ---------------------------------------------------------------------------------------------


def test_status_of_a_fleet_at_rest(terminal: Terminal) -> None:
    assert terminal.run("status") == 0
    assert terminal.out == ("1 VM: 1 HEALTHY\ntick     2026-11-24 11:59:00 UTC, 30 s ago\n")


def test_status_of_a_fleet_in_trouble_names_who_needs_people(crashed: Terminal) -> None:
    assert crashed.run("status") == 2
    lines = crashed.out.splitlines()
    assert lines[0] == "1 VM: 1 CRITICAL"
    assert "CRITICAL web-1  service_down since 2026-11-24 12:00:00 UTC" in lines
    assert any("web.service: 1 attempt, the next not before 12:00:30" in line for line in lines)
    assert crashed.json("status", code=2)["needing"][0]["name"] == "web-1"


def test_status_is_unknown_where_the_watchdog_itself_has_stopped(terminal: Terminal) -> None:
    """What was fine an hour ago is no news: a green page over a dead watchdog is the worst answer."""
    terminal.world.clock.now = at(3_600)
    assert terminal.run("status") == 3
    assert "that is long ago, what follows is old" in terminal.out
    terminal.world = World()
    assert terminal.run("status") == 3
    assert "no tick has ended yet" in terminal.out


def test_status_tells_of_freezes_and_silences(terminal: Terminal) -> None:
    assert terminal.run("silence", "add", "--all", "--for", "1h", "--why", "drill") == 0
    terminal.world.inventory.targets.clear()
    asyncio.run(terminal.world.tick(0))
    terminal.capsys.readouterr()
    code = terminal.run("status")
    text = terminal.out
    assert code == 1
    assert "frozen   " in text
    assert "alerts of every VM until 2026-11-24 12:59:30 UTC, jane: drill" in text


def test_explain_says_what_is_seen_concluded_and_would_be_done(crashed: Terminal) -> None:
    before = len(crashed.world.runner.restarts)
    assert crashed.run("explain", "web-1") == 2
    text = crashed.out
    for words in (
        "CRITICAL  web-1 in rg-web",
        "seen    Azure says that the VM is running",
        "web.service",
        "so      ",
        "would   ",
        "values are not built in (policy show has all)",
    ):
        assert words in text
    assert len(crashed.world.runner.restarts) == before
    seen = crashed.json("explain", "WEB-1", code=2)
    assert seen["status"] == "CRITICAL"


def test_history_is_told_oldest_first(crashed: Terminal) -> None:
    assert crashed.run("history", "web-1") == 0
    kinds = [line.split("  ")[1].strip() for line in crashed.out.splitlines()]
    order = ["transition", "backoff", "restart", "restart_sent", "restart_done"]
    assert [kind for kind in kinds if kind in order][-len(order) :] == order
    newest = crashed.json("history", "web-1", "--limit", "1")
    assert newest["has_more"] is True
    assert newest["events"][0]["kind"] == "restart_done"


def test_history_of_a_time(crashed: Terminal) -> None:
    events = crashed.json("history", "web-1", "--since", "10s", "--until", "3s")["events"]
    assert [event["kind"] for event in events] == ["restart_sent", "restart"]
    assert crashed.json("history", "web-1", "--since", "2026-11-24T13:00:00+00:00")["events"] == []
    assert crashed.run("history", "web-1", "--since", "2026-11-24T13:00:00Z") == 0
    assert crashed.out == "web-1: no history in that time\n"


def test_why_was_this_restarted_at_noon_is_answered_in_one_call(crashed: Terminal) -> None:
    """The decision with its reason, the evidence, the limits, what was sent, what came back."""
    crashed.world.clock.now = at(3_600 * 3)
    assert crashed.run("history", "web-1", "--at", "12:00") == 0
    text = crashed.out
    for words in (
        "2026-11-24 12:00:10 UTC  web-1  restart",
        "why        restart attempt 1 of 6",
        "evidence   Azure says that the VM is running; ",
        "seen by    ",
        "max_attempts 6",
        "backoff_seconds [10, 20, 40, 80, 160, 300]",
        "sent       12:00:10 restart_sent: web.service: ",
        "(lane managed, started)",
        "came back  12:00:16 restart_done: web.service: restarted",
        "main_pid 4712",
        "before     12:00:00 transition: HEALTHY -> CRITICAL",
    ):
        assert words in text, text
    found = crashed.json("history", "web-1", "--at", "12:00")
    assert found["decision"]["detail"]["evidence"].startswith("Azure says")
    assert {event["kind"] for event in found["related"]} >= {"restart_sent", "restart_done", "transition"}
    assert found["policy_now"]["max_attempts"]["value"] == 6


def test_a_time_at_which_nothing_was_decided(crashed: Terminal) -> None:
    crashed.world.clock.now = at(3_600 * 3)
    assert crashed.run("history", "web-1", "--at", "13:30") == 2
    assert "nothing was decided on within 10 minutes of 2026-11-24 13:30:00 UTC" in crashed.out
    assert crashed.json("history", "web-1", "--at", "13:30", code=2)["decision"] is None


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("11:59", NOW.replace(hour=11, minute=59)),
        ("12:00", NOW),
        ("12:01", NOW.replace(day=23, minute=1)),
        ("3:12:07", NOW.replace(hour=3, minute=12, second=7)),
        ("2026-11-20T03:12:00+01:00", NOW.replace(day=20, hour=2, minute=12)),
        ("2h", NOW.replace(hour=10)),
    ],
)
def test_what_at_means(text: str, moment: datetime) -> None:
    assert moment_meant(text, NOW) == moment


def test_would_have(terminal: Terminal) -> None:
    async def observe() -> None:
        terminal.world.add_vm("web-1", mode="observe")
        terminal.world.is_down()
        await terminal.world.tick(0)
        await terminal.world.recheck(10)

    assert terminal.run("would-have") == 0
    assert "nothing was held back since 2026-11-17 11:59:30 UTC" in terminal.out
    asyncio.run(observe())
    assert terminal.run("would-have", "--days", "1") == 0
    assert "2026-11-24 12:00:10 UTC  web-1  would_restart" in terminal.out
    [event] = terminal.json("would-have")["events"]
    assert event["kind"] == "would_restart"


# --- asking ----------------------------------------------------------------------------------------------


def test_a_silence_from_begin_to_end(terminal: Terminal) -> None:
    match = ["--vm", "web-*", "--tag", "Team=da*"]
    made = terminal.json("silence", "add", *match, "--for", "2h", "--stops", "both", "--why", "kernel")
    assert (made["created_by"], made["stops"], made["ends_at"]) == ("jane", "both", "2026-11-24T13:59:30Z")
    assert terminal.run("silence", "list") == 0
    assert (
        f"{made['id']}  both of vm web-*, tag team=da* until 2026-11-24 13:59:30 UTC, jane: kernel"
        in terminal.out
    )
    terminal.world.clock.now = at(0)
    assert terminal.run("silence", "end", made["id"], "--by", "bob") == 0
    assert terminal.out.startswith(f"ended: {made['id']}")
    assert terminal.json("silence", "list") == {"silences": []}
    assert terminal.run("silence", "list") == 0
    assert terminal.out == "no silence is in force or to come\n"
    assert terminal.run("silence", "end", made["id"]) == 2
    kinds = [event["kind"] for event in terminal.json("history", "fleet")["events"]]
    assert kinds == ["silence_ended", "silenced"]


def test_a_silence_for_later(terminal: Terminal) -> None:
    assert (
        terminal.run("silence", "add", "--group", "rg-web", "--from", "1h", "--for", "30m", "--why", "x") == 0
    )
    assert "alerts of group rg-web from 2026-11-24 12:59:30 UTC until 2026-11-24 13:29:30 UTC" in terminal.out


def test_every_fault_of_a_silence_is_told_at_once(terminal: Terminal) -> None:
    assert terminal.run("silence", "add", "--vm", "a b", "--for", "2 hours", "--why", "") == 64
    said = terminal.capsys.readouterr().err
    for field in ("vm must be", "until must be", "why "):
        assert field in said


@pytest.mark.parametrize(
    ("environ", "by"),
    [
        ({"LOGNAME": "jane"}, "jane"),
        ({"LOGNAME": "root", "SUDO_USER": "bob"}, "bob"),
    ],
)
def test_who_asks_is_who_is_logged_in(terminal: Terminal, environ: dict[str, str], by: str) -> None:
    argv = ["silence", "add", "--vm", "web-1", "--for", "1h", "--why", "x", "--json"]
    assert terminal.run(*argv, environ=environ) == 0
    assert json.loads(terminal.out)["created_by"] == by


def test_a_restart_by_hand_goes_through_the_same_safety_and_into_the_history(terminal: Terminal) -> None:
    terminal.world.clock.now = at(0)
    asked = terminal.json("restart", "web-1", "web", "--why", "new certificate")
    [(vm_id, restart)] = terminal.world.runner.restarts
    assert (vm_id, restart.unit, restart.token) == (VM_ID, "web.service", asked["token"])
    terminal.world.clock.now = at(60)
    assert terminal.run("history", "web-1", "--at", "12:00") == 0
    assert "asked by   jane: new certificate" in terminal.out


def test_a_restart_that_is_held_is_refused_with_the_reason(terminal: Terminal) -> None:
    terminal.world.add_vm("web-1", mode="observe")
    assert terminal.run("restart", "web-1", "web.service", "--why", "x") == 2
    assert "web.service on web-1 was not restarted: only observing" in terminal.capsys.readouterr().err
    assert terminal.world.runner.restarts == []


def test_a_thaw(terminal: Terminal) -> None:
    assert terminal.run("thaw", "--for", "30m", "--why", "on purpose", "--by", "bob") == 0
    assert terminal.out == "thawed until 2026-11-24 12:29:30 UTC by bob; overruled: nothing is frozen now\n"


# --- ticking ---------------------------------------------------------------------------------------------


def test_a_tick_prints_its_record(terminal: Terminal) -> None:
    assert terminal.run("tick") == 0
    assert terminal.out == "tick at 2026-11-24 11:59:30 UTC, 0.0 s: 1 VM: 1 HEALTHY\n"
    record = terminal.json("tick")
    assert (record["targets"], record["statuses"]) == (1, {"HEALTHY": 1})


def test_a_tick_with_troubles_is_a_warning(terminal: Terminal) -> None:
    terminal.world.telemetry.error = TransientError("504")
    assert terminal.run("tick") == 1
    assert "trouble: telemetry is unavailable" in terminal.out


def test_a_tick_by_hand_looks_at_every_vm_itself(terminal: Terminal) -> None:
    terminal.world.shard_size = 1
    terminal.world.add_vm("web-2")
    terminal.world.all_is_fine("web-2")
    assert terminal.json("tick")["statuses"] == {"HEALTHY": 2}
    assert terminal.world.queue.shards == []


def test_what_a_tick_records_can_be_replayed(terminal: Terminal, tmp_path: Path) -> None:
    """Two ticks into one file: the second is appended, and tags are recorded too."""
    path = tmp_path / "ticks.jsonl"
    assert terminal.run("tick", "--record", str(path)) == 0
    terminal.world.is_down()
    terminal.world.clock.now = at(0)
    assert terminal.run("tick", "--record", str(path)) == 0
    looks = [decode_evidence(line) for line in path.read_text().splitlines()]
    assert [look.at for look in looks] == [at(-30), at(0)]
    assert looks[0].subject.tags["watchdog"] == "on"
    assert looks[0].subject.group == "rg-web"
    terminal.capsys.readouterr()
    assert terminal.json("replay", str(path))["vms"][0]["status"] == Status.CRITICAL


def test_a_recording_that_cannot_be_written_is_a_fault_and_no_tick(
    terminal: Terminal, tmp_path: Path
) -> None:
    assert terminal.run("tick", "--record", str(tmp_path / "none" / "ticks.jsonl")) == 78
    assert "must be a file that can be written" in terminal.capsys.readouterr().err
    assert terminal.world.journal.take() == []


def test_run_serves_the_queues_that_the_watchdog_sends_to() -> None:
    names = {storage_queue.RECHECK_QUEUE, storage_queue.SHARD_QUEUE, storage_queue.ALERT_QUEUE}
    assert set(handlers_of(World().watchdog)) == names


# --- policy ----------------------------------------------------------------------------------------------

POLICY = """\
[defaults]
confirm_down = 3

[groups.web]
max_attempts = 4
"""


@pytest.fixture
def policy(tmp_path: Path) -> str:
    path = tmp_path / "p.toml"
    path.write_text(POLICY)
    return str(path)


def test_a_policy_that_is_right(terminal: Terminal, policy: str) -> None:
    assert terminal.run("policy", "check", policy) == 0
    assert terminal.out == (
        f"{policy} is right: 1 value in [defaults], 1 group rule, 0 VM rules, 0 maintenance windows\n"
    )
    assert terminal.run("policy", "check") == 0  # the app's own


def test_a_policy_that_is_wrong_is_told_whole(terminal: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("[defaults]\nconfirm_down = 0\nmax_atempts = 3\n[groups.web]\nconfirm_up = 'x'\n")
    assert terminal.run("policy", "check", str(path)) == 78
    said = terminal.capsys.readouterr().err
    for words in ("confirm_down", "max_atempts", "groups.web.confirm_up"):
        assert words in said
    assert terminal.run("policy", "check", str(tmp_path / "none.toml")) == 78


def test_what_applies_to_a_vm_and_from_where_without_asking_azure(terminal: Terminal, policy: str) -> None:
    terminal.error = ConfigError("nobody", ["asks"])
    argv = ["policy", "show", "--name", "web-1", "--group", "web", "--tag", "watchdog-ladder=redeploy"]
    found = terminal.json(*argv, "--file", policy)["policy"]
    assert found["confirm_down"] == {"value": 3, "source": "p.toml [defaults]"}
    assert found["max_attempts"] == {"value": 4, "source": "[groups.web]"}
    assert found["ladder"] == {"value": ["redeploy"], "source": "tag watchdog-ladder"}
    assert found["confirm_up"]["source"] == "default"
    assert terminal.run(*argv, "--file", policy) == 0
    assert any(line.split() == ["max_attempts", "4", "[groups.web]"] for line in terminal.out.splitlines())


def test_a_tag_that_cannot_be_read_is_said(terminal: Terminal, policy: str) -> None:
    argv = ["policy", "show", "--name", "web-1", "--tag", "watchdog-ladder=up", "--file", policy]
    assert terminal.run(*argv) == 0
    assert "tag watchdog-ladder must be none, or a list" in terminal.capsys.readouterr().err


def test_what_applies_to_a_vm_that_azure_knows(terminal: Terminal) -> None:
    found = terminal.json("policy", "show", "web-1")
    assert (found["name"], found["group"], found["policy"]["max_attempts"]["value"]) == ("web-1", "rg-web", 6)


# --- output ----------------------------------------------------------------------------------------------


class Tty(io.StringIO):
    """Text that claims to be shown on a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("out", "environ", "coloured"),
    [
        (Tty(), {}, True),
        (Tty(), {"NO_COLOR": ""}, True),
        (Tty(), {"NO_COLOR": "1"}, False),
        (Tty(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    out: io.StringIO, environ: dict[str, str], coloured: bool
) -> None:
    output = Output(environ, out=out)
    assert (output.tint("CRITICAL") != "CRITICAL") is coloured
    assert output.tint("anything") == "anything"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (90, "1 min 30 s"),
        (3_600, "1 h"),
        (3_605, "1 h"),
        (86_400 + 7_200, "1 d 2 h"),
        (-5, "0 s"),
    ],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_tables_are_aligned_but_for_the_last_column() -> None:
    assert table([("a", "bbb", "c"), ("aaa", "b", "cccc")]) == ["a    bbb  c", "aaa  b    cccc"]
    assert table([]) == []


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ([], 0),
        ([Status.HEALTHY, Status.STOPPED, Status.MAINTENANCE], 0),
        ([Status.HEALTHY, Status.UNKNOWN], 3),
        ([Status.UNKNOWN, Status.WARNING], 1),
        ([Status.WARNING, Status.CRITICAL, Status.UNKNOWN], 2),
    ],
)
def test_the_worst_status_is_the_exit_code(statuses: list[Status], code: int) -> None:
    assert exit_code_of(statuses) == code


@pytest.mark.parametrize(
    ("as_json", "check"),
    [
        (True, lambda line: json.loads(line)["extra"] == {"vm": "web 1", "n": 3}),
        (False, lambda line: line.endswith('INFO decision  vm="web 1" n=3')),
    ],
)
def test_log_lines_carry_their_fields(as_json: bool, check: Callable[[str], bool]) -> None:
    record = logging.makeLogRecord(
        {"msg": "decision", "levelname": "INFO", "levelno": 20, "name": "x", "vm": "web 1", "n": 3}
    )
    assert check(LineFormatter(as_json=as_json).format(record))
