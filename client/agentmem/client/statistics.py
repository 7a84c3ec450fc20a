"""What a client did besides the calls that it was asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Statistics:
    """Counts since the client was made.

    Attributes:
        calls: calls that went out; those that travelled together count as one.
        retries: how often one of them was sent again.
        hedges: how often a slow read was also sent to another node.
        coalesced: calls that travelled in a batch with others.
        ejections: how often a node was passed over from then on, after failures.
    """

    calls: int = 0
    retries: int = 0
    hedges: int = 0
    coalesced: int = 0
    ejections: int = 0


@dataclass(slots=True)
class Counters:
    """The same, while they count. They change on one event loop and may be read from any thread."""

    calls: int = 0
    retries: int = 0
    hedges: int = 0
    coalesced: int = 0
    ejections: int = 0

    def snapshot(self) -> Statistics:
        """The counts now."""
        return Statistics(self.calls, self.retries, self.hedges, self.coalesced, self.ejections)
