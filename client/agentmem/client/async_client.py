"""The asynchronous client, and with it everything that the synchronous one does."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from agentmem.client.async_reads import AsyncReads
from agentmem.client.async_transfers import AsyncTransfers
from agentmem.client.async_writes import AsyncWrites


class AsyncClient(AsyncWrites, AsyncReads, AsyncTransfers):
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
    """

    def __repr__(self) -> str:
        return f"AsyncClient({', '.join(map(repr, self._endpoints))}{', closed' if self._closed else ''})"

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
