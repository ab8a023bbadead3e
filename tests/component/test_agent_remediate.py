"""`vm-agent remediate` as Run Command calls it: variables in, one marked line and an exit code out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.component.agent_site import Site, shown
from vm_agent.allow_list import read_allow_list
from vm_agent.fence import Fence
from vm_health.errors import PermanentError

pytest_plugins = ["tests.component.agent_fixtures"]
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.fixture
def place(place: Site) -> Site:
    """web.service is down, allowed, and up again once it is restarted."""
    (place.directory / "allow").write_text("# ours\nweb.service\n")
    (place.directory / "allow").chmod(0o644)
    place.systemd_says(shown("failed/failed", 0))
    (place.directory / "after").write_text(shown(pid=43))
    return place


def remediate(place: Site, *arguments: str, **variables: str) -> tuple[int, dict[str, Any]]:
    done = place.command(
        "remediate",
        *arguments,
        VM_AGENT_ALLOW_LIST=str(place.directory / "allow"),
        VM_AGENT_ROOT_STATE_DIR=str(place.directory / "state"),
        **variables,
    )
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    result: dict[str, Any] = json.loads(line.removeprefix("VM_AGENT_RESULT "))
    return done.returncode, result


def changes(place: Site) -> list[str]:
    return [call for call in place.calls() if not call.startswith("show")]


def test_restarts_once_for_a_token(place: Site) -> None:
    code, result = remediate(place, UNIT="web.service", TOKEN="t-1")
    assert (code, result["result"], result["active_state"], result["main_pid"]) == (
        0,
        "restarted",
        "active",
        43,
    )
    assert changes(place) == ["reset-failed -- web.service", "restart -- web.service"]
    code, result = remediate(place, UNIT="web.service", TOKEN="t-1")
    assert (code, result["result"]) == (5, "duplicate")
    assert len(changes(place)) == 2
    code, _ = remediate(place, "--unit", "web.service", "--token", "t-2", UNIT="other.service", TOKEN="t-1")
    assert code == 0


def test_twice_at_once_is_one_restart(place: Site) -> None:
    """Two deliveries of one message, side by side as processes."""
    settings = {
        "VM_AGENT_ALLOW_LIST": str(place.directory / "allow"),
        "VM_AGENT_ROOT_STATE_DIR": str(place.directory / "state"),
        "UNIT": "web.service",
        "TOKEN": "t-1",
    }
    command = [sys.executable, "-m", "vm_agent", "remediate"]
    processes = [
        subprocess.Popen(command, env=place.environment(settings), stdout=subprocess.DEVNULL)
        for _ in range(4)
    ]
    assert sorted(process.wait(30) for process in processes) == [0, 5, 5, 5]
    assert changes(place).count("restart -- web.service") == 1


@pytest.mark.parametrize(
    ("unit", "token"),
    [
        ("db.service", "t-1"),
        ("web", "t-1"),
        ("web.service;id", "t-1"),
        ("web.service", "t 1"),
        ("", ""),
        ("--now", "t"),
    ],
)
def test_refusals_touch_nothing(place: Site, unit: str, token: str) -> None:
    code, result = remediate(place, f"--unit={unit}", f"--token={token}")
    assert (code, result["result"]) == (4, "refused")
    assert result["reason"]
    assert place.calls() == []
    assert not (place.directory / "state").exists()


def test_the_agent_itself_needs_no_list(place: Site) -> None:
    (place.directory / "allow").unlink()
    assert remediate(place, UNIT="vm-agent.service", TOKEN="t-1")[0] == 0
    code, result = remediate(place, UNIT="web.service", TOKEN="t-2")
    assert code == 4
    assert "cannot be opened (No such file or directory)" in result["reason"]


def test_what_systemd_could_not_do_is_told_in_its_words(place: Site) -> None:
    (place.directory / "fail").write_text("Job for web.service failed.\nSee journal.\n")
    code, result = remediate(place, UNIT="web.service", TOKEN="t-1")
    assert (code, result["result"], result["reason"]) == (6, "failed", "Job for web.service failed.")
    assert result["active_state"] == "failed"


def test_a_bad_setting_of_remediate_is_a_refusal_on_the_one_line(place: Site) -> None:
    done = place.command(
        "remediate", UNIT="web.service", TOKEN="t", VM_AGENT_ALLOW_LIST="here", VM_AGENT_UNITS=";"
    )
    assert done.returncode == 4
    result = json.loads(done.stdout.removeprefix("VM_AGENT_RESULT "))
    assert result["reason"].startswith("VM_AGENT_ALLOW_LIST must be an absolute path")


def test_an_allow_list_that_others_can_write_is_not_believed(tmp_path: Path) -> None:
    file = tmp_path / "allow"
    file.write_text("web.service\n")
    file.chmod(0o644)
    assert read_allow_list(str(file)) == {"web.service"}
    file.chmod(0o664)
    with pytest.raises(PermanentError, match="has mode 0664, must not be writable"):
        read_allow_list(str(file))
    file.chmod(0o644)
    tmp_path.chmod(0o777)
    with pytest.raises(PermanentError, match="has mode 0777"):
        read_allow_list(str(file))


def test_an_allow_list_is_never_a_link_a_pipe_or_a_directory(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("web.service\n")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "directory").mkdir(mode=0o755)
    os.mkfifo(tmp_path / "pipe", 0o644)
    for name in ("link", "directory", "pipe"):
        with pytest.raises(PermanentError):
            read_allow_list(str(tmp_path / name))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_an_allow_list_of_another_user_is_not_believed(tmp_path: Path) -> None:
    file = tmp_path / "allow"
    file.write_text("web.service\n")
    file.chmod(0o644)
    os.chown(file, 12345, 12345)
    with pytest.raises(PermanentError, match="belongs to user 12345, must be root's"):
        read_allow_list(str(file))


def test_the_fence_keeps_the_last_200_tokens_and_is_private(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    fence = Fence(str(directory))
    assert fence.claim("first", "web.service", NOW)
    file = directory / "fence.json"
    tokens = [{"token": f"t{number}", "unit": "web.service", "at": ""} for number in range(200)]
    file.write_text(json.dumps({"tokens": tokens}))
    assert fence.claim("new", "web.service", NOW)
    kept = [entry["token"] for entry in json.loads(file.read_text())["tokens"]]
    assert (len(kept), kept[0], kept[-1]) == (200, "t1", "new")
    assert not fence.claim("new", "web.service", NOW)
    assert file.stat().st_mode & 0o077 == 0
    assert directory.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"tokens": 5}', '{"tokens": [1]}'])
def test_a_damaged_fence_refuses_rather_than_forgets(tmp_path: Path, content: str) -> None:
    fence = Fence(str(tmp_path / "state"))
    fence.claim("first", "web.service", NOW)
    (tmp_path / "state" / "fence.json").write_text(content)
    with pytest.raises(PermanentError, match="is damaged"):
        fence.claim("second", "web.service", NOW)


def test_a_fence_that_others_can_write_is_not_believed(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(PermanentError, match="fence is not trusted"):
        Fence(str(directory)).claim("t", "web.service", NOW)
