"""The embeddings that the writer makes for texts that came without one."""

from __future__ import annotations

from collections.abc import Sequence

from agentmem.core.bounded_threads import BoundedThreads
from agentmem.core.embedders import Embedder, embedding_required
from agentmem.core.errors import AgentMemError
from agentmem.core.layout import NamespaceState
from agentmem.core.records import FloatVector
from agentmem.core.store import Store

Embeddings = Sequence[FloatVector | None]


class TextEmbedder:
    """Embeds texts of a namespace, if its embeddings are of the writer's model."""

    def __init__(self, store: Store, embedder: Embedder, threads: BoundedThreads) -> None:
        self._store = store
        self._embedder = embedder
        self._threads = threads

    @property
    def model(self) -> str:
        """Of the embeddings that are made here; "" when none are."""
        return self._embedder.model

    def namespace(self, namespace: str) -> NamespaceState:
        with self._store.read() as transaction:
            return transaction.namespace(namespace) or NamespaceState(number=0)

    async def embed(self, namespace: str, texts: Sequence[str]) -> Embeddings:
        """A vector for each text; None for one that means nothing to the model.

        Raises:
            FailedPrecondition: ``EMBEDDING_REQUIRED``, the namespace's embeddings are of another model.
            Unavailable: ``EMBEDDER_FAILED``.
        """
        if not texts or not self._embedder.model:
            return [None] * len(texts)
        self._check_model(namespace)
        return await self._threads.run(self._embedder.embed, texts)

    def _check_model(self, namespace: str) -> None:
        space = self.namespace(namespace)
        if space.dimension and space.model != self._embedder.model:
            raise embedding_required(space.model, self._embedder.model, "send an embedding with each text")

    async def embed_each(
        self, wishes: Sequence[tuple[str, Sequence[str]]]
    ) -> list[Embeddings | AgentMemError]:
        """The vectors, or the error, of each namespace with texts: as of ``embed``, in one go."""
        outcomes: list[Embeddings | AgentMemError] = [[None] * len(texts) for _, texts in wishes]
        asked = []
        for index, (namespace, texts) in enumerate(wishes):
            if texts and self._embedder.model:
                try:
                    self._check_model(namespace)
                    asked.append(index)
                except AgentMemError as error:
                    outcomes[index] = error
        joined = [text for index in asked for text in wishes[index][1]]
        try:
            made = await self._threads.run(self._embedder.embed, joined) if joined else []
        except AgentMemError as error:
            # It may be for a single text, and the others are not to suffer for that.
            for index in asked:
                outcomes[index] = error if len(asked) == 1 else await self._outcome(*wishes[index])
            return outcomes
        rest = iter(made)
        for index in asked:
            outcomes[index] = [next(rest) for _ in wishes[index][1]]
        return outcomes

    async def _outcome(self, namespace: str, texts: Sequence[str]) -> Embeddings | AgentMemError:
        try:
            return await self.embed(namespace, texts)
        except AgentMemError as error:
            return error
