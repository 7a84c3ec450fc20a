"""The synchronous client: each method runs its namesake of AsyncClient on a background event loop."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from agentmem.client.acknowledgement import LOCAL, AcknowledgementInput
from agentmem.client.async_client import AsyncClient
from agentmem.client.async_connection import DEFAULT_TIMEOUT_S
from agentmem.client.consistency import EVENTUAL, Consistency
from agentmem.client.session import AsyncSession
from agentmem.client.statistics import Statistics
from agentmem.client.sync_cluster import SyncCluster
from agentmem.client.sync_connection import ClientThread
from agentmem.client.sync_reads import SyncReads
from agentmem.client.sync_transfers import SyncTransfers
from agentmem.client.sync_watches import SyncWatches
from agentmem.client.sync_writes import SyncWrites


class Session(SyncWrites, SyncReads, SyncTransfers):
    """Calls of a client that build on each other, for any number of threads; see AsyncSession."""

    _client: AsyncSession

    @property
    def token(self) -> str:
        """Where the session is, for another process; see AsyncSession."""
        return self._client.token

    def __repr__(self) -> str:
        return repr(self._client).removeprefix("Async")


class Client(SyncWrites, SyncReads, SyncTransfers, SyncWatches, SyncCluster):
    """A client of an AgentMem cluster, for any number of threads.

        with Client("127.0.0.1:7600") as client:
            client.add("demo", "Ana moved to Lisbon", user_id="ana")
            found = client.search("demo", "where does Ana live?", user_id="ana")

    It behaves as AsyncClient, whose methods say what each takes, returns and raises. It owns one thread
    until it is closed.
    """

    _client: AsyncClient

    def __init__(
        self,
        *endpoints: str,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        consistency: Consistency = EVENTUAL,
        acknowledgement: AcknowledgementInput = LOCAL,
        hedge_reads: bool = False,
        coalesce: bool = True,
    ) -> None:
        client = AsyncClient(
            *endpoints,
            timeout_s=timeout_s,
            consistency=consistency,
            acknowledgement=acknowledgement,
            hedge_reads=hedge_reads,
            coalesce=coalesce,
        )
        super().__init__(client, ClientThread())

    def session(self, token: str | None = None) -> Session:
        """Calls that build on each other; see AsyncClient.session."""
        return Session(self._client.session(token), self._thread)

    def statistics(self) -> Statistics:
        """What the client did besides the calls that it was asked for."""
        return self._client.statistics()

    def close(self) -> None:
        """Ends calls that are on their way with ClientClosed, the connections and the thread.

        May be called twice, and from any thread.
        """
        self._thread.close(self._client._link)

    def __repr__(self) -> str:
        return repr(self._client).removeprefix("Async")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
