"""A connection string leads only where credentials may go, and so does a redirect."""

from __future__ import annotations

import pytest

from vm_watchdog.ingestion_target import IngestionTarget, read_connection_string, redirect_target

KEY = "11111111-2222-3333-4444-555555555555"
TRACK = "https://westeurope-5.in.applicationinsights.azure.com/v2.1/track"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        (f"InstrumentationKey={KEY}", "https://dc.services.visualstudio.com/v2.1/track"),
        (f"InstrumentationKey={KEY};IngestionEndpoint={TRACK[:-11]}", TRACK),
        (f"instrumentationkey = {KEY} ; INGESTIONENDPOINT={TRACK[:-10]};LiveEndpoint=x;;", TRACK),
        (
            f"InstrumentationKey={KEY};IngestionEndpoint=https://relay.example:8443/",
            "https://relay.example:8443/v2.1/track",
        ),
        (f"InstrumentationKey={KEY};IngestionEndpoint=http://10.0.0.4/", "http://10.0.0.4/v2.1/track"),
    ],
)
def test_what_azure_gives_is_read(text: str, url: str) -> None:
    assert read_connection_string(text) == IngestionTarget(KEY, url)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "InstrumentationKey=secret",
        f"InstrumentationKey={KEY}secret",
        f"InstrumentationKey={KEY};IngestionEndpoint=http://secret.example",
        f"InstrumentationKey={KEY};IngestionEndpoint=http://20.0.0.4",
        f"InstrumentationKey={KEY};IngestionEndpoint=http://169.254.169.254",
        f"InstrumentationKey={KEY};IngestionEndpoint=http://0.0.0.0",
        f"InstrumentationKey={KEY};IngestionEndpoint=https://user:secret@x.example",
        f"InstrumentationKey={KEY};IngestionEndpoint=https://x.example/?a=secret",
        f"InstrumentationKey={KEY};IngestionEndpoint=https://x.example:port/secret",
        f"InstrumentationKey={KEY};IngestionEndpoint=https://",
        f"InstrumentationKey={KEY};IngestionEndpoint=https://x y.example/secret",
        f"InstrumentationKey={KEY};IngestionEndpoint=file:///secret",
    ],
)
def test_what_is_none_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="a connection string w") as refused:
        read_connection_string(text)
    assert "secret" not in str(refused.value)
    assert KEY not in str(refused.value)


def test_the_key_is_not_shown() -> None:
    target = read_connection_string(f"InstrumentationKey={KEY};IngestionEndpoint={TRACK[:-11]}")
    assert KEY not in repr(target)
    assert target.host == "westeurope-5.in.applicationinsights.azure.com"


@pytest.mark.parametrize(
    ("location", "leads_to"),
    [
        ("https://eastus-1.in.applicationinsights.azure.com/v2.1/track", True),
        ("https://dc.services.visualstudio.com/v2/track", True),
        ("https://x.in.applicationinsights.azure.cn/v2.1/track", True),
        ("/v2/track", True),
        (TRACK, True),
        ("", False),
        ("http://eastus-1.in.applicationinsights.azure.com/v2.1/track", False),
        ("http://westeurope-5.in.applicationinsights.azure.com/v2.1/track", False),
        ("https://evil.example/v2.1/track", False),
        ("https://applicationinsights.azure.com.evil.example/", False),
        ("https://evilapplicationinsights.azure.com/", False),
        ("https://a@eastus-1.in.applicationinsights.azure.com/", False),
        ("//evil.example/", False),
        ("https://[", False),
        ("http://10.0.0.4/v2.1/track", False),
    ],
)
def test_a_redirect_is_followed_within_azure_and_the_same_origin_only(location: str, leads_to: bool) -> None:
    assert bool(redirect_target(location, TRACK)) is leads_to
