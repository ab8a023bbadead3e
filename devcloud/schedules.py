"""Azure Functions timer schedules (NCRONTAB): when the next occurrence is. Keeps no time itself.

Six fields with the seconds first (five without them are taken too), always UTC here: a Functions app on
Linux Consumption plans knows no other zone. Where a day of the month and a day of the week are both given,
NCRONTAB wants both to hold, while Unix cron takes either.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from croniter import croniter


@dataclass(frozen=True, slots=True)
class Schedule:
    """One checked NCRONTAB expression."""

    expression: str

    def next_after(self, moment: datetime) -> datetime:
        """The first occurrence strictly later than ``moment`` (aware; answered in UTC)."""
        following = croniter(
            self.expression,
            moment.astimezone(UTC),
            ret_type=datetime,
            day_or=False,
            second_at_beginning=True,
        ).get_next()
        assert isinstance(following, datetime)
        return following


def parse_schedule(expression: str) -> Schedule:
    """Check ``expression``; raises ``ValueError`` that says what it was and what it must be."""
    fields = expression.split()
    if len(fields) not in (5, 6) or not croniter.is_valid(
        " ".join(["0", *fields] if len(fields) == 5 else fields), second_at_beginning=True
    ):
        raise ValueError(
            f"schedule is {expression!r}, it must be an NCRONTAB expression of six fields, "
            "'second minute hour day month weekday', such as '0 */1 * * * *' for every minute"
        )
    return Schedule(" ".join(["0", *fields] if len(fields) == 5 else fields))
