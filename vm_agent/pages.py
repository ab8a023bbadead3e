"""What the endpoint says under each path, from the last report alone: a request never makes it look.

A report is rendered once for each form it is asked in; all requests share those bytes, and only its age and
the agent's numbers about itself are put in anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from vm_agent import negotiate, prometheus
from vm_agent.board import Board, Look
from vm_agent.http_answer import Answer, sentence
from vm_agent.http_auth import is_allowed, token_wanted
from vm_agent.http_request import Request
from vm_agent.measures import measures
from vm_agent.negotiate import HTML, JSON, OPENMETRICS, PLAIN, PROMETHEUS, Form
from vm_agent.render import report_lines
from vm_health.model import HealthReport, Status
from vm_health.settings_table import Secret
from vm_health.wire import encode_report

_METRICS = (JSON, OPENMETRICS, PROMETHEUS)
_FRONT = (PLAIN, HTML)
_YES, _NO = ("1", "true", "yes", "on", ""), ("0", "false", "no", "off")
_AGE_FIELD = ',"age_seconds":0.0,'  # in no name: JSON would write its quotes with backslashes
AGE = "\0"  # stands where the sample's age goes; no name can hold it, for it can't be seen
_PLAIN_HELP = """
/health    this as JSON; 503 when CRITICAL or not known, with ?strict=1 also when WARNING
/metrics   numbers as JSON; ?format=prometheus or openmetrics (Prometheus gets its own unasked)
/          this; a page with a guide for browsers
"""


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A report in one form. Its age belongs between the parts; without a place for it ``after`` is None."""

    before: bytes
    after: bytes | None

    @classmethod
    def of(cls, text: str) -> _Rendered:
        """Cut ``text`` where ``AGE`` stands in it."""
        before, mark, after = text.partition(AGE)
        # A path may hold bytes that are no UTF-8.
        return cls(_bytes(before), _bytes(after) if mark else None)

    def parts(self, age: bytes) -> tuple[bytes, ...]:
        """Return the parts of a body."""
        return (self.before,) if self.after is None else (self.before, age, self.after)


class Pages:
    """Answers requests with what is on ``board``; ``own`` gives the agent's numbers about itself.

    With a ``token``, only ``/health`` is for everybody. To be used from one thread.
    """

    def __init__(self, board: Board, own: Callable[[], Mapping[str, float]], token: Secret) -> None:
        self._board = board
        self._own = own
        self._token = token
        self._of: tuple[HealthReport, str, int] | None = None
        self._report = board.current()
        self._rendered: dict[str, _Rendered] = {}

    def answer(self, request: Request) -> Answer:
        """Return the answer to ``request``."""
        if request.path == "/health":
            return self._health(request.query.get("strict", "0"))
        if request.path not in ("/", "/metrics"):
            return sentence(404, "not here; try / /health /metrics")
        if not is_allowed(self._token, request.headers):
            return token_wanted()
        forms = _FRONT if request.path == "/" else _METRICS
        wanted = request.query.get("format")
        form = next((form for form in forms if form.name == wanted), None)
        if form is None and wanted is not None:
            return sentence(400, "format must be one of " + ", ".join(form.name for form in forms))
        form = form or negotiate.by_accept(request.headers.get("accept", ""), forms)
        return self._front(form) if request.path == "/" else self._metrics(form)

    def _health(self, strict: str) -> Answer:
        if strict.lower() not in (*_YES, *_NO):
            return sentence(400, "strict must be 1 or 0")
        look = self._look()
        body = self._render("health", _health_text).parts(_age(look))
        return Answer(health_status(self._report, strict=strict.lower() in _YES), JSON.content_type, body)

    def _front(self, form: Form) -> Answer:
        look = self._look()
        if form is PLAIN:
            return Answer(200, form.content_type, self._render(form.name, _plain_text).parts(_age(look)))
        from vm_agent import web_page  # noqa: PLC0415 - most agents never meet a browser

        page = self._render(form.name, lambda report: web_page.web_page(report, AGE))
        return Answer(200, form.content_type, page.parts(b"%d" % look.age_seconds), web_page.HEADERS)

    def _metrics(self, form: Form) -> Answer:
        look = self._look()
        age, own = _age(look), self._own()
        if form is JSON:
            body = self._render(form.name, _metrics_text).parts(age)
            last = _bytes(json.dumps(dict(own), separators=(",", ":"), allow_nan=False) + "}\n")
        else:
            is_open = form is OPENMETRICS
            body = self._render(
                form.name, lambda report: prometheus.report_lines(report, open_metrics=is_open)
            ).parts(age)
            last = _bytes(prometheus.own_lines(look.age_seconds, own, open_metrics=is_open))
        return Answer(200, form.content_type, (*body, last))

    def _look(self) -> Look:
        """Look at the board; what was rendered of an earlier report goes."""
        look = self._board.look()
        shown = (look.report, look.stale, int(look.age_seconds) if look.stale else 0)
        if self._of is None or self._of[0] is not shown[0] or self._of[1:] != shown[1:]:
            self._of, self._report, self._rendered = shown, look.judged(), {}
        return look

    def _render(self, name: str, render: Callable[[HealthReport], str]) -> _Rendered:
        found = self._rendered.get(name)
        if found is None:
            found = self._rendered[name] = _Rendered.of(render(self._report))
        return found


def health_status(report: HealthReport, *, strict: bool = False) -> int:
    """Return 200 where the VM works (HEALTHY, and WARNING unless ``strict``), 503 where it does not or
    nobody knows."""
    if report.status is Status.WARNING:
        return 503 if strict else 200
    return 200 if report.status is Status.HEALTHY else 503


def _health_text(report: HealthReport) -> str:
    return _with_age(encode_report(replace(report, age_seconds=0.0))) + "\n"


def _metrics_text(report: HealthReport) -> str:
    """Return the numbers as JSON up to the agent's own. A sample too old to count has no numbers."""
    found = {
        "vm_id": report.vm_id,
        "host": report.host,
        "status": report.status.value,
        "taken_at": report.sample.taken_at.isoformat(),
        "age_seconds": 0.0,
        "metrics": [
            {"name": item.name, "value": item.value, **({item.kind: item.subject} if item.kind else {})}
            for item in measures(report)
            if prometheus.is_current(report)
        ],
    }
    return _with_age(json.dumps(found, separators=(",", ":"), allow_nan=False))[:-1] + ',"agent":'


def _plain_text(report: HealthReport) -> str:
    return "\n".join(report_lines(report)).replace(AGE, "") + "\n" + _PLAIN_HELP


def _with_age(text: str) -> str:
    return text.replace(_AGE_FIELD, f',"age_seconds":{AGE},', 1)


def _age(look: Look) -> bytes:
    return b"%.3f" % look.age_seconds


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
