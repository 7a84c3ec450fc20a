"""What users of agents do at the same time: they mostly search, read, add, and sometimes change or delete."""

from __future__ import annotations

import itertools
import random
from collections import Counter

from agentmem.bench.suite.callers import Call
from agentmem.bench.suite.corpus import SEED, USERS
from agentmem.bench.suite.questions import question
from agentmem.bench.suite.workbench import Workbench
from agentmem.client import AsyncClient

MEMORIES = 5_000
# Of 100 operations.
SHARES = {"search hybrid": 30, "search text": 15, "get": 30, "add": 18, "update": 5, "delete": 2}
_QUESTIONS = 200


class MixedLoad:
    """Operations, each decided by its number, in the order in which they begin.

    ``made`` counts them by kind. Deletions are of memories that the load added.
    """

    def __init__(self, bench: Workbench, client: AsyncClient, namespace: str) -> None:
        self._corpus, self._client, self._namespace = bench.corpus, client, namespace
        self._memories = min(MEMORIES, bench.scale.sizes[-1])
        asked = bench.corpus.searchable(_QUESTIONS, among=self._memories)
        self._questions = [question(bench.corpus, number, "text") for number in asked]
        self._kinds = [kind for kind, share in SHARES.items() for _ in range(share)]
        # Runs go on where the one before ended, as what was added is there.
        self._numbers = itertools.count()
        self.made: Counter[str] = Counter()

    async def load(self, bench: Workbench) -> int:
        """Adds what is there before; returns its last revision."""
        return await bench.load(self._client, self._namespace, 0, self._memories)

    def call(self) -> Call:
        """One operation of one user."""

        async def one(_: int) -> None:
            number = next(self._numbers)
            draw = random.Random(f"{SEED} mixed {number}")
            kind, user = draw.choice(self._kinds), f"user-{draw.randrange(USERS)}"
            await self._do(kind, user, number, draw)
            self.made[kind] += 1

        return one

    async def _do(self, kind: str, user: str, number: int, draw: random.Random) -> None:
        known = f"m{draw.randrange(self._memories)}"
        text = self._corpus.text(self._memories + number)
        if kind.startswith("search"):
            question = draw.choice(self._questions)
            await self._client.search(self._namespace, question, mode=kind.split()[1], user_id=user)
        elif kind == "get":
            await self._client.get(self._namespace, known)
        elif kind == "add":
            await self._client.add(self._namespace, text, user_id=user, id=f"a{number}")
        elif kind == "update":
            await self._client.update(self._namespace, known, content=text)
        else:
            await self._client.delete(self._namespace, f"a{draw.randrange(number + 1)}")
