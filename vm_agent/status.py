"""Asks the running agent of this machine how it is (``vm-agent status``). Looks at nothing itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING

from vm_agent.config import AgentConfig
from vm_agent.render import report_lines
from vm_agent.transport import Answer, exchange
from vm_health.errors import PermanentError, TransientError, WireError
from vm_health.model import HealthReport
from vm_health.policy import Policy
from vm_health.wire import decode_report

if TYPE_CHECKING:
    import ssl

_TIMEOUT_SECONDS = 5.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """What the agent says: its report, and its numbers about itself (none where /metrics is closed to us)."""

    report: HealthReport
    numbers: Mapping[str, float]


def address_of(config: AgentConfig) -> str:
    """Return where the agent with these settings is reached from its own machine."""
    host = _EVERYWHERE.get(config.listen_address, config.listen_address)
    scheme = "https" if config.tls_cert_file else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{config.listen_port}"


def ask(config: AgentConfig, timeout_seconds: float = _TIMEOUT_SECONDS) -> AgentStatus:
    """Ask the running agent.

    Raises:
        TransientError: nothing answers there.
        PermanentError: something else does.
    """
    base, tls = address_of(config), _own_certificate(config)
    answer = exchange("GET", f"{base}/health", timeout_seconds=timeout_seconds, tls=tls)
    try:
        report = decode_report(answer.body.decode())
    except (WireError, ValueError) as error:
        raise PermanentError(f"{base}/health answers {answer.status}, but not as the agent does") from error
    headers = {"Authorization": f"Bearer {config.token.reveal()}"} if config.token else {}
    try:
        answer = exchange("GET", f"{base}/metrics", headers=headers, timeout_seconds=timeout_seconds, tls=tls)
    except TransientError:
        return AgentStatus(report, {})
    return AgentStatus(report, _numbers(answer))


def status_lines(status: AgentStatus, colour: bool = False) -> Iterator[str]:
    """Yield the report as ``check`` prints it, then what only the running agent knows."""
    report, numbers = status.report, status.numbers
    yield from report_lines(report, colour)
    yield f"  sampled   {report.age_seconds:.0f} s ago"
    most = Policy().max_attempts
    for repair in report.repairs:
        if repair.circuit_open:
            stand = "given up: people are needed" if repair.attempts else "not possible, see above"
        elif repair.not_before is None:
            stand = f"up again after {repair.attempts} attempts"
        else:
            when = repair.not_before.astimezone(UTC).strftime("%H:%M:%S UTC")
            stand = f"{repair.attempts} of {most} attempts made, the next at {when}"
        yield f"  repair    {repair.unit}  {stand}"
    if "telemetry_sent" in numbers:
        sent, waiting, dropped = (
            int(numbers[f"telemetry_{name}"]) for name in ("sent", "waiting", "dropped")
        )
        yield f"  telemetry {sent} sent, {waiting} waiting, {dropped} dropped"
    if "alerts_sent" in numbers:
        yield f"  alerts    {int(numbers['alerts_sent'])} sent, {int(numbers['alerts_waiting'])} waiting"


def hint(config: AgentConfig, problem: str) -> str:
    """Say what to do where nobody answers."""
    if not config.listen_port:
        return "VM_AGENT_LISTEN_PORT is 0: the agent chose a free port, which its log names"
    return (
        f"no answer from {address_of(config)}: {problem}\n"
        "  is it running?  systemctl status vm-agent; journalctl -u vm-agent -n 20"
    )


def _numbers(answer: Answer) -> Mapping[str, float]:
    try:
        found = json.loads(answer.body)["agent"] if answer.status == 200 else {}
        return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _own_certificate(config: AgentConfig) -> ssl.SSLContext | None:
    """Trust the agent's own certificate alone: it is made for the name that others call this machine by."""
    if not config.tls_cert_file:
        return None
    import ssl  # noqa: PLC0415 - only where https is spoken

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(config.tls_cert_file)
    except OSError as error:
        raise PermanentError(f"VM_AGENT_TLS_CERT_FILE cannot be read ({error.strerror})") from error
    return context
