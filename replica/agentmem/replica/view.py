"""What a search sees: everything at one revision, immutable, swapped whole.

A query takes one view and never locks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from agentmem.core.filters import Filter
from agentmem.core.layout import NamespaceState
from agentmem.replica.facets import Facets, Memories
from agentmem.replica.ordinals import OrdinalSet
from agentmem.replica.text import TextSearcher
from agentmem.replica.vectors import VectorView


@dataclass(frozen=True, slots=True)
class NamespaceView:
    """A namespace at the revision of its view.

    Attributes:
        state: what the store knows of it; its counts may be those of a newer revision.
        live: the ordinals of the newest versions of its memories. Not to be changed.
        facets: shared with newer views, which have more rows of it.
        facet_rows: how many rows of the facets this view has.
        vectors: None before the first embedding.
        memories: reads records, for filters on the content.
        changed_revision: nothing in it has changed since this revision; may be later than the last change.
        keeps_expired: memories whose time is over are found all the same: it is the namespace as it was after
            a commit, with what the sweeper had not deleted by then.
    """

    state: NamespaceState
    live: OrdinalSet
    facets: Facets
    facet_rows: int
    vectors: VectorView | None
    memories: Memories
    changed_revision: int = 0
    keeps_expired: bool = False

    def matching(self, node: Filter | None, now_us: int) -> OrdinalSet:
        """The live and unexpired ordinals that the filter matches; all for None. Not to be changed."""
        unexpired = self.live
        if not self.keeps_expired and (expired := self.facets.expired(self.live, self.facet_rows, now_us)):
            unexpired = self.live - expired
        if node is None:
            return unexpired
        return self.facets.matching(node, unexpired, self.facet_rows, self.memories)


@dataclass(frozen=True, slots=True)
class View:
    """All namespaces at one revision.

    Attributes:
        epoch: of the history that leads to the revision.
        text: None as long as nothing was indexed.
    """

    revision: int = 0
    epoch: int = 0
    namespaces: Mapping[str, NamespaceView] = field(default_factory=lambda: MappingProxyType({}))
    text: TextSearcher | None = None
