"""What the local Functions host reads: schedules, connections, ``host.json``; all faults are said at once."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from devcloud.functions_host import FunctionsHost, HostError
from devcloud.functions_host.connections import connect
from devcloud.functions_host.host_json import parse_time_span, read_host_json
from devcloud.schedules import parse_schedule
from tests.component.functions_host_fixtures import (
    IN_A_YEAR,
    ROOT,
    SAMPLE_APP,
)
from vm_watchdog.settings import PREFIX, SETTINGS


@pytest.mark.parametrize(
    ("expression", "moment", "expected"),
    [
        ("0 */1 * * * *", "2026-11-24T10:00:00", "2026-11-24T10:01:00"),
        ("*/10 * * * * *", "2026-11-24T10:00:55.5", "2026-11-24T10:01:00"),
        ("30 5 23 * * *", "2026-11-24T23:05:30", "2026-11-25T23:05:30"),
        ("0 0 9 * * 1-5", "2026-11-27T09:00:00", "2026-11-30T09:00:00"),
        ("*/15 * * * *", "2026-11-24T10:14:59", "2026-11-24T10:15:00"),
        # Both a day of the month and a weekday: NCRONTAB wants both, so the next Friday the 13th.
        ("0 0 0 13 * 5", "2026-03-14T00:00:00", "2026-11-13T00:00:00"),
    ],
)
def test_the_next_occurrence_of_a_schedule(expression: str, moment: str, expected: str) -> None:
    following = parse_schedule(expression).next_after(datetime.fromisoformat(moment).replace(tzinfo=UTC))
    assert following == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "expression", ["", "every minute", "0 61 * * * *", "* * * *", "00:01:00", "0 0 0 0 1 1 1"]
)
def test_a_schedule_that_is_none_is_refused_with_what_it_was(expression: str) -> None:
    with pytest.raises(ValueError, match="six fields") as refused:
        parse_schedule(expression)
    assert repr(expression) in str(refused.value)


async def test_everything_that_is_wrong_with_the_settings_is_said_at_once() -> None:
    with pytest.raises(HostError) as refused:
        await FunctionsHost(SAMPLE_APP, {"SAMPLE_SCHEDULE": "now and then"}).start()
    text = str(refused.value)
    assert "watchdog_tick: schedule is 'now and then'" in text
    assert "SAMPLE_SHARDS_QUEUE is not set" in text
    environ = {"SAMPLE_SCHEDULE": IN_A_YEAR, "SAMPLE_SHARDS_QUEUE": "q"}
    with pytest.raises(HostError) as refused:
        await FunctionsHost(SAMPLE_APP, environ).start()
    assert str(refused.value).count("AzureWebJobsStorage__queueServiceUri") == 2
    assert str(SAMPLE_APP) not in sys.path, "a host that did not start leaves nothing behind"


async def test_a_connection_is_read_from_the_settings_with_its_prefix() -> None:
    named = connect("Main", {"Main__accountName": "contoso"})
    local = connect("Main", {"Main": "UseDevelopmentStorage=true"})
    uri = connect(
        "Main", {"Main__queueServiceUri": "https://q.example/", "Main__credential": "managedidentity"}
    )
    try:
        assert named.service.url == "https://contoso.queue.core.windows.net/"
        assert local.service.url.startswith("http://127.0.0.1:10001/devstoreaccount1")
        assert uri.service.url == "https://q.example/"
    finally:
        for connection in (named, local, uri):
            await connection.close()
    with pytest.raises(HostError, match="app setting Main is no storage connection string"):
        connect("Main", {"Main": "nonsense"})


def test_host_json_faults_are_listed_together(tmp_path: Path) -> None:
    path = tmp_path / "host.json"
    section = {"batchSize": 33, "maxDequeueCount": 0, "visibilityTimeout": "30", "messageEncoding": "hex"}
    path.write_text(json.dumps({"version": "1", "extensions": {"queues": section}}))
    with pytest.raises(HostError) as refused:
        read_host_json(path)
    for name in ("version", "batchSize", "maxDequeueCount", "visibilityTimeout", "messageEncoding"):
        assert name in str(refused.value)
    assert parse_time_span("1.02:03:04.5").total_seconds() == 93_784.5


def test_the_products_host_json_keeps_what_the_design_leans_on() -> None:
    document = json.loads((ROOT / "host.json").read_text(encoding="utf-8"))
    assert document["extensionBundle"]["version"] == "[4.*, 5.0.0)"
    queues_section = read_host_json(ROOT / "host.json").queues
    assert queues_section.max_dequeue_count == 5
    assert queues_section.message_encoding == "base64"
    # The first backoff step is 10 s, "real to the second": an idle poll must add little to it. At 2 s one
    # queue costs 1.3 million polls a month, about $0.05.
    assert queues_section.max_polling_interval_seconds <= 2
    # A retry must come later than an idle poll, and all five before a person would wonder: alerts reach the
    # fallback channel a minute after the first try.
    attempts_between = queues_section.max_dequeue_count - 1
    assert 5 <= queues_section.visibility_timeout_seconds <= 30
    assert queues_section.visibility_timeout_seconds * attempts_between <= 120


def test_the_sample_of_local_settings_names_known_settings_and_every_required_one() -> None:
    values = json.loads((ROOT / "local.settings.sample.json").read_text(encoding="utf-8"))["Values"]
    known = {PREFIX + setting.name: setting for setting in SETTINGS}
    assert [name for name in values if name.startswith(PREFIX) and name not in known] == []
    required = {setting.alias or name for name, setting in known.items() if setting.required}
    assert required <= set(values)
    # Only there: Flex Consumption refuses an app that sets it.
    assert values["FUNCTIONS_WORKER_RUNTIME"] == "python"
