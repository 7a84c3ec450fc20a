"""What a writer has an entry of the log tell of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from agentmem.core.layout import IdState
from agentmem.core.records import FloatVector, Record
from agentmem.v1 import memory_pb2

# Instead of the state of an id: nobody has looked it up.
LOOK_UP = IdState(ordinal=0, version=0, deleted=False)


class Change(NamedTuple):
    """The next version of a memory, or a tombstone that ends it.

    Attributes:
        before: the state of the id before it, from whoever has looked that up in the same transaction.
        coming_vector: in the coming embedding space of the namespace, if there is one: None when the version
            gets it later, empty when its content means nothing to the model.
        ended: the live version that it ends, from whoever has read that in the same transaction.
    """

    memory: memory_pb2.Memory
    vector: FloatVector | None = None
    is_tombstone: bool = False
    coming_vector: FloatVector | None = None
    before: IdState | None = LOOK_UP
    ended: memory_pb2.Memory | None = None


@dataclass(frozen=True, slots=True)
class ComingVector:
    """The vector of a version in the coming embedding space of its namespace; empty when it gets none."""

    namespace: str
    ordinal: int
    vector: FloatVector


@dataclass(frozen=True, slots=True)
class ClearedVectors:
    """Versions of a namespace whose vectors in the database that is not in use are removed."""

    namespace: str
    ordinals: Sequence[int]


@dataclass(frozen=True, slots=True)
class Removal:
    """Versions of one memory to be removed, newest first.

    Attributes:
        purged_id: of the memory, when all of them are removed for good; otherwise retention removes old ones.
        forgotten: the tombstone, when retention removes that and the id with it.
    """

    namespace: str
    ordinals: Sequence[int]
    purged_id: str = ""
    forgotten: Record | None = None


AnyChange = Change | Removal | ComingVector | ClearedVectors
