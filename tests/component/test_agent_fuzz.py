"""Twenty thousand hostile requests: the endpoint stays up, quick and small."""

from __future__ import annotations

import contextlib
import os
import random
import re

from tests.component.agent_site import Site, until
from tests.component.endpoint_client import (
    Footprint,
    allow_open_files,
    connect,
    health,
    open_connections,
    read_reply,
)
from tests.component.endpoint_fuzz import Attack, Fuzz, carry_out
from vm_health.wire import decode_report

pytest_plugins = ["tests.component.agent_fixtures"]
REQUESTS = 20_000
WARM_UP = 2_000
IDLE = 300
DRIPPING = 20
_STATUSES = {
    200,
    400,
    404,
    405,
    408,
    413,
    431,
    501,
    503,
    505,
}  # 500 is none of them: nothing may break inside
_STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Z][A-Za-z ]+\r\nServer: vm-agent\r\n")


def check(attack: Attack, answer: bytes | None) -> None:
    """Whatever comes back is one or more whole answers of the known kinds."""
    if not answer:
        return
    statuses = {int(status) for status in _STATUS_LINE.findall(answer)}
    assert _STATUS_LINE.match(answer), (attack, answer[:200])
    assert statuses <= _STATUSES, (attack, statuses)


def test_hostile_requests_neither_stop_nor_slow_nor_grow_it(place: Site) -> None:
    seed = int(os.environ.get("FUZZ_SEED", random.SystemRandom().randrange(2**32)))
    print(f"FUZZ_SEED={seed}")  # noqa: T201 - shown with a failure, to run it again
    allow_open_files(1500)
    agent = place.run_agent(VM_AGENT_SAMPLE_INTERVAL_SECONDS="3600")
    port, pid = agent.port, agent.process.pid
    until(lambda: agent.ask("/health")[0] == 200)
    fuzz = Fuzz(seed)
    with connect(port) as asking:
        for _ in range(WARM_UP):
            carry_out(port, fuzz.attack())
        until(lambda: open_connections(asking) == 1)
        before = Footprint.of(pid)
        idle = [connect(port) for _ in range(IDLE)]
        dripping = [connect(port) for _ in range(DRIPPING)]
        for number in range(REQUESTS):
            attack = fuzz.attack()
            check(attack, carry_out(port, attack))
            if number % 100 == 0:
                decode_report(health(port).body.decode())
                with contextlib.suppress(OSError):  # it has had its 408 by now
                    dripping[number // 100 % DRIPPING].send(b"G")
        during = Footprint.of(pid)
        for connection in (*idle, *dripping):
            connection.close()
        until(lambda: open_connections(asking) == 1)
        after = Footprint.of(pid)
        asking.sendall(b"GET /health HTTP/1.1\r\n\r\n")
        assert read_reply(asking).status == 200
    assert during.rss_bytes - before.rss_bytes < 2_000_000
    assert after.rss_bytes - before.rss_bytes < 2_000_000
    assert (after.files, after.threads) == (before.files, before.threads)
    assert "Traceback" not in agent.log()
