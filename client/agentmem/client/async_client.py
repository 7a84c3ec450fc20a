"""The asynchronous client, and with it everything that the synchronous one does."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from agentmem.client.acknowledgement import LOCAL, AcknowledgementInput
from agentmem.client.async_cluster import AsyncCluster
from agentmem.client.async_connection import DEFAULT_TIMEOUT_S, Link
from agentmem.client.async_reads import AsyncReads
from agentmem.client.async_transfers import AsyncTransfers
from agentmem.client.async_watches import AsyncWatches
from agentmem.client.async_writes import AsyncWrites
from agentmem.client.consistency import EVENTUAL, Consistency
from agentmem.client.session import AsyncSession
from agentmem.client.statistics import Statistics


class AsyncClient(AsyncWrites, AsyncReads, AsyncTransfers, AsyncWatches, AsyncCluster):
    """A client of an AgentMem cluster, for one event loop.

        async with AsyncClient("127.0.0.1:7600") as client:
            await client.add("demo", "Ana moved to Lisbon", user_id="ana")
            found = await client.search("demo", "where does Ana live?", user_id="ana")

    It follows the topology of the cluster: reads are balanced over the replicas, writes go to the writer, and
    nodes may come and go. A read that a node cannot answer is taken to another one. A write is repeated until
    it is answered; it bears a request id, and with that it is done once.

    Every call may raise:
        InvalidArgument: an argument can never work; found here, nothing was sent.
        Unavailable: no node could answer in time; the error names those tried.
        DeadlineExceeded: a node took too long for a read.
        ResourceExhausted: the server is overloaded, its store is full, or an answer is over 64 MiB.
        ClientClosed: the client is closed.

    Args:
        endpoints: "host:port" of one or more nodes, any of them. A second one helps when the first is down.
        timeout_s: the time for a call and all its retries, unless the call is given its own ``timeout_s``.
        consistency: how new the answers to reads must be that do not say so themselves.
        acknowledgement: when writes are answered that do not say so themselves.
        hedge_reads: send a get, list or search that takes longer than 95 % of the last ones to a second
            replica, too, and take the first answer; at most one in twenty.
        coalesce: let concurrent gets, searches, adds, updates and deletions by id travel together, which
            costs less than each alone.
    """

    def __init__(
        self,
        *endpoints: str,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        consistency: Consistency = EVENTUAL,
        acknowledgement: AcknowledgementInput = LOCAL,
        hedge_reads: bool = False,
        coalesce: bool = True,
    ) -> None:
        link = Link(
            *endpoints,
            timeout_s=timeout_s,
            consistency=consistency,
            acknowledgement=acknowledgement,
            hedge_reads=hedge_reads,
            coalesce=coalesce,
        )
        super().__init__(link)

    def session(self, token: str | None = None) -> AsyncSession:
        """Calls that build on each other: what was written and read is in what is read after it.

        Args:
            token: of a session to go on with, such as one in another process; see AsyncSession.
        """
        return AsyncSession(self._link, token)

    def statistics(self) -> Statistics:
        """What the client did besides the calls that it was asked for."""
        return self._router.counters.snapshot()

    async def close(self) -> None:
        """Ends calls that are on their way with ClientClosed, and the connections. May be called twice."""
        await self._link.close()

    def __repr__(self) -> str:
        return (
            f"AsyncClient({', '.join(map(repr, self._endpoints))}{', closed' if self._link.closed else ''})"
        )

    async def __aenter__(self) -> Self:
        self._ready_router()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
