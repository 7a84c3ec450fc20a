"""Points in time to the nanosecond: the API has them, and a datetime ends at microseconds."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self


class NanosecondDatetime(datetime):
    """A datetime with the nanoseconds beyond its microseconds: what was read can be written as it was.

    Comparisons, arithmetic, ``replace`` and ``astimezone`` are those of datetime and do not know them.

    Attributes:
        nanosecond: 0 to 999.
    """

    nanosecond: int = 0

    @classmethod
    def of(cls, moment: datetime, nanosecond: int) -> Self:
        """The moment, and so many nanoseconds."""
        made = cls.combine(moment.date(), moment.timetz())
        made.nanosecond = nanosecond
        return made

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # That of datetime, which copy and pickle use, would leave them out.
        return NanosecondDatetime.of, (datetime.combine(self.date(), self.timetz()), self.nanosecond)


def nanosecond(moment: datetime) -> int:
    """The nanoseconds beyond the microseconds."""
    return moment.nanosecond if isinstance(moment, NanosecondDatetime) else 0
