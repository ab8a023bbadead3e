"""Which URLs may be talked to: nothing in clear over the internet, redirects to Azure only."""

from __future__ import annotations

import pytest

from vm_agent.urls import connection_string, is_acceptable, redirect_target

KEY = "00000000-0000-4000-8000-000000000009"
AZURE = "https://westeurope-5.in.applicationinsights.azure.com/v2.1/track"


@pytest.mark.parametrize(
    ("url", "accepted"),
    [
        ("https://westeurope-5.in.applicationinsights.azure.com/", True),
        ("http://169.254.169.254", True),
        ("http://127.0.0.5:8081/", True),
        ("http://[::1]:8081/", True),
        ("http://10.0.0.4", True),
        ("http://localhost:1", True),
        ("http://8.8.8.8/", False),
        ("http://internal.example/", False),  # a name proves nothing
        ("http://127.0.0.1.example.com/", False),
        ("http://127.0.0.1@example.com/", False),
        ("http://0.0.0.0/", False),
        ("https://host:port/", False),
        ("https:///path", False),
        ("https://a b/", False),
        ("https://a/\r\nX: y", False),
        ("file:///etc/passwd", False),
        ("http://[::1", False),
        ("", False),
    ],
)
def test_plain_http_only_to_addresses_that_are_near(url: str, accepted: bool) -> None:
    assert is_acceptable(url) is accepted


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://westus-0.in.applicationinsights.azure.com/v2.1/track",) * 2,
        ("https://dc.services.visualstudio.com/v2.1/track",) * 2,
        ("/v2/track", "https://westeurope-5.in.applicationinsights.azure.com/v2/track"),
        ("http://westus-0.in.applicationinsights.azure.com/v2.1/track", ""),
        ("https://evil.example/v2.1/track", ""),
        ("https://evilapplicationinsights.azure.com/", ""),
        ("https://x.applicationinsights.azure.com@evil.example/", ""),
        ("https://x.applicationinsights.azure.com.evil.example/", ""),
        ("//evil.example/", ""),
        ("", ""),
        ("https://[", ""),
    ],
)
def test_redirects_lead_to_azure_or_nowhere(location: str, target: str) -> None:
    assert redirect_target(location, AZURE) == target


@pytest.mark.parametrize(
    ("text", "track_url"),
    [
        (f"InstrumentationKey={KEY}", "https://dc.services.visualstudio.com/v2.1/track"),
        (
            f"instrumentationkey={KEY};IngestionEndpoint=https://a.example/;LiveEndpoint=x",
            "https://a.example/v2.1/track",
        ),
        (f"IngestionEndpoint=http://127.0.0.1:9;InstrumentationKey={KEY};", "http://127.0.0.1:9/v2.1/track"),
    ],
)
def test_connection_string(text: str, track_url: str) -> None:
    assert connection_string(text).track_url == track_url


@pytest.mark.parametrize(
    "text", ["x", "InstrumentationKey=1", f"InstrumentationKey={KEY};IngestionEndpoint=http://a.example"]
)
def test_connection_string_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a connection string"):
        connection_string(text)
