"""Who gets which form of a page."""

from __future__ import annotations

import pytest

from vm_agent.negotiate import HTML, JSON, OPENMETRICS, PLAIN, PROMETHEUS, Form, by_accept

METRICS = (JSON, OPENMETRICS, PROMETHEUS)
# As Prometheus 2.x and 3.x send it, and as a browser does.
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3 = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,"
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
TEXT_ONLY = "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (PROMETHEUS_2, OPENMETRICS),
        (PROMETHEUS_3, OPENMETRICS),
        (TEXT_ONLY, PROMETHEUS),
        ("", JSON),
        ("*/*", JSON),
        (BROWSER, JSON),
        ("application/json, text/plain, */*", JSON),
        ("text/plain", PROMETHEUS),
        ("text/*", PROMETHEUS),
        ("TEXT/Plain; Version=0.0.4", PROMETHEUS),
        ('text/plain; version="0.0.4"', PROMETHEUS),
        ("application/openmetrics-text, */*", OPENMETRICS),
        ("application/*", JSON),
        ("application/json;q=0, */*", OPENMETRICS),
        ("application/json;q=0.1, text/plain;q=0.2", PROMETHEUS),
        ("application/openmetrics-text;version=2.0.0, text/plain;q=0.1", PROMETHEUS),
        ("image/png", JSON),
        ("text/plain;q=x, application/json;q=7, ;;;,,=", JSON),
        ("text/plain;q=nan", JSON),
    ],
)
def test_metrics(accept: str, form: Form) -> None:
    assert by_accept(accept, METRICS) is form


@pytest.mark.parametrize(
    ("accept", "form"), [(BROWSER, HTML), ("*/*", PLAIN), ("", PLAIN), ("text/*", PLAIN), ("text/html", HTML)]
)
def test_the_front_page(accept: str, form: Form) -> None:
    assert by_accept(accept, (PLAIN, HTML)) is form
