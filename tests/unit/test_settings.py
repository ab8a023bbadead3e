"""Settings of the cloud side: Azure's own defaults, and every fault at once by name."""

from __future__ import annotations

import ipaddress
from dataclasses import fields
from pathlib import Path

import pytest

from tests.builders import SUBSCRIPTION
from vm_health.errors import ConfigError
from vm_health.policy import Policy
from vm_health.settings_table import Secret
from vm_watchdog.settings import SETTINGS, Settings, load

WORKSPACE = "11111111-2222-4333-8444-555555555555"
LEAST = {
    "WATCHDOG_SUBSCRIPTIONS": SUBSCRIPTION,
    "WATCHDOG_WORKSPACE_ID": WORKSPACE,
    "AzureWebJobsStorage__tableServiceUri": "https://acc.table.core.windows.net",
    "AzureWebJobsStorage__queueServiceUri": "https://acc.queue.core.windows.net",
}


def faults(**changes: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as refused:
        load(LEAST | changes)
    return refused.value.faults


def test_defaults_are_azures_own() -> None:
    settings = load(LEAST)
    assert settings == Settings(
        subscriptions=(SUBSCRIPTION,),
        workspace_id=WORKSPACE,
        table_endpoint="https://acc.table.core.windows.net",
        queue_endpoint="https://acc.queue.core.windows.net",
        schedule="0 * * * * *",
        mode="on",
        arm_endpoint="https://management.azure.com",
        arm_audience="https://management.azure.com",
        logs_endpoint="https://api.loganalytics.io",
        logs_audience="https://api.loganalytics.io",
        telemetry_window_minutes=60.0,
        probe_networks=tuple(
            ipaddress.ip_network(text)
            for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
        ),
        probe_timeout_seconds=3.0,
        probe_concurrency=100,
        shard_size=500,
        live_max_age_seconds=180.0,
        telemetry_connection_string=settings.telemetry_connection_string,
        telemetry_auth="key",
        canary_url="",
        deadman_url=settings.deadman_url,
        sign_in=False,
        book=settings.book,
        alert_webhook_url=settings.alert_webhook_url,
        dashboard_url="",
        portal_url="https://portal.azure.com",
    )
    assert settings.book.defaults == Policy()
    secrets = (settings.alert_webhook_url, settings.telemetry_connection_string, settings.deadman_url)
    assert not any(secrets)


def test_every_setting_is_a_field_and_every_field_a_setting() -> None:
    expected = {setting.key for setting in SETTINGS} - {"policy_file"} | {"book"}
    assert {field.name for field in fields(Settings)} == expected


def test_every_setting_says_what_it_is_for() -> None:
    assert all(len(setting.help) > 10 for setting in SETTINGS)
    secrets = {"ALERT_WEBHOOK_URL", "TELEMETRY_CONNECTION_STRING", "DEADMAN_URL"}
    assert {setting.name for setting in SETTINGS if setting.secret} == secrets


def test_own_storage_settings_win_over_the_hosts() -> None:
    settings = load(LEAST | {"WATCHDOG_TABLE_ENDPOINT": "https://127.0.0.1:10002/devstoreaccount1/"})
    assert settings.table_endpoint == "https://127.0.0.1:10002/devstoreaccount1"
    assert settings.queue_endpoint == "https://acc.queue.core.windows.net"


def test_an_empty_variable_counts_as_not_given() -> None:
    """Settings files and Bicep leave them behind."""
    settings = load(
        LEAST | {"WATCHDOG_TABLE_ENDPOINT": " ", "WATCHDOG_MODE": "", "WATCHDOG_ALERT_WEBHOOK_URL": ""}
    )
    assert (settings.table_endpoint, settings.mode) == ("https://acc.table.core.windows.net", "on")


def test_lists_take_spaces_and_ids_any_case() -> None:
    settings = load(LEAST | {"WATCHDOG_SUBSCRIPTIONS": f" {SUBSCRIPTION.upper()} ,{WORKSPACE}, "})
    assert settings.subscriptions == (SUBSCRIPTION, WORKSPACE)


def test_what_is_missing_is_told_all_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        load({})
    assert {fault.split()[0] for fault in refused.value.faults} == {
        "WATCHDOG_SUBSCRIPTIONS",
        "WATCHDOG_WORKSPACE_ID",
        "WATCHDOG_TABLE_ENDPOINT",
        "WATCHDOG_QUEUE_ENDPOINT",
    }
    assert all("must be set" in fault for fault in refused.value.faults)
    assert str(refused.value).startswith("settings of the watchdog: 4 faults\n")


@pytest.mark.parametrize(
    ("name", "text", "must"),
    [
        ("SUBSCRIPTIONS", "my-subscription", "a GUID"),
        ("SUBSCRIPTIONS", ",", "1 to 100 items"),
        ("WORKSPACE_ID", "/subscriptions/x/workspaces/y", "a GUID"),
        ("TABLE_ENDPOINT", "http://acc.table.core.windows.net", "an https:// URL"),
        ("QUEUE_ENDPOINT", "https://acc.queue.core.windows.net?sig=abc", "an https:// URL"),
        ("ARM_ENDPOINT", "management.azure.com", "an https:// URL"),
        ("ARM_AUDIENCE", "https://user@management.azure.com", "an https:// URL"),
        ("LOGS_ENDPOINT", "https://x:99999", "an https:// URL"),
        ("LOGS_AUDIENCE", "https://[::1", "an https:// URL"),
        ("MODE", "off", "one of on, observe"),
        ("TELEMETRY_WINDOW_MINUTES", "0", "a number from 1 to 1440"),
        ("PROBE_NETWORKS", "10.0.0.1/8", "IP networks in CIDR form"),
        ("PROBE_NETWORKS", "everywhere", "IP networks in CIDR form"),
        ("PROBE_TIMEOUT_SECONDS", "nan", "a number from 0.1 to 30"),
        ("PROBE_TIMEOUT_SECONDS", "3s", "a number from 0.1 to 30"),
        ("PROBE_CONCURRENCY", "1.5", "a whole number"),
        ("PROBE_CONCURRENCY", "1001", "a whole number"),
        ("SHARD_SIZE", "0", "a whole number"),
        ("LIVE_MAX_AGE_SECONDS", "inf", "a number from 10 to 86400"),
        ("TELEMETRY_AUTH", "aad", "one of key, entra"),
        ("CANARY_URL", "10.0.0.9", "an http:// or https:// URL"),
        ("SIGN_IN", "maybe", "on or off"),
        ("DASHBOARD_URL", "ftp://x", "an http:// or https:// URL"),
        ("PORTAL_URL", "https://", "an http:// or https:// URL"),
    ],
)
def test_a_fault_names_the_setting_what_it_was_and_what_it_must_be(name: str, text: str, must: str) -> None:
    (fault,) = faults(**{f"WATCHDOG_{name}": text})
    assert fault.startswith(f"WATCHDOG_{name} must be {must}")
    assert fault.endswith(f"was {text!r}")


def test_the_hosts_own_setting_is_named_where_that_one_is_at_fault() -> None:
    (fault,) = faults(AzureWebJobsStorage__tableServiceUri="http://x")
    assert fault.startswith("AzureWebJobsStorage__tableServiceUri must be an https:// URL")


def test_all_faults_at_once() -> None:
    found = faults(
        WATCHDOG_MODE="off", WATCHDOG_SHARD_SIZE="x", WATCHDOG_WORKSPACE_ID="x", WATCHDOG_MODES="on"
    )
    assert [fault.split()[0] for fault in found] == [
        "WATCHDOG_MODES",
        "WATCHDOG_WORKSPACE_ID",
        "WATCHDOG_MODE",
        "WATCHDOG_SHARD_SIZE",
    ]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("WATCHDOG_SUBSCRIPTION", "did you mean WATCHDOG_SUBSCRIPTIONS?"),
        ("WATCHDOG_PROBE_TIMEOUT", "did you mean WATCHDOG_PROBE_TIMEOUT_SECONDS?"),
        ("WATCHDOG_WEBHOOK_URL", "did you mean WATCHDOG_ALERT_WEBHOOK_URL?"),
        ("WATCHDOG_XQ", "is not a setting"),
    ],
)
def test_unknown_names_are_faults_with_the_nearest_known_one(name: str, nearest: str) -> None:
    (fault,) = faults(**{name: "1"})
    assert fault.startswith(f"{name} is not a setting")
    assert nearest in fault


def test_names_of_others_are_none_of_our_business() -> None:
    load(
        LEAST | {"PATH": "/bin", "VM_AGENT_UNITS": "x", "AzureWebJobsStorage__credential": "managedidentity"}
    )


@pytest.mark.parametrize(
    "text",
    [
        "s3cr3t",
        "ftp://hooks.example/s3cr3t",
        "https://[s3cr3t]/x",
        "https://[s3cr3t/x",
        "https://user:s3cr3t\uff0f@hooks.example",
        "https://hooks.example:99999/s3cr3t",
        "https://hooks.example:s3cr3t/",
        "https:///s3cr3t",
    ],
)
def test_a_secret_that_is_wrong_is_not_shown(text: str) -> None:
    (fault,) = faults(WATCHDOG_ALERT_WEBHOOK_URL=text)
    assert fault == (
        "WATCHDOG_ALERT_WEBHOOK_URL must be an http:// or https:// URL, was a secret that is not shown"
    )


def test_a_secret_is_shown_only_when_asked_for() -> None:
    settings = load(LEAST | {"WATCHDOG_ALERT_WEBHOOK_URL": "https://hooks.example/s3cr3t?sig=1"})
    assert "s3cr3t" not in repr(settings)
    assert "s3cr3t" not in f"{settings.alert_webhook_url}"
    assert settings.alert_webhook_url.reveal() == "https://hooks.example/s3cr3t?sig=1"
    assert settings.alert_webhook_url
    assert not Secret()


def test_a_policy_file_that_is_named_must_exist(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    (fault,) = faults(WATCHDOG_POLICY_FILE=str(missing))
    assert fault == f"WATCHDOG_POLICY_FILE must be a file that exists, was {str(missing)!r}"


def test_faults_of_the_policy_and_of_the_settings_are_told_together(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("[defaults]\nconfirm_down = 0\n")
    found = faults(WATCHDOG_POLICY_FILE=str(path), WATCHDOG_MODE="off")
    assert found[0].startswith("WATCHDOG_MODE")
    assert found[1] == "policy.toml: defaults.confirm_down must be 1 or more, is 0"
