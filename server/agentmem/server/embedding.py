"""The embeddings that the writer makes for texts that came without one.

While the embeddings of a namespace are being replaced, a text gets one in the coming space, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from agentmem.core.bounded_threads import BoundedThreads
from agentmem.core.call_metrics import stage
from agentmem.core.embedders import Embedder, Embedders
from agentmem.core.errors import AgentMemError, Unavailable
from agentmem.core.layout import NamespaceState
from agentmem.core.records import NO_VECTOR, FloatVector
from agentmem.core.store import Store

# How often a text is embedded for a write that finds other embeddings in the namespace each time.
MAX_EMBEDDINGS_AGAIN = 3
# So much text is embedded on the event loop by an embedder that is quick: to hand over what takes half a
# millisecond takes as long.
MAX_INLINE_CHARACTERS = 2_000


class EmbeddingOutdated(Unavailable):
    """The namespace has got other embeddings since the text was embedded: to be embedded again."""

    def __init__(self, namespace: str) -> None:
        super().__init__(
            "EMBEDDINGS_REPLACED",
            f"the embeddings of namespace {namespace!r} were replaced during the write: try again",
            retry_after_s=0.1,
        )


@dataclass(frozen=True, slots=True)
class Made:
    """What was made of one text.

    Attributes:
        model: for a namespace that has no embeddings yet; "" when the text gets none.
        space: the number of the embedding space that the namespace had.
        vectors: by model; empty when the text means nothing to it.
    """

    model: str = ""
    vectors: Mapping[str, FloatVector] = field(default_factory=dict)
    space: int = 0

    def for_space(self, space: NamespaceState, namespace: str) -> tuple[FloatVector | None, str]:
        """The text's vector in the namespace as it is now, if it gets one, and its model.

        Raises EmbeddingOutdated.
        """
        model = space.model if space.dimension else self.model
        vector = self.vectors.get(model)
        if vector is None and (self.model or self.space != space.space):
            raise EmbeddingOutdated(namespace)
        return (vector, model) if vector is not None and len(vector) else (None, "")

    def for_coming(self, space: NamespaceState) -> FloatVector | None:
        """The text's vector in the coming space, empty when it gets none; None when it was not made."""
        return self.vectors.get(space.coming_model) if space.is_filling else None


NOTHING_MADE = Made()


@dataclass(frozen=True, slots=True)
class Wish:
    """Texts of a namespace to be embedded.

    Attributes:
        given: for each text, whether it came with an embedding, and needs one in a coming space only.
    """

    namespace: str
    texts: Sequence[str]
    given: Sequence[bool]

    @property
    def is_given(self) -> bool:
        """Whether all of them came with an embedding."""
        return all(self.given)


class TextEmbedder:
    """Embeds texts for the namespaces that they are written to."""

    def __init__(self, store: Store, embedders: Embedders, threads: BoundedThreads) -> None:
        self._store = store
        self._embedders = embedders
        self._threads = threads

    def namespace(self, namespace: str) -> NamespaceState:
        with self._store.read() as transaction:
            return transaction.namespace(namespace) or NamespaceState(number=0)

    def filling(self, namespaces: Set[str]) -> set[str]:
        """Those whose embeddings are being replaced: a text that came with one gets another, too."""
        if not namespaces:
            return set()
        with self._store.read() as transaction:
            states = [(name, transaction.namespace(name)) for name in namespaces]
        return {name for name, state in states if state is not None and state.is_filling}

    async def embed(self, wish: Wish) -> Sequence[Made]:
        """What each text becomes.

        Raises:
            FailedPrecondition: ``EMBEDDING_REQUIRED``, the namespace's embeddings are of a model that is not
                here; ``EMBEDDER_MISSING``, the embedder that was chosen for it is not.
            Unavailable: ``EMBEDDER_FAILED``.
        """
        (outcome,) = await self.embed_each([wish])
        if isinstance(outcome, AgentMemError):
            raise outcome
        return outcome

    async def embed_each(self, wishes: Sequence[Wish]) -> list[Sequence[Made] | AgentMemError]:
        """What the texts of each wish become, or the error, as of ``embed``.

        Each embedder makes all that it has to make in one go.
        """
        if not wishes:
            return []
        jobs = _Jobs()
        outcomes: list[_Outcome | AgentMemError] = []
        with self._store.read() as transaction:
            spaces = [transaction.namespace(wish.namespace) or NamespaceState(number=0) for wish in wishes]
        for number, (wish, space) in enumerate(zip(wishes, spaces, strict=True)):
            try:
                outcomes.append(self._plan(jobs, number, wish, space))
            except AgentMemError as error:
                outcomes.append(error)
        if jobs:
            with stage("embed"):
                for name, texts in jobs.items():
                    await self._make(name, texts, outcomes)
        return [
            outcome if isinstance(outcome, AgentMemError) else outcome.made(len(wish.texts))
            for outcome, wish in zip(outcomes, wishes, strict=True)
        ]

    def _plan(self, jobs: _Jobs, number: int, wish: Wish, space: NamespaceState) -> _Outcome:
        if not wish.texts:
            return _Outcome()
        outcome = _Outcome(space=space.space)
        needed = [index for index, given in enumerate(wish.given) if not given]
        if needed:
            name = self._embedders.name_for(space, "send an embedding with each text")
            outcome.model = self._embedders.model_of(name)
            if outcome.model:
                jobs.add(name, number, needed, wish, can_wait=False)
        # Without its embedder here, a text gets that of the coming space later.
        coming = self._embedders.name_of(space.coming_model) if space.is_filling else ""
        if coming:
            jobs.add(coming, number, range(len(wish.texts)), wish, can_wait=True)
        return outcome

    async def _make(self, name: str, texts: list[_Text], outcomes: list[_Outcome | AgentMemError]) -> None:
        """Adds the vectors to the outcomes; an error takes the place of those that cannot do without."""
        waiting = [text for text in texts if not isinstance(outcomes[text.wish], AgentMemError)]
        try:
            made = await self._run(name, waiting)
        except AgentMemError as error:
            numbers = sorted({text.wish for text in waiting})
            if len(numbers) == 1:
                if not all(text.can_wait for text in waiting):
                    outcomes[numbers[0]] = error
                return
            # It may be for a single text, and the others are not to suffer for that.
            for number in numbers:
                await self._make(name, [text for text in waiting if text.wish == number], outcomes)
            return
        model = self._embedders.model_of(name)
        for text, vector in zip(waiting, made, strict=True):
            outcome = outcomes[text.wish]
            assert isinstance(outcome, _Outcome)
            outcome.vectors.setdefault(text.index, {})[model] = NO_VECTOR if vector is None else vector

    async def _run(self, name: str, texts: Sequence[_Text]) -> Sequence[FloatVector | None]:
        contents = [text.content for text in texts]
        if self._embedders.is_quick(name) and sum(map(len, contents)) <= MAX_INLINE_CHARACTERS:
            return _embed(self._embedders.named, name, contents)
        return await self._threads.run(_embed, self._embedders.named, name, contents)


@dataclass(frozen=True, slots=True)
class _Text:
    """A text to be embedded: one of a wish.

    Attributes:
        can_wait: it is for a coming space, and gets its vector there later otherwise.
    """

    wish: int
    index: int
    content: str
    can_wait: bool


class _Jobs:
    """What each embedder has to do."""

    def __init__(self) -> None:
        self._texts: dict[str, list[_Text]] = {}

    def add(self, name: str, number: int, indexes: Iterable[int], wish: Wish, *, can_wait: bool) -> None:
        texts = self._texts.setdefault(name, [])
        texts.extend(_Text(number, index, wish.texts[index], can_wait) for index in indexes)

    def __bool__(self) -> bool:
        return bool(self._texts)

    def items(self) -> Iterable[tuple[str, list[_Text]]]:
        return self._texts.items()


@dataclass(slots=True)
class _Outcome:
    """What was made for a wish so far: its vectors by text and model."""

    space: int = 0
    model: str = ""
    vectors: dict[int, dict[str, FloatVector]] = field(default_factory=dict)

    def made(self, count: int) -> list[Made]:
        return [Made(self.model, self.vectors.get(index, {}), self.space) for index in range(count)]


def _embed(find: Callable[[str], Embedder], name: str, texts: Sequence[str]) -> Sequence[FloatVector | None]:
    """In a thread: the embedder may have to be loaded first."""
    return find(name).embed(texts)
