"""The AlertSender port: the channel sender over a real receiver, with every way in which one can fail."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from devcloud.listener import Listener
from devcloud.webhook_sink import WebhookSink
from tests.builders import VM_ID, a_notice
from tests.fakes import FakeAlerts
from vm_alerts.channels.webhook import Webhook
from vm_health.errors import PermanentError, TransientError
from vm_health.state import NoticeKind
from vm_watchdog.adapters.channel_sender import ChannelSender
from vm_watchdog.ports import AlertSender

SECRET = "s3cr3t-t0ken"


@pytest.fixture
async def sink() -> AsyncIterator[WebhookSink]:
    receiver = WebhookSink()
    await receiver.start()
    yield receiver
    await receiver.stop()


@pytest.fixture
async def sender(sink: WebhookSink) -> AsyncIterator[ChannelSender]:
    channel = ChannelSender(
        [Webhook(sink.hook_url(SECRET))], "https://dash.example", "https://portal.azure.com"
    )
    yield channel
    await channel.close()


@pytest.fixture(params=["fake", "webhook"])
def port(request: pytest.FixtureRequest) -> AlertSender:
    """Both implementations of the port."""
    return FakeAlerts() if request.param == "fake" else request.getfixturevalue("sender")


@pytest.mark.parametrize("kind", NoticeKind)
async def test_every_kind_of_notice_is_taken(port: AlertSender, kind: NoticeKind) -> None:
    await port.send(a_notice(kind))


async def test_what_arrives(sink: WebhookSink, sender: ChannelSender) -> None:
    await sender.send(a_notice(reason="Zürich 🌉"))
    (received,) = sink.accepted(SECRET)
    assert received.body["key"] == received.headers["X-Watchdog-Key"] == "incident-1:fired"
    assert received.body["reason"] == "Zürich 🌉"
    assert received.body["links"] == {
        "dashboard": "https://dash.example",
        "portal": f"https://portal.azure.com/#@/resource{VM_ID}",
    }
    assert received.headers["Content-Type"] == "application/json"


async def test_429_says_when_to_come_back(sink: WebhookSink, sender: ChannelSender) -> None:
    sink.refuse_next(1, 429, {"Retry-After": "7"})
    with pytest.raises(TransientError) as refused:
        await sender.send(a_notice())
    assert refused.value.retry_after_seconds == 7
    await sender.send(a_notice())
    assert len(sink.accepted()) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [(500, TransientError), (503, TransientError), (400, PermanentError), (404, PermanentError)],
)
async def test_a_refusal_is_transient_or_permanent_and_shows_no_url(
    sink: WebhookSink, sender: ChannelSender, status: int, error: type[Exception]
) -> None:
    sink.refuse_next(1, status)
    with pytest.raises(error) as refused:
        await sender.send(a_notice())
    assert str(refused.value) == f"channel webhook answered {status}"


def a_dead_port() -> int:
    """A port that nobody listens on: bound once and let go."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    "url",
    [
        f"http://127.0.0.1:{a_dead_port()}/{SECRET}",
        f"http://name.invalid/{SECRET}",
        f"http://a..b/{SECRET}",
        f"http://:80/{SECRET}",
    ],
    ids=["dead port", "no such name", "no name", "no host"],
)
async def test_a_channel_that_is_not_there_is_transient_and_shows_no_url(url: str) -> None:
    sender = ChannelSender([Webhook(url)], "", "")
    with pytest.raises(TransientError) as failed:
        await sender.send(a_notice())
    await sender.close()
    assert SECRET not in str(failed.value)
    assert failed.value.__cause__ is None
    assert failed.value.__suppress_context__


async def test_a_redirect_is_refused_and_not_followed(sink: WebhookSink) -> None:
    async def redirect(_request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(sink.hook_url("elsewhere"))

    app = web.Application()
    app.router.add_post("/hook", redirect)
    listener = Listener(app, ["127.0.0.1"], 0)
    await listener.start()
    sender = ChannelSender([Webhook(f"{listener.origins[0]}/hook")], "", "")
    with pytest.raises(PermanentError, match="answered 307"):
        await sender.send(a_notice())
    await sender.close()
    await listener.stop()
    assert sink.received == []


async def test_without_a_channel_an_alert_is_only_logged() -> None:
    sender = ChannelSender([], "", "")
    await sender.send(a_notice())
    await sender.close()
