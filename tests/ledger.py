"""What clients asked a writer to do and what it answered, and what the store may hold because of it."""

from __future__ import annotations

import enum
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple


class Outcome(enum.StrEnum):
    """What the caller knows."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Write:
    """One call: the same content for all of the ids, or with ``content`` None, their deletion.

    ``acknowledged_bytes`` is how large the trace was when the answer had come: what was acknowledged is in
    every crash image cut there or later.
    """

    ids: tuple[str, ...]
    content: str | None
    outcome: Outcome = Outcome.UNKNOWN
    acknowledged_bytes: int = 0


class Stored(NamedTuple):
    """A memory as it is served."""

    version: int
    content: str


@dataclass(slots=True)
class Ledger:
    """The writes of several clients to one namespace.

    Each client waits for an answer before it goes on, and writes to ids of its own, so the state of an id is
    known but for the one write without an answer.
    """

    namespace: str
    clients: list[list[Write]] = field(default_factory=list)

    def acknowledged(self) -> int:
        """How many writes were acknowledged."""
        return self._count(Outcome.ACKNOWLEDGED)

    def unanswered(self) -> int:
        """How many writes may have been carried out or not."""
        return self._count(Outcome.UNKNOWN)

    def _count(self, outcome: Outcome) -> int:
        return sum(write.outcome is outcome for writes in self.clients for write in writes)

    def problems(self, live: Mapping[str, Stored], cut_bytes: int | None = None) -> list[str]:
        """What the store should hold and does not, or holds and should not; a line each.

        Args:
            live: every undeleted memory of the namespace.
            cut_bytes: where the trace was cut; what was acknowledged later has no answer then.
        """
        found = []
        unexplained = set(live)
        for writes in self.clients:
            done = [write for write in writes if write.outcome is not Outcome.REFUSED]
            by_id: dict[str, list[Write]] = defaultdict(list)
            for write in done:
                for memory_id in write.ids:
                    by_id[memory_id].append(write)
            reached = {}
            for memory_id, history in by_id.items():
                unexplained.discard(memory_id)
                state = live.get(memory_id)
                certain = sum(_is_certain(write, cut_bytes) for write in history)
                reached[memory_id] = next(
                    (
                        count
                        for count in range(certain, min(certain + 1, len(history)) + 1)
                        if _matches(state, count, history)
                    ),
                    None,
                )
                if reached[memory_id] is None:
                    found.append(f"{memory_id}: {_wanted(certain, history)}, but {_told(state)}")
            found += _halves(done, reached, by_id)
        return found + [f"{memory_id}: nobody wrote it" for memory_id in sorted(unexplained)]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Ledger:
        document = json.loads(path.read_text())
        return cls(
            document["namespace"],
            [
                [
                    Write(
                        tuple(write["ids"]),
                        write["content"],
                        Outcome(write["outcome"]),
                        write["acknowledged_bytes"],
                    )
                    for write in writes
                ]
                for writes in document["clients"]
            ],
        )


def _is_certain(write: Write, cut_bytes: int | None) -> bool:
    return write.outcome is Outcome.ACKNOWLEDGED and (
        cut_bytes is None or write.acknowledged_bytes <= cut_bytes
    )


def _matches(state: Stored | None, count: int, history: Sequence[Write]) -> bool:
    """Whether the state is that of the id after its first ``count`` writes. Deletions count as versions."""
    content = history[count - 1].content if count else None
    return state == (None if content is None else Stored(count, content))


def _halves(
    done: Sequence[Write], reached: Mapping[str, int | None], by_id: Mapping[str, list[Write]]
) -> list[str]:
    """The writes that are there for some of their ids and not for others."""
    found = []
    for write in done:
        there = {
            count > next(index for index, other in enumerate(by_id[memory_id]) if other is write)
            for memory_id in write.ids
            if (count := reached[memory_id]) is not None
        }
        if len(there) > 1:
            found.append(f"{', '.join(write.ids)}: written by half")
    return found


def _wanted(certain: int, history: Sequence[Write]) -> str:
    if not certain:
        return "nothing was acknowledged"
    content = history[certain - 1].content
    if content is None:
        return f"its deletion as version {certain} was acknowledged"
    return f"version {certain} ({content[:20]}…) was acknowledged"


def _told(state: Stored | None) -> str:
    return "it is not there" if state is None else f"version {state.version} ({state.content[:20]}…) is there"
