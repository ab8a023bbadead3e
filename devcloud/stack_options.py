"""What a run of the stack may choose, and the policy that follows from it. Starts nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from devcloud.vms.factory import Kind

DEFAULT_PORT = 7071  # as Azure's own Core Tools use

# The machine's own disk and memory are not what a simulated VM is about: a full laptop is no incident here.
_POLICY = """\
[defaults]
backoff_seconds = [{steps}]
stable_after_seconds = {stable}
verify_after_seconds = {verify}

[defaults.thresholds]
disk_warning_percent = 100
disk_critical_percent = 100
memory_warning_percent = 100
"""


@dataclass(frozen=True, slots=True)
class StackOptions:
    """What a run may choose.

    Args:
        names: the VMs; each name is a word, a dash and a number.
        fast: divides every wait of the watchdog's policy.
        policy: the watchdog's policy as TOML, in place of the one that ``fast`` scales.
        tags: more tags of single VMs, or others than all have.
        settings: the function app's settings, in place of the stack's own.
        has_relays: probes and storage are reached through relays, so that they can be cut off.
    """

    kind: Kind | None = None  # None: a real systemd where this machine allows it
    names: tuple[str, ...] = ("web-1", "api-1", "jobs-1")
    fast: float = 1.0
    schedule: str = "*/15 * * * * *"
    port: int = DEFAULT_PORT
    sample_interval_seconds: float = 1.0
    report_interval_seconds: float = 15.0
    settings: Mapping[str, str] = field(default_factory=dict)
    policy: str = ""
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    has_relays: bool = False

    @property
    def backoff_seconds(self) -> tuple[float, ...]:
        """The waits before attempts 1, 2, 3… as this run scales them."""
        return tuple(step / self.fast for step in (10.0, 20.0, 40.0, 80.0, 160.0, 300.0))

    @property
    def policy_text(self) -> str:
        """The watchdog's policy."""
        return self.policy or _POLICY.format(
            steps=", ".join(f"{step:g}" for step in self.backoff_seconds),
            stable=600 / self.fast,
            verify=max(0.5, 3 / self.fast),
        )
