"""The page at ``/`` for people with a browser. Pure; asks for nothing from elsewhere and trusts no name."""

from __future__ import annotations

from vm_agent.web_guide import GUIDE, STYLE, STYLE_HASH
from vm_agent.web_rows import Rows, escape
from vm_health.model import HealthReport, Status

_REFRESH_SECONDS = 15
HEADERS = (
    (
        "Content-Security-Policy",
        f"default-src 'none'; style-src '{STYLE_HASH}'; img-src data:; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),
)
_HEADLINES = {
    Status.HEALTHY: "All is well",
    Status.WARNING: "Works, but needs a look",
    Status.CRITICAL: "Needs help now",
    Status.UNKNOWN: "Nobody knows",
}


def web_page(report: HealthReport, age: str) -> str:
    """Return the page of ``report``; ``age`` stands where the sample's age in seconds belongs."""
    host, status = escape(report.host), report.status.value
    looked = f"looked at {report.sample.taken_at:%Y-%m-%d %H:%M:%S} UTC, {age} s ago"
    if not report.sequence:
        looked = f"started {age} s ago, has not looked yet"
    base = escape(report.endpoint) or "http://&lt;this VM&gt;:8080"
    sections = "".join(
        f"<section><h2>{title}</h2>\n<ul>\n{rows}</ul></section>\n" for title, rows in Rows(report).sections()
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="refresh" content="{_REFRESH_SECONDS}">\n<link rel="icon" href="data:,">\n'
        f"<title>{status} - {host}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<header class="{status}"><p><span class="status">{status}</span> {host}</p>\n'
        f"<h1>{_HEADLINES.get(report.status, status)}</h1>\n"
        f'<p class="quiet">{looked}; vm-agent {escape(report.agent_version)}</p></header>\n'
        f"<main>\n{sections}</main>\n{GUIDE.replace('{base}', base)}</body>\n</html>\n"
    )
