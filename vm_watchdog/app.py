"""What the watchdog does when it is called: one method a trigger, text in and a reply out. No Azure here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vm_health.errors import WireError
from vm_health.fields import Fields, load_object
from vm_health.names import is_vm_id
from vm_health.state_codec import decode_notice
from vm_watchdog.http_message import Reply, Request
from vm_watchdog.look import Ports
from vm_watchdog.ports import TickRecord, WorkSource
from vm_watchdog.rate_limit import Rate, RateLimiter
from vm_watchdog.sight import TickOptions
from vm_watchdog.tick import PARTITIONS, run_recheck, run_shard, run_tick

if TYPE_CHECKING:
    from vm_watchdog.operator import Operator

MAX_MESSAGE_CHARS = 4_096
# A VM tells of each change at once, of a few at most; a fleet in trouble must not fill the queue by itself.
NUDGES_EACH = Rate(seconds_each=5.0, burst=3)
NUDGES_OVERALL = Rate(seconds_each=0.02, burst=200)


def _nudges() -> RateLimiter:
    return RateLimiter(NUDGES_EACH, NUDGES_OVERALL)


@dataclass(frozen=True, slots=True)
class Watchdog:
    """The wired watchdog; ``close`` releases what the adapters hold.

    ``has_sign_in`` tells that App Service authentication is on, so that its header names who asks.
    """

    ports: Ports
    options: TickOptions
    live_max_age_seconds: float
    close: Callable[[], Awaitable[None]] = field(repr=False)
    has_sign_in: bool = False
    source: WorkSource | None = field(default=None, repr=False)
    nudges: RateLimiter = field(default_factory=_nudges, repr=False)

    async def tick(self) -> TickRecord:
        """Look at the fleet."""
        return await run_tick(self.ports, self.options)

    async def evaluate_shard(self, text: str) -> None:
        """Look at one shard of the fleet, as a message on the shard queue asks.

        Raises:
            WireError: the message is not one of ours.
        """
        faults: list[str] = []
        message = Fields(load_object(text, MAX_MESSAGE_CHARS, faults), "", faults)
        shard, count = message.whole("shard"), message.whole("shard_count")
        if count not in (1, 2, 4, 8, PARTITIONS) or shard >= count:
            message.fault("shard", "a shard below a shard_count of 1, 2, 4, 8 or 16")
        if faults:
            raise WireError(faults)
        await run_shard(self.ports, self.options, shard, count)

    async def recheck(self, text: str) -> None:
        """Look at one VM, as a message on the recheck queue asks.

        Raises:
            WireError: the message is not one of ours.
        """
        await run_recheck(self.ports, self.options, _read_vm_id(text))

    async def send_alert(self, text: str) -> None:
        """Deliver one notice from the alert queue; an error makes the queue try again."""
        await self.ports.alerts.send(decode_notice(text))

    @property
    def operator(self) -> Operator:
        """What people ask of the watchdog, at the command line or by HTTP."""
        # Checking and describing it takes a library of its own, which the timer's cold start must not pay.
        from vm_watchdog.operator import Operator  # noqa: PLC0415

        return Operator(self.ports, self.options)

    async def answer(self, route: str, request: Request) -> Reply:
        """Answer an HTTP request for one of the routes of ``vm_watchdog.routes``."""
        from vm_watchdog.http_api import HttpApi  # noqa: PLC0415 - as above

        api = HttpApi(self.operator, self.nudges, self.live_max_age_seconds, self.has_sign_in)
        return await api.answer(route, request)


def _read_vm_id(text: str) -> str:
    faults: list[str] = []
    message = Fields(load_object(text, MAX_MESSAGE_CHARS, faults), "", faults)
    vm_id = message.text("vm_id").lower() if not faults else ""
    if not faults and not is_vm_id(vm_id):
        message.fault("vm_id", "the ARM id of a virtual machine")
    if faults:
        raise WireError(faults)
    return vm_id
