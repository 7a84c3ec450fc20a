"""One namespace on the writing side: its facets, vectors and live ordinals. One thread uses it."""

from __future__ import annotations

import time
from collections.abc import Iterator

from agentmem.core.layout import NamespaceState
from agentmem.core.records import FloatVector
from agentmem.core.store import Store
from agentmem.core.turns import give_turn
from agentmem.replica.coming_vectors import ComingVectors
from agentmem.replica.facets import FacetParts, Facets, Memories
from agentmem.replica.namespace_vectors import NamespaceVectors
from agentmem.replica.ordinals import OrdinalArray, OrdinalSet, ordinal_array
from agentmem.replica.planner import DEFAULT_COSTS, Costs, patient_seal_rows, segments_to_merge
from agentmem.replica.replacements import replacements
from agentmem.replica.sealing_job import Job, Sealed
from agentmem.replica.segment import Segment
from agentmem.replica.view import NamespaceView
from agentmem.v1 import memory_pb2

# Facets with more dead rows than live ones, and this many, are copied without them.
MIN_COMPACTED_ROWS = 1024
# Bounds what is taken up at once, to some 15 ms; the event loop has its turns between so many of them.
MAX_WAITING_MEMORIES = 1024
SETTLED_TOGETHER = 64
# A tail of more rows is sealed, whatever it may grow to, when nothing was written for so long. A scan of what
# is left takes less than a search of a graph.
SETTLED_TAIL_ROWS = 2048
SETTLING_S = 1.0
# Read in one transaction.
FILTER_CHUNK_RECORDS = 1000


def memories_of(store: Store, *, of_the_past: bool = False) -> Memories:
    """Reads records for filters on the content; leaves out those that are there no more.

    Args:
        of_the_past: whether a version that was replaced, and removed by retention, is left out too. Else what
            replaced it is read in its place.
    """

    def memories(ordinals: OrdinalArray) -> Iterator[tuple[int, memory_pb2.Memory]]:
        for start in range(0, len(ordinals), FILTER_CHUNK_RECORDS):
            chunk = ordinals[start : start + FILTER_CHUNK_RECORDS].tolist()
            with store.read() as transaction:
                records = {ordinal: transaction.record(ordinal) for ordinal in chunk}
                removed = [ordinal for ordinal, record in records.items() if record is None]
                if removed and not of_the_past:
                    for ordinal, newest in replacements(transaction, removed).items():
                        records[ordinal] = transaction.record(newest)
            yield from ((ordinal, record.memory) for ordinal, record in records.items() if record is not None)

    return memories


class NamespaceIndex:
    """Takes puts and drops in the order of the log and gives views of the outcome.

    Args:
        memories: reads records, from any thread.
        costs: of this machine.
    """

    def __init__(
        self, name: str, state: NamespaceState, memories: Memories, costs: Costs = DEFAULT_COSTS
    ) -> None:
        self.name = name
        self._costs = costs
        self.state = state
        self._memories = memories
        # Of the last change that is known of; set by who applies them.
        self.changed_revision = 0
        self._facets = Facets()
        self._live = OrdinalSet()
        # Put, and not in facets and vectors yet: until the next view, or until it counts.
        self._waiting: list[tuple[int, memory_pb2.Memory, FloatVector | None]] = []
        self._published_at_s = 0.0
        self._tail_since_s = time.monotonic()
        self._vectors: NamespaceVectors | None = None
        self._coming: ComingVectors | None = None
        if state.coming_space:
            self.begin_space()

    def put(self, ordinal: int, memory: memory_pb2.Memory, vector: FloatVector | None) -> None:
        """Adds a memory; its ordinal is larger than all before.

        Args:
            vector: float32 [dimension], of about unit length; None when it has none or a segment has it.
        """
        self._live.add(ordinal)
        self._waiting.append((ordinal, memory, vector))
        if len(self._waiting) == MAX_WAITING_MEMORIES:
            self._settle()

    def _settle(self) -> None:
        """Takes up what waits, all together: one by one it takes twice as long."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), SETTLED_TOGETHER):
            some = waiting[start : start + SETTLED_TOGETHER]
            self._facets.extend([ordinal for ordinal, _, _ in some], [memory for _, memory, _ in some])
            give_turn()
        vectors = [(ordinal, vector) for ordinal, _, vector in waiting if vector is not None]
        if vectors:
            ordinals, rows = zip(*vectors, strict=True)
            self._vectors_of(len(rows[0])).extend(ordinals, rows)

    @property
    def live(self) -> OrdinalSet:
        """Not to be changed."""
        return self._live

    def facet_parts(self) -> FacetParts:
        """What the facets know of the live memories."""
        self._settle()
        return self._facets.parts(self._live)

    def restore(self, facets: Facets) -> None:
        """Begins with facets, all of whose memories are live; their vectors are added one by one."""
        self._facets = facets
        self._live = facets.all_ordinals()

    def add_vector(self, ordinal: int, vector: FloatVector) -> None:
        """Adds the unit vector, float32 [dimension], of a memory that is there, as ``put`` does."""
        self._vectors_of(len(vector)).add(ordinal, vector)

    def drop(self, ordinal: int) -> bool:
        """Ends a memory; says whether it was put and lived."""
        if ordinal not in self._live:
            return False
        if self._waiting and ordinal >= self._waiting[0][0]:
            self._settle()
        self._live.remove(ordinal)
        self._facets.note_dead(ordinal)
        if self._vectors is not None:
            self._vectors.drop(ordinal)
        dead = self._facets.rows + len(self._waiting) - len(self._live)
        if dead >= MIN_COMPACTED_ROWS and 2 * dead > self._facets.rows:
            self._facets = self._facets.cut_to(self._live)
        return True

    def begin_space(self) -> None:
        """Gathers vectors of the coming embedding space of ``state`` from now on."""
        self._coming = ComingVectors(self.state.coming_dimension)

    def put_coming(self, ordinal: int, vector: FloatVector | None) -> None:
        """Adds the vector of a memory that was put, in the coming space; empty when it gets none.

        None when it has not come yet.
        """
        if vector is not None and self._coming is not None and ordinal in self._live:
            self._coming.add(ordinal, vector)

    def missing_coming(self) -> OrdinalSet:
        """The memories whose vector in the coming space did not come."""
        return OrdinalSet() if self._coming is None else self._coming.missing(self._live)

    def end_space(self) -> None:
        """Forgets what was gathered of the coming space."""
        self._coming = None

    def switch_space(self, state: NamespaceState) -> list[str]:
        """Puts what was gathered in the place of the vectors; returns the names of segments that end.

        Args:
            state: the namespace's, with the embedding space that is in use from now on.
        """
        self._settle()
        ended = [] if self._vectors is None else self._vectors.segment_names
        vectors, ordinals = None, ordinal_array(OrdinalSet())
        if self._coming is not None:
            vectors, ordinals = self._coming.gathered(self._live)
        self._vectors, self._coming, self.state = vectors, None, state
        self._facets = self._facets.with_embedding_model(state.model, ordinals)
        return ended

    def add_segment(self, segment: Segment) -> None:
        """Takes up a segment from disk, after all live memories were put."""
        self._vectors_of(segment.sidecar.dimension).add_segment(segment, self._live)

    def _vectors_of(self, dimension: int) -> NamespaceVectors:
        if self._vectors is None:
            self._vectors = NamespaceVectors(dimension)
        return self._vectors

    def settled_at_s(self, seal_rows: int) -> float | None:
        """When, by the monotonic clock, there is a sealing job if nothing is written; None for never."""
        if self._vectors is None or self._vectors.tail_rows <= min(seal_rows, SETTLED_TAIL_ROWS):
            return None
        return self._published_at_s + SETTLING_S

    def sealing_job(self, seal_rows: int) -> Job | None:
        """What should be written into a segment now, if anything."""
        self._settle()
        if self._vectors is None:
            return None
        settled_at_s = self.settled_at_s(seal_rows)
        if settled_at_s is not None and time.monotonic() >= settled_at_s:
            seal_rows = min(seal_rows, SETTLED_TAIL_ROWS)
        else:
            tail_s = time.monotonic() - self._tail_since_s
            seal_rows = patient_seal_rows(seal_rows, self._vectors.tail_rows, tail_s)
        chosen = segments_to_merge(self._vectors.tail_rows, self._vectors.segment_sizes, seal_rows)
        if chosen is None:
            return None
        self._tail_since_s = time.monotonic()
        view = self._vectors.view()
        return Job(
            namespace=self.name,
            number=self.state.number,
            dimension=self._vectors.dimension,
            space=self.state.space,
            parts=(*(view.segments[place] for place in sorted(chosen)), view.tail),
            beside=tuple(part for place, part in enumerate(view.segments) if place not in chosen),
            live=self._live.copy(),
            facets=self._facets,
        )

    def take_up(self, sealed: Sealed) -> None:
        """Puts a finished segment in the place of what it was made of."""
        assert self._vectors is not None
        self._vectors.replace(sealed.replaced, sealed.last_ordinal, sealed.segment, self._live)

    def view(self) -> NamespaceView:
        self._settle()
        self._published_at_s = time.monotonic()
        return NamespaceView(
            state=self.state,
            live=self._live.copy(),
            facets=self._facets,
            facet_rows=self._facets.rows,
            vectors=None if self._vectors is None else self._vectors.view(self._costs),
            memories=self._memories,
            changed_revision=self.changed_revision,
        )
