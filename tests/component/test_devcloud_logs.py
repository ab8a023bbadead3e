"""Log query in the local Azure: KQL over its tables, as azure-monitor-query asks and reads it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.monitor.query import LogsQueryPartialResult, LogsQueryResult

from devcloud.faults import Fault
from tests.component.devcloud_site import Site

pytest_plugins = ["tests.component.devcloud_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="session")

NOW = datetime.now(UTC)


async def ask(site: Site, kql: str, timespan: Any = None) -> LogsQueryResult:
    result = await site.logs.query_workspace(site.cloud.workspace_id, kql, timespan=timespan)
    assert isinstance(result, LogsQueryResult)
    return result


async def test_the_sdk_reads_every_type(site: Site) -> None:
    """Datetimes as datetimes, dynamic as JSON text, empty strings as such."""
    row = {"Name": "types", "Properties": {"a": "b"}, "Measurements": {"x": 1.5}, "TimeGenerated": NOW}
    site.cloud.tables.add("AppEvents", [row])
    kql = """
    AppEvents | where Name == "types"
    | project TimeGenerated, Properties, ClientOS, ItemCount, X = toreal(Measurements.x), Yes = true,
        Age = 90061s, Missing = tostring(Properties.none), Id = guid(74be27de-1e4e-49d9-b579-fe0b331d3642)
    """
    table = (await ask(site, kql)).tables[0]
    assert table.name == "PrimaryResult"
    assert dict(zip(table.columns, table.columns_types, strict=True)) == {
        "TimeGenerated": "datetime",
        "Properties": "dynamic",
        "ClientOS": "string",
        "ItemCount": "int",
        "X": "real",
        "Yes": "bool",
        "Age": "timespan",
        "Missing": "string",
        "Id": "guid",
    }
    found = list(table.rows[0])
    assert found == [
        NOW,
        '{"a":"b"}',
        "",
        None,
        1.5,
        True,
        "1.01:01:01",
        "",
        "74be27de-1e4e-49d9-b579-fe0b331d3642",
    ]


async def test_timespans_as_the_sdk_writes_them(site: Site) -> None:
    """A duration, a start with a duration, a start with an end."""
    for age in (10, 100, 1_000):
        row = {"Name": "spans", "TimeGenerated": NOW - timedelta(seconds=age)}
        site.cloud.tables.add("AppEvents", [row])
    kql = 'AppEvents | where Name == "spans" | count'
    start = NOW - timedelta(seconds=200)
    for timespan, count in (
        (None, 3),
        (timedelta(seconds=500), 2),
        ((start, timedelta(seconds=150)), 1),
        ((start, NOW), 2),
    ):
        assert (await ask(site, kql, timespan)).tables[0].rows[0][0] == count


@pytest.mark.parametrize(
    ("kql", "code", "words"),
    [
        ("AppEvents | whre x", "SyntaxError", "could not parse"),
        ("AppEvents | where Nmae == 'x'", "SemanticError", "Nmae"),
        ("AppEvnts | take 1", "SemanticError", "AppEvnts"),
        ("AppEvents | make-series count() on TimeGenerated step 1m", "NotRunLocally", "MakeSeries"),
        (".drop table AppEvents", "SyntaxError", "management commands"),
    ],
)
async def test_a_query_that_cannot_run_says_why(site: Site, kql: str, code: str, words: str) -> None:
    """400 with the service's nesting of codes, and the engine's own words."""
    with pytest.raises(HttpResponseError) as refused:
        await ask(site, kql)
    assert refused.value.status_code == 400
    assert refused.value.error.code == "BadArgumentError"
    inner = refused.value.error.innererror
    assert inner["code"] == code
    assert words in inner["innererror"]["message"]


async def test_who_may_ask_what(site: Site) -> None:
    """401 without a token or with an old one, 403 with ARM's, 404 for another workspace."""
    url = f"{site.cloud.logs_url}/v1/workspaces/{site.cloud.workspace_id}/query"
    other = f"{site.cloud.logs_url}/v1/workspaces/00000000-0000-0000-0000-000000000000/query"
    logs = "https://api.loganalytics.io"
    for address, headers, status, code in (
        (url, {}, 401, "AuthorizationRequiredError"),
        (url, site.bearer(logs, -5), 401, "AuthorizationRequiredError"),
        (url, site.bearer(), 403, "InsufficientAccessError"),
        (other, site.bearer(logs), 404, "PathNotFoundError"),
        (url, site.bearer(logs), 200, None),
    ):
        async with site.http.post(address, json={"query": "AppEvents | count"}, headers=headers) as response:
            body = await response.json()
            assert (response.status, body.get("error", {}).get("code")) == (status, code)
            assert ("WWW-Authenticate" in response.headers) == (status == 401)
    site.cloud.faults.add(Fault("logs", "query", status=401))
    with pytest.raises(HttpResponseError, match="Fault401"):  # not ClientAuthenticationError: that SDK's way
        await ask(site, "AppEvents | count")


@pytest.mark.parametrize("body", [{}, {"query": ""}, {"query": "AppEvents", "timespan": "yesterday"}])
async def test_a_bad_request_names_the_field(site: Site, body: dict[str, str]) -> None:
    """query and timespan, each with what it must be."""
    url = f"{site.cloud.logs_url}/v1/workspaces/{site.cloud.workspace_id}/query"
    async with site.http.post(url, json=body, headers=site.bearer("https://api.loganalytics.io")) as response:
        assert response.status == 400
        error = (await response.json())["error"]
    assert error["code"] == "BadArgumentError"
    assert ("timespan" if "timespan" in body else "query") in error["message"]


async def test_faults_of_the_query_service(site: Site) -> None:
    """A partial result, a workspace without data, throttling and a time-out of the gateway."""
    site.cloud.faults.add(Fault("logs", "query", mode="partial"))
    partial = await site.logs.query_workspace(site.cloud.workspace_id, "AppEvents | count", timespan=None)
    assert isinstance(partial, LogsQueryPartialResult)
    assert partial.partial_error is not None
    assert partial.partial_error.code == "PartialError"
    assert len(partial.partial_data[0].rows) == 1
    site.cloud.faults.add(Fault("logs", "query", mode="no_content"))
    with pytest.raises(json.JSONDecodeError):  # what the SDK makes of 204
        await ask(site, "AppEvents | count")
    before = len(site.cloud.calls.matching("logs", "query"))
    site.cloud.faults.add(Fault("logs", "query", status=429, headers={"Retry-After": "0.05"}))
    site.cloud.faults.add(Fault("logs", "query", status=504, headers={"Retry-After": "0.05"}))
    await ask(site, "AppEvents | count")
    calls = site.cloud.calls.matching("logs", "query")[before:]
    assert [call.status for call in calls] == [429, 504, 200]
