"""The synchronous client: each method runs its namesake of AsyncClient on a background event loop."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from agentmem.client.sync_reads import SyncReads
from agentmem.client.sync_transfers import SyncTransfers
from agentmem.client.sync_writes import SyncWrites


class Client(SyncWrites, SyncReads, SyncTransfers):
    """A client of an AgentMem cluster, for any number of threads.

        with Client("127.0.0.1:7600") as client:
            client.add("demo", "Ana moved to Lisbon", user_id="ana")
            found = client.search("demo", "where does Ana live?", user_id="ana")

    It behaves as AsyncClient, whose methods say what each takes, returns and raises. It owns one thread
    until it is closed.
    """

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
