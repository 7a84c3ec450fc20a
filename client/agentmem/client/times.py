"""Points in time to the nanosecond: the API has them, and a datetime ends at microseconds."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from typing import Any, Self

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# Behind six digits of a second there is no room in a datetime.
_NANOSECONDS = re.compile(r"(?<=\.[0-9]{6})[0-9]{1,3}(?![0-9])")


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


def is_date(text: str) -> bool:
    """Whether a text has the form of a date without a time of day."""
    return _DATE.fullmatch(text) is not None


def from_iso(text: str) -> datetime:
    """The moment of an ISO 8601 date, which is its start, or date and time, to the nanosecond, in UTC.

    UTC where it names no zone. Raises ValueError with a sentence for people.
    """
    try:
        if is_date(text):
            return datetime.combine(date.fromisoformat(text), time.min, UTC)
        beyond = _NANOSECONDS.search(text)
        moment = datetime.fromisoformat(_NANOSECONDS.sub("", text))
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        digits = int(beyond[0].ljust(3, "0")) if beyond else 0
        return NanosecondDatetime.of(moment, digits) if digits else moment
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a time like 2023-05-08 or 2023-05-08T13:56:00Z") from None


def end_of_day(start: datetime) -> datetime:
    """The last microsecond of the day that begins then; servers compare no finer."""
    return datetime.combine(start.date(), time.max, start.tzinfo)


def iso_text(moment: datetime) -> str:
    """A moment in UTC as ISO 8601 with Z, to the nanosecond."""
    text = moment.astimezone(UTC).isoformat().removesuffix("+00:00")
    if beyond := nanosecond(moment):
        text = (text if moment.microsecond else f"{text}.000000") + f"{beyond:03}"
    return f"{text}Z"
