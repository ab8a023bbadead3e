"""Hosts a v2 ``function_app.py`` on a laptop, as the Azure Functions host would: timers, queues, HTTP.

The real host can't be had without Azure's own packages, so this one answers for the behaviour that the app
depends on: schedules without overlap, at-least-once queues with retries and a poison queue, HTTP with keys.
Not carried: retry policies and ``functionTimeout`` (both ignored), other triggers and bindings (refused).
"""

from .errors import HostError
from .host import FunctionsHost

__all__ = ["FunctionsHost", "HostError"]
