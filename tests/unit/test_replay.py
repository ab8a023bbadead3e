"""A recording through a policy: the same decisions as then, others under another policy, and no world."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.builders import UNREACHABLE, a_report, a_snapshot, a_vm_id, answers, at, evidence
from vm_health.backoff import BackoffPolicy
from vm_health.evidence_codec import Recorded, encode_evidence, subject_of
from vm_health.model import Evidence, PowerState, Status
from vm_health.policy import Policy
from vm_health.replay import Timeline, compare, replay
from vm_health.silence import Subject
from vm_watchdog.cli import main

ROOT = Path(__file__).resolve().parents[2]
PATIENT = Policy(backoff=BackoffPolicy((60.0, 120.0), 0.0))


def seen(seconds: float, name: str = "web-1", *, down: bool = False) -> Evidence:
    """What one look at a VM found: both witnesses agree."""
    report = replace(a_report(down="web.service" if down else ()), vm_id=a_vm_id(name))
    report = replace(report, sample=replace(report.sample, taken_at=at(seconds)))
    return evidence(
        probe=answers(report),
        snapshot=a_snapshot(report, age=1, received_age=1, now=at(seconds)),
        vm_id=a_vm_id(name),
    )


def look(seconds: float, name: str = "web-1", *, down: bool = False) -> Recorded:
    return Recorded(at(seconds), seen(seconds, name, down=down), subject_of(a_vm_id(name)))


# As the watchdog with its default policy saw it: down at 0, restarted at 10.4, up at 15.4.
A_CRASH = [
    look(-60),
    look(0, down=True),
    look(10.4, down=True),
    look(15.4),
    look(20.6),
    look(60),
    look(120),
]


def told(timeline: Timeline) -> list[tuple[float, str]]:
    return [((entry.at - at(0)).total_seconds(), entry.kind) for entry in timeline.entries]


def one(looks: Iterable[Recorded], policy: Policy | None = None) -> Timeline:
    [timeline] = replay(looks, lambda _: policy or Policy())
    return timeline


def test_the_recorded_policy_decides_as_it_did() -> None:
    timeline = one(A_CRASH)
    kinds = [kind for _, kind in told(timeline)]
    assert (10.4, "restart") in told(timeline)
    assert kinds.count("restart") == 1
    assert timeline.count("alert") == 2
    assert [entry.reason.split(":")[0] for entry in timeline.entries if entry.kind == "alert"] == [
        "fired",
        "resolved",
    ]
    assert not any(entry.assumed for entry in timeline.entries)
    assert timeline.status is Status.HEALTHY
    assert timeline.critical_seconds == pytest.approx(20.6)


def test_a_more_patient_policy_would_not_have_restarted() -> None:
    timeline = one(A_CRASH, PATIENT)
    assert timeline.count("restart") == 0
    assert timeline.count("alert") == 2


def test_the_order_of_the_lines_does_not_matter() -> None:
    assert one(reversed(A_CRASH)) == one(A_CRASH)


def test_between_recorded_looks_the_last_one_is_taken_to_hold_and_that_is_said() -> None:
    """A quick policy asks for looks that nobody made: down at 0 and still at 60, so down in between."""
    looks = [look(-60), look(0, down=True), look(60, down=True)]
    quick = Policy(backoff=BackoffPolicy((5.0, 10.0, 20.0), 0.0))
    restarts = [entry for entry in one(looks, quick).entries if entry.kind == "restart"]
    assert ((restarts[0].at - at(0)).total_seconds(), restarts[0].assumed) == (5, True)
    assert len(restarts) >= 2


def test_a_recorded_look_that_came_a_little_late_is_not_anticipated() -> None:
    """Due at 10, seen up at 14.9: nobody restarts on what was seen at 0."""
    assert one([look(-60), look(0, down=True), look(14.9), look(60)]).count("restart") == 0
    assert one([look(-60), look(0, down=True), look(15.1), look(60)]).count("restart") == 1


def test_nothing_is_assumed_after_the_last_look() -> None:
    assert one([look(-60), look(0, down=True)]).count("restart") == 0


def test_each_vm_has_its_policy_and_its_timeline() -> None:
    looks = [*A_CRASH, *(look((one.at - at(0)).total_seconds(), "db-1", down=True) for one in A_CRASH)]
    policies = {"web-1": PATIENT, "db-1": Policy()}
    timelines = {
        timeline.name: timeline for timeline in replay(looks, lambda subject: policies[subject.name])
    }
    assert list(timelines) == ["db-1", "web-1"]
    assert timelines["web-1"].count("restart") == 0
    assert timelines["db-1"].count("restart") > 1
    assert timelines["db-1"].status is Status.CRITICAL


def test_a_vm_that_is_only_observed_would_have_been_restarted() -> None:
    timeline = one(A_CRASH, Policy(may_act=False))
    assert timeline.count("restart") == 0
    assert timeline.count("would_restart") == 1


def test_a_difference_is_told_once_and_what_is_common_is_not() -> None:
    before, after = one(A_CRASH), one(A_CRASH, PATIENT)
    differences = compare(before, after)
    assert [one.entry.kind for one in differences if one.sign == "-" and one.entry.kind == "restart"] == [
        "restart"
    ]
    assert [one for one in differences if one.sign == "+" and one.entry.kind == "restart"] == []
    assert "transition" in [one.entry.kind for one in differences if one.sign == " "]
    assert {one.sign for one in compare(before, before)} == {" "}
    mirrored = compare(after, before)
    swap = {"+": "-", "-": "+", " ": " "}
    assert sorted(swap[one.sign] for one in mirrored) == sorted(one.sign for one in differences)


# --- the command -----------------------------------------------------------------------------------------


def written(path: Path, looks: Iterable[Recorded]) -> str:
    path.write_text(
        "".join(encode_evidence(look.evidence, look.at, look.subject) + "\n" for look in looks),
        encoding="utf-8",
    )
    return str(path)


@pytest.fixture
def recording(tmp_path: Path) -> str:
    return written(tmp_path / "ticks.jsonl", A_CRASH)


@pytest.fixture
def patient(tmp_path: Path) -> str:
    path = tmp_path / "patient.toml"
    path.write_text("[defaults]\nbackoff_seconds = [60, 120]\n")
    return str(path)


def as_json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_the_command_says_what_would_have_happened(
    recording: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", recording], {}) == 0
    text = capsys.readouterr().out
    assert "1 VM, 7 looks from 2026-11-24 11:59:00 UTC to 2026-11-24 12:02:00 UTC" in text
    assert "web-1  CRITICAL for 21 s, 1 restart, 2 alerts, HEALTHY at the end" in text
    assert "12:00:10  restart " in text


def test_the_command_as_json(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", recording, "--json"], {}) == 0
    [vm] = as_json(capsys)["vms"]
    assert (vm["name"], vm["restarts"], vm["alerts"], vm["looks"]) == ("web-1", 1, 2, 7)
    assert vm["entries"][0]["kind"] == "transition"


def test_another_policy_beside_the_one_in_force(
    recording: str, patient: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = Path(patient).with_name("ours.toml")
    ours.write_text("[defaults]\n")
    arguments = ["replay", recording, "--policy", patient, "--against", str(ours)]
    assert main([*arguments, "--json"], {}) == 0
    [vm] = as_json(capsys)["vms"]
    assert (vm["before"]["restarts"], vm["after"]["restarts"], vm["differs"]) == (1, 0, True)
    assert main(arguments, {}) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("  - 12:00:10  restart ") for line in lines)
    assert not any(line.startswith("  + ") and " restart " in line for line in lines)


def test_two_policies_that_agree_say_so(
    recording: str, patient: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", recording, "--policy", patient, "--against", patient], {}) == 0
    assert "the same with both" in capsys.readouterr().out


def test_one_vm_of_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "two.jsonl", [*A_CRASH, look(0, "db-1")])
    assert main(["replay", path, "--vm", "DB-1", "--json"], {}) == 0
    assert [vm["name"] for vm in as_json(capsys)["vms"]] == ["db-1"]
    assert main(["replay", path, "--vm", "nobody"], {}) == 78
    assert "must hold a look at VM nobody" in capsys.readouterr().err


def test_a_tag_that_says_observe_holds_in_the_replay_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watched = Subject("web-1", "rg-web", {"watchdog": "observe"})
    path = written(tmp_path / "o.jsonl", [replace(look, subject=watched) for look in A_CRASH])
    assert main(["replay", path, "--json"], {}) == 0
    [vm] = as_json(capsys)["vms"]
    assert (vm["restarts"], vm["would_restart"]) == (0, 1)


def test_bad_lines_are_told_with_number_and_field_all_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = encode_evidence(seen(0), at(0))
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join([good, good.replace('"running"', '"asleep"', 1), "", "{", good]) + "\n")
    assert main(["replay", str(path)], {}) == 78
    told = capsys.readouterr().err
    assert f"{path} line 2: power must be one of" in told
    assert f"{path} line 4: must be JSON" in told
    assert "line 1:" not in told
    assert "line 3:" not in told


def test_only_the_first_twenty_faults_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text("{\n" * 50)
    assert main(["replay", str(path)], {}) == 78
    told = capsys.readouterr().err
    assert "line 20: must be JSON" in told
    assert "line 21:" not in told
    assert "only the first 20 are told" in told


@pytest.mark.parametrize("content", [b"\xff\xfe\n", b"", b"\n\n"])
def test_what_is_no_recording_is_said(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "none.jsonl"
    path.write_bytes(content)
    assert main(["replay", str(path)], {}) == 78
    assert str(path) in capsys.readouterr().err


def test_a_missing_recording_and_a_faulty_policy_are_told_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "p.toml"
    policy.write_text("[defaults]\nconfirm_down = 0\n")
    assert main(["replay", str(tmp_path / "none.jsonl"), "--policy", str(policy)], {}) == 78
    told = capsys.readouterr().err
    assert "none.jsonl must be a readable UTF-8 file" in told
    assert "p.toml: " in told


def test_a_stopped_vm_is_left_alone(tmp_path: Path) -> None:
    off = evidence(PowerState.DEALLOCATED, UNREACHABLE)
    looks = [
        look(-60),
        Recorded(at(0), off, subject_of(off.vm_id)),
        Recorded(at(60), off, subject_of(off.vm_id)),
    ]
    timeline = one(looks)
    assert (timeline.status, timeline.count("restart", "alert")) == (Status.STOPPED, 0)


def test_a_replay_loads_neither_azure_nor_aiohttp_and_reads_no_setting(recording: str) -> None:
    code = (
        "import sys\n"
        "from vm_watchdog.cli import main\n"
        f"code = main(['replay', {recording!r}], {{'WATCHDOG_NONSENSE': '1'}})\n"
        "bad = [name for name in sys.modules if name.split('.')[0] in ('azure', 'aiohttp', 'pydantic')]\n"
        "sys.exit(f'{code} {bad}' if code or bad else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
