"""What is read from texts: mount tables, journals, Git's status, announced events, log lines with secrets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.unit.agent_builders import NOW
from vm_agent import mounts
from vm_agent.collectors.checkouts import parse_status
from vm_agent.collectors.clock import ClockCollector
from vm_agent.collectors.journal import JournalCollector
from vm_agent.collectors.scheduled_events import ScheduledEventsCollector, parse_events
from vm_agent.commands import Output
from vm_agent.error_window import ErrorWindow
from vm_agent.log_text import excerpt
from vm_health.errors import TransientError
from vm_health.model import GitSample, LogSample, ScheduledEvent

MOUNTINFO = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
25 24 0:23 / /dev/shm rw,relatime - tmpfs tmpfs rw
27 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,discard
28 27 8:15 / /boot/efi rw - vfat /dev/sda15 rw
29 27 8:17 / /mnt rw - ext4 /dev/sdb1 rw
30 27 8:17 / /mnt/again rw - ext4 /dev/sdb1 rw
31 27 8:1 /var/lib/data /srv/bound rw - ext4 /dev/sda1 rw
32 27 7:0 / /snap/core/1 ro - squashfs /dev/loop0 ro
33 27 11:0 / /media/cdrom ro - iso9660 /dev/sr0 ro
34 27 0:50 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw
35 27 0:51 / /nfs rw - nfs4 server:/x rw
36 27 0:52 / /auto rw - autofs systemd-1 rw
37 27 0:60 /@data /data\040disk rw - btrfs /dev/sdc1 rw
38 27 0:60 /@home /home rw - btrfs /dev/sdc1 rw
39 27 8:33 / /hidden rw - xfs /dev/sdd1 rw
40 39 0:61 / /hidden rw - tmpfs tmpfs rw
nonsense
"""


def test_only_file_systems_on_disks_are_real_and_each_counts_once() -> None:
    assert mounts.real(mounts.parse(MOUNTINFO)) == ("/", "/boot/efi", "/home", "/mnt")
    points = [mount.point for mount in mounts.parse(MOUNTINFO)]
    assert "/data disk" in points
    assert points.count("/hidden") == 1


def test_the_root_counts_whatever_it_lies_on() -> None:
    text = "66 42 0:40 / / rw - overlay overlay rw\n92 66 254:0 /share /run/host rw - ext4 /dev/vda rw\n"
    assert mounts.real(mounts.parse(text)) == ("/",)


SECRETS = [
    ("login with password=hunter2 failed", "hunter2"),
    ('{"db_password": "hunter2", "user": "me"}', "hunter2"),
    ("PGPASSWORD='hunter2 with blanks' psql", "hunter2"),
    ("token: abc.def-ghi", "abc.def"),
    ("GET /x?code=1&sig=AbC%2F123&se=2026", "AbC"),
    ("x-functions-key=s3cr3t==", "s3cr3t"),
    ("Authorization: Bearer eyJhbGciOi.eyJzdWIi.c2ln", "eyJ"),
    ("authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
    ("amqps://user:hunter2@host/vhost unreachable", "hunter2"),
    ("postgresql+psycopg://me:hunter2@db:5432/x", "hunter2"),
    ("Endpoint=sb://x/;SharedAccessKeyName=r;SharedAccessKey=abc123=;EntityPath=q", "abc123"),
    ("DefaultEndpointsProtocol=https;AccountName=a;AccountKey=abc123==;", "abc123"),
    ("InstrumentationKey=0000-1111;IngestionEndpoint=https://x/", "0000-1111"),
    ("api_key='abc123'", "abc123"),
    ("client-secret = abc123", "abc123"),
]


@pytest.mark.parametrize(("line", "secret"), SECRETS)
def test_what_looks_like_a_secret_is_masked(line: str, secret: str) -> None:
    found = excerpt(line)
    assert secret not in found
    assert "***" in found


@pytest.mark.parametrize(
    "line", ["ERROR monkey business at turkey=5", "KeyError: 'x'", "ERROR 404 in tokenizer.py line 7"]
)
def test_what_is_no_secret_stays(line: str) -> None:
    assert excerpt(line) == line


def test_an_excerpt_is_short_printable_and_quick() -> None:
    assert excerpt("\x1b[31mERROR\x1b[0m\ttwo\nlines \ud800") == "[31mERROR [0m two lines"
    assert len(excerpt("x" * 1_000_000)) == 200
    assert excerpt("password=" * 100_000).count("***") >= 1
    assert len(excerpt("a-" * 100_000)) == 200


def test_errors_are_recent_for_a_window_and_counted_up_to_a_bound() -> None:
    window = ErrorWindow("web.service", 900)
    window.add(100.0, "first")
    window.add(200.0, "second password=x")
    assert window.sample(200.0) == LogSample("web.service", 2, "second password=***")
    assert window.sample(1000.0) == LogSample("web.service", 1, "second password=***")
    assert window.sample(1100.0) == LogSample("web.service", 0, "")
    for _ in range(5000):
        window.add(1100.0, "again")
    assert window.sample(1100.0).errors == 1000


class Journalctl:
    """Answers what it is told to, and keeps how it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.output = Output(0, b"-- No entries --\n")

    def __call__(self, arguments: Sequence[str]) -> Output:
        self.asked.append(arguments[-1])
        return self.output

    def says(self, *entries: dict[str, Any], exit_code: int = 0, was_cut: bool = False) -> None:
        text = "\n".join(json.dumps(entry) for entry in entries)
        self.output = Output(exit_code, text.encode() + b"\n{cut off", was_cut)


def an_entry(cursor: str, message: Any, age_seconds: float = 0.0, **fields: str) -> dict[str, Any]:
    at = int((NOW - timedelta(seconds=age_seconds)).timestamp() * 1e6)
    unit = fields or {"_SYSTEMD_UNIT": "web.service"}
    return {"__CURSOR": cursor, "__REALTIME_TIMESTAMP": str(at), "MESSAGE": message, **unit}


def a_journal(run: Journalctl, *, required: bool = False) -> JournalCollector:
    return JournalCollector(
        ("web.service", "db.service"),
        window_seconds=900,
        interval_seconds=60,
        required=required,
        run=run,
        monotonic=lambda: 5000.0,
    )


def test_the_journal_is_read_from_the_window_once_and_then_from_the_cursor() -> None:
    run = Journalctl()
    journal = a_journal(run)
    assert journal.collect(NOW) == {"logs": (LogSample("web.service", 0), LogSample("db.service", 0))}
    run.says(
        an_entry("c1", "too old", 901),
        an_entry("c2", [98, 97, 100, 255], 10),
        an_entry("c3", None, -1e6),  # the clock was set back since
        an_entry("c4", "Failed to start", 1, _SYSTEMD_UNIT="init.scope", UNIT="db.service"),
        an_entry("c5", "not ours", 1, _SYSTEMD_UNIT="other.service"),
    )
    found = journal.collect(NOW)
    assert found["logs"] == (
        LogSample("web.service", 2, "(a very long message)"),
        LogSample("db.service", 1, "Failed to start"),
    )
    run.says()
    journal.collect(NOW)
    since = f"--since=@{NOW.timestamp() - 900:.0f}"
    assert run.asked == [since, since, "--after-cursor=c5"]


DENIED = Output(1, b"No journal files were opened due to insufficient permissions.\n")
HINTED = Output(0, b"Hint: You are currently not seeing messages from other users and the system.\n")


@pytest.mark.parametrize("output", [DENIED, HINTED])
def test_a_journal_that_may_not_be_read_is_left_alone_unless_it_is_required(output: Output) -> None:
    run = Journalctl()
    run.output = output
    journal = a_journal(run)
    assert [journal.collect(NOW), journal.collect(NOW), len(run.asked)] == [{}, {}, 1]
    with pytest.raises(TransientError, match="journalctl"):
        a_journal(run, required=True).collect(NOW)


def test_a_cursor_that_is_gone_is_told_and_the_window_read_again() -> None:
    run = Journalctl()
    journal = a_journal(run)
    run.says(an_entry("c1", "boom", 10))
    journal.collect(NOW)
    run.output = Output(1, b"Failed to seek to cursor: Invalid argument\n")
    with pytest.raises(TransientError, match="seek"):
        journal.collect(NOW)
    run.says(an_entry("c1", "boom", 10))
    assert journal.collect(NOW)["logs"][0] == LogSample("web.service", 1, "boom")
    assert run.asked[-1].startswith("--since=")


STATUS = """\
# branch.oid 0123456789abcdef0123456789abcdef01234567
# branch.head main
# branch.upstream origin/main
# branch.ab +1 -3
1 .M N... 100644 100644 100644 aa bb app.py
"""


@pytest.mark.parametrize(
    ("text", "branch", "is_dirty", "behind", "problem"),
    [
        (STATUS, "main", True, 3, ""),
        ("# branch.oid aa\n# branch.head (detached)\n", "", False, 0, ""),
        ("# branch.oid aa\n# branch.head main\n", "main", False, 0, ""),
        (
            "# branch.oid aa\n# branch.head main\n# branch.upstream origin/x\n",
            "main",
            False,
            0,
            "has an upstream that is gone (origin/x)",
        ),
        ("", "", False, 0, ""),
    ],
)
def test_git_status_is_read(text: str, branch: str, is_dirty: bool, behind: int, problem: str) -> None:
    found = parse_status("/srv/app", text.splitlines())
    assert found == GitSample("/srv/app", found.commit, branch, is_dirty, behind, problem)
    assert found.commit == (text.splitlines() or ["# branch.oid "])[0].removeprefix("# branch.oid ")


def test_announced_events_are_relayed_and_nonsense_is_left_out() -> None:
    event = {
        "EventId": "A1",
        "EventType": "Redeploy",
        "EventStatus": "Scheduled",
        "NotBefore": "Mon, 19 Sep 2026 18:29:47 GMT",
        "Description": "x" * 5000,
        "Resources": ["vm1"],
    }
    begun = {"EventId": "A2", "EventType": "Reboot", "EventStatus": "Started", "NotBefore": ""}
    odd: list[Any] = [None, 7, {}, {"EventId": 7}, {"EventId": "A3", "NotBefore": "soon", "EventType": None}]
    found = parse_events({"DocumentIncarnation": 1, "Events": [event, begun, *odd]})
    moment = datetime(2026, 9, 19, 18, 29, 47, tzinfo=UTC)
    assert found[0] == ScheduledEvent("A1", "Redeploy", "Scheduled", moment, "x" * 200)
    assert found[1:] == (
        ScheduledEvent("A2", "Reboot", "Started", None, ""),
        ScheduledEvent("A3", "", "", None, ""),
    )
    assert parse_events({"Events": [event] * 100}) == (found[0],) * 20
    assert parse_events({}) == parse_events({"Events": "none"}) == ()


def test_what_is_announced_for_other_vms_of_the_set_is_left_out() -> None:
    """All VMs of an availability set are told of each other's events; only its own excuse a VM."""

    def event(number: int, *resources: object) -> dict[str, Any]:
        return {"EventId": f"A{number}", "EventStatus": "Started", "Resources": list(resources)}

    nobody = {"EventId": "A9", "Resources": "VM-1"}
    events = [event(1, "vm-2"), event(2, 7, "vm-2", "VM-1"), event(3), event(4, "vm-11"), nobody]
    known: list[str] = [""]
    collector = ScheduledEventsCollector(lambda: {"Events": events}, lambda: known[0])

    def ids() -> list[str]:
        return [one.event_id for one in collector.collect(NOW)["scheduled_events"]]

    assert ids() == ["A1", "A2", "A3", "A4", "A9"]  # which VM this is is not known yet
    known[0] = "/subscriptions/x/resourcegroups/rg/providers/microsoft.compute/virtualmachines/vm-1"
    assert ids() == ["A2", "A3", "A9"]
    crowd = [event(number, "vm-2") for number in range(100)]
    assert len(parse_events({"Events": [*crowd, event(100, "vm-1")]}, "vm-1")) == 1


def test_the_metadata_service_gets_three_tries_before_it_is_a_finding() -> None:
    def ask() -> dict[str, Any]:
        raise TransientError("no answer")

    collector = ScheduledEventsCollector(ask)
    assert [collector.collect(NOW), collector.collect(NOW)] == [{}, {}]
    with pytest.raises(TransientError, match="no answer"):
        collector.collect(NOW)


@pytest.mark.parametrize(
    ("answer", "up_seconds", "wanted"),
    [(True, 10.0, True), (False, 599.0, None), (False, 600.0, False), (None, 900.0, None)],
)
def test_a_clock_that_is_not_set_yet_is_no_news_after_a_boot(
    answer: bool | None, up_seconds: float, wanted: bool | None
) -> None:
    def ask() -> bool:
        if answer is None:
            raise TransientError("no timedated")
        return answer

    clock = ClockCollector(ask, lambda: up_seconds, container="/nowhere/container")
    assert clock.latest() is None
    assert clock.collect(NOW) == {}
    assert clock.latest() is wanted


def test_in_a_container_the_clock_is_not_asked_for() -> None:
    clock = ClockCollector(lambda: False, lambda: 1e6, container="/proc/self")
    clock.collect(NOW)
    assert clock.latest() is None
