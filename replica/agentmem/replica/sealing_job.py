"""What is to be sealed, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

from agentmem.replica.facets import Facets
from agentmem.replica.ordinals import OrdinalSet
from agentmem.replica.segment import Segment
from agentmem.replica.vectors import Part


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be written into one segment.

    Attributes:
        space: the number of the embedding space of the vectors.
        parts: the tail, which is the last, and the segments that end, as of one view.
        beside: the other segments of that view.
        live: the live ordinals of that view; no other row is written.
        facets: what the rows are put in order by.
    """

    namespace: str
    number: int
    dimension: int
    space: int
    parts: tuple[Part, ...]
    beside: tuple[Part, ...]
    live: OrdinalSet
    facets: Facets

    @property
    def tail(self) -> Part:
        return self.parts[-1]

    @property
    def last_ordinal(self) -> int:
        """The newest of the tail; 0 when it is empty."""
        return int(self.tail.ordinals[-1]) if len(self.tail.ordinals) else 0

    @property
    def replaced(self) -> list[str]:
        """The names of the segments that end."""
        return [part.segment.name for part in self.parts if part.segment is not None]


@dataclass(frozen=True, slots=True)
class Sealed:
    """A finished job.

    Attributes:
        segment: None when no row of it was live.
        replaced: the names of the segments that end.
        last_ordinal: up to it the segment has the rows of the tail.
        is_adopted: whether another replica built the segment.
    """

    job: Job
    segment: Segment | None
    replaced: list[str]
    last_ordinal: int
    is_adopted: bool = False
