"""What every part of the suite works with."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from agentmem.bench.suite import nodes
from agentmem.bench.suite.corpus import Corpus
from agentmem.bench.suite.empty_server import EmptyServer
from agentmem.bench.suite.measurement import Meter, Say
from agentmem.bench.suite.nodes import Nodes
from agentmem.bench.suite.scale import Scale
from agentmem.client import AsyncClient

LOAD_BATCH = 500
# One makes a batch while another's is added.
LOADERS = 2


class WrongAnswer(Exception):
    """A call was answered with something else than what was asked for: its time means nothing."""


@dataclass(frozen=True)
class Workbench:
    """The sizes, the texts, the empty server, and where progress is told."""

    scale: Scale
    corpus: Corpus
    empty: EmptyServer
    say: Say

    def running(self, replicas: int) -> AbstractAsyncContextManager[tuple[nodes.Nodes, AsyncClient]]:
        """A fresh cluster and a client of it."""
        self.say(f"starting a writer and {replicas} replica{'s' * (replicas != 1)}")
        return nodes.running(replicas)

    def meter(self, measured: Nodes) -> Meter:
        return Meter(self.empty, measured, self.scale, self.say)

    async def load(self, client: AsyncClient, namespace: str, first: int, end: int) -> int:
        """Adds these memories of the corpus, embedded by the server; returns the last revision."""
        self.say(f"adding memories {first} to {end - 1}")
        revision = 0
        starts = iter(range(first, end, LOAD_BATCH))

        async def loader() -> None:
            nonlocal revision
            for start in starts:
                batch = [self.corpus.memory(number) for number in range(start, min(start + LOAD_BATCH, end))]
                added = await client.add_many(namespace, batch)
                revision = max(revision, added.revision)

        async with asyncio.TaskGroup() as group:
            for _ in range(LOADERS):
                group.create_task(loader())
        return revision
