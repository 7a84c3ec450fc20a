"""Memories of conversations, as many as are wanted.

The turns come first, as they are; those after them are put together of sentences of the turns, by a seed. So
all of the text was said by somebody, words are as frequent as in speech, and hardly a memory is there twice.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agentmem.cli import bundled, conversations
from agentmem.client import NewMemory

SEED = 7
USERS = 100
SESSIONS_OF_A_USER = 20
SENTENCES_OF_A_MEMORY = 3
# Of each share, the tag that so many memories have.
TAG_SHARES = {"half": 0.5, "tenth": 0.1, "hundredth": 0.01}
FIRST_EVENT = datetime(2024, 1, 1, tzinfo=UTC)
SPAN = timedelta(days=700)
_SENTENCE = re.compile(r"[^.!?。！？]+[.!?。！？]*")
_WORD = re.compile(r"[a-z]{4,}")


class Corpus:
    """Memories made one after the other; the same for the same dataset."""

    def __init__(self, dataset: Path | None = None) -> None:
        """Reads a folder of conversations, or the bundled ones. Raises ConversationError."""
        loaded = conversations.load_folder(dataset or bundled.FOLDER)
        self.name = str(dataset.name) if dataset else "the bundled conversations"
        self._turns = [f"{turn.speaker}: {turn.text}" for each in loaded for turn in each.turns]
        self.questions = tuple(
            question.text for each in loaded for question in each.questions if question.evidence
        )
        texts = (turn.text for each in loaded for turn in each.turns)
        self._sentences = sorted(
            {found.strip() for text in texts for found in _SENTENCE.findall(text)} - {""}
        )

    def text(self, number: int) -> str:
        """The content of a memory."""
        if number < len(self._turns):
            return self._turns[number]
        return " ".join(self._random("text", number).choices(self._sentences, k=SENTENCES_OF_A_MEMORY))

    def memory(self, number: int) -> NewMemory:
        """A memory, with an owner, a session, tags, and a time."""
        draw = self._random("memory", number)
        user = draw.randrange(USERS)
        return NewMemory(
            self.text(number),
            id=f"m{number}",
            user_id=f"user-{user}",
            session_id=f"session-{user}-{draw.randrange(SESSIONS_OF_A_USER)}",
            importance=round(draw.random(), 3),
            tags=[tag for tag, share in TAG_SHARES.items() if draw.random() < share],
            metadata={"turn": number, "channel": draw.choice(("chat", "mail", "voice"))},
            event_time=FIRST_EVENT + draw.random() * SPAN,
        )

    def words(self, number: int, count: int = 6) -> list[str]:
        """The longest words of a memory, which with others may find it; fewer where it has not so many."""
        found = set(_WORD.findall(self.text(number).lower()))
        return sorted(found, key=lambda word: (-len(word), word))[:count]

    def searchable(self, count: int, among: int) -> Sequence[int]:
        """Numbers of so many memories, of the first so many, that have enough words to be asked for."""
        numbers = [number for number in range(among) if len(self.words(number)) >= 4]
        return self._random("searchable", count).sample(numbers, min(count, len(numbers)))

    def _random(self, purpose: str, number: int) -> random.Random:
        return random.Random(f"{SEED} {purpose} {number}")


def misspelt(word: str, number: int) -> str:
    """The word with two neighbouring letters changed about, by the number; never the first one."""
    places = [at for at in range(1, len(word) - 1) if word[at] != word[at + 1]]
    if not places:
        return word[:-1]
    at = random.Random(f"{SEED} {word} {number}").choice(places)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
