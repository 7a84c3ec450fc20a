"""Whether a segment that another replica built can stand for rows of one's own.

Nothing is believed: each row is compared. Those of live memories must be the very ones of the parts whose
place the segment takes, and the store must have those of other versions still. So neither another history
nor anything that was purged comes in with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agentmem.core.records import unit_vector
from agentmem.core.store import Store
from agentmem.replica.ordinals import OrdinalArray, ordinal_array
from agentmem.replica.planner import WORN_SHARE
from agentmem.replica.row_codes import CODED_CHUNK_ROWS, RowCodes
from agentmem.replica.sealing_job import Job
from agentmem.replica.segment import Segment
from agentmem.replica.vectors import Part

COMPARED_CHUNK_ROWS = 512
# Read in one transaction.
CHUNK_VECTORS = 1000


class ErasedRowsError(Exception):
    """The segment has a row that the store has no more: of a version that was purged, or that went by age."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a segment can take the place of.

    Attributes:
        parts: the segments that end, and the tail, whose rows it has up to ``last_ordinal``.
        dead: places in the segment of what does not live here, [n].
    """

    parts: tuple[Part, ...]
    last_ordinal: int
    dead: npt.NDArray[np.intp]

    @property
    def replaced(self) -> list[str]:
        """The names of the segments that end."""
        return [part.segment.name for part in self.parts if part.segment is not None]


def coverage(job: Job, ordinals: OrdinalArray) -> Coverage | None:
    """What a segment of these ordinals, uint64 [n], can take the place of; None when that is of no use.

    It must have all live rows of the tail up to its greatest ordinal, and of each segment all or none; there
    must be no others that live. After it the tail has fewer rows, else there are fewer segments, else fewer
    dead rows: so nothing is adopted in turns.
    """
    live = ordinal_array(job.live)
    lives = np.isin(ordinals, live, assume_unique=True)
    dead = np.flatnonzero(~lives)
    if len(dead) >= WORN_SHARE * len(ordinals):
        return None
    last_ordinal = int(ordinals.max())
    of_tail = _live_of(job.tail, live)
    of_tail = of_tail[of_tail <= last_ordinal]
    if not np.isin(of_tail, ordinals, assume_unique=True).all():
        return None
    covered, dead_before, ended = len(of_tail), 0, []
    for part in (*job.parts[:-1], *job.beside):
        here = _live_of(part, live)
        has = np.isin(here, ordinals, assume_unique=True)
        if has.any():
            if not has.all():
                return None
            ended.append(part)
            covered += len(here)
            dead_before += len(part.ordinals) - len(here)
    if covered != np.count_nonzero(lives):
        return None
    if len(of_tail) or len(ended) > 1 or len(dead) < dead_before:
        return Coverage((*ended, job.tail), last_ordinal, dead)
    return None


def has_the_same_rows(segment: Segment, covered: Coverage, job: Job, store: Store) -> bool:
    """Whether the rows of the segment are, bit by bit, those of what it takes the place of, and coded right.

    Raises:
        ErasedRowsError: it has others that the store has no more.
    """
    live = ordinal_array(job.live)
    for part in covered.parts:
        mine = np.flatnonzero(
            np.isin(part.ordinals, live, assume_unique=True) & (part.ordinals <= covered.last_ordinal)
        )
        mine = mine[np.argsort(part.ordinals[mine])]
        _, theirs = segment.lookup.find(part.ordinals[mine])
        for start in range(0, len(mine), COMPARED_CHUNK_ROWS):
            chunk = slice(start, start + COMPARED_CHUNK_ROWS)
            if not np.array_equal(part.rows[mine[chunk]], segment.rows[theirs[chunk]]):
                return False
    for start in range(0, len(covered.dead), CHUNK_VECTORS):
        with store.read() as transaction:
            for row in covered.dead[start : start + CHUNK_VECTORS].tolist():
                ordinal = int(segment.ordinals[row])
                vector = transaction.vector_of_space(job.namespace, job.space, ordinal)
                if vector is None:
                    raise ErasedRowsError(f"the store has no vector at ordinal {ordinal}")
                if not np.array_equal(unit_vector(vector), segment.rows[row]):
                    return False
    return _has_its_codes(segment)


def _has_its_codes(segment: Segment) -> bool:
    for start in range(0, segment.count, CODED_CHUNK_ROWS):
        chunk = slice(start, start + CODED_CHUNK_ROWS)
        made = RowCodes.of(segment.rows[chunk])
        if made.residual > segment.codes.residual or not made.equals(segment.codes[chunk]):
            return False
    return True


def _live_of(part: Part, live: OrdinalArray) -> OrdinalArray:
    return part.ordinals[np.isin(part.ordinals, live, assume_unique=True)]
