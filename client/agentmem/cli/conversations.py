"""Conversations in the LoCoMo format: one JSON file holds one chat over several sessions.

- `session_N`: list of turns `{"speaker", "dia_id": "D<session>:<turn>", "text" or "clean_text"}`
- `session_N_date_time`: when that session took place, such as `1:56 pm on 8 May, 2023`
- `qa`: list of `{"question", "answer", "evidence": [dia_id, ...], "category"}`; may be missing

The evidence of real files is not always clean: several ids in one string, ids of no turn.
What does not name a turn of the conversation is left out.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentmem.client import NewMemory

CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}

_SESSION = re.compile(r"session_([1-9][0-9]*)")
_DATE_FORMAT = "%I:%M %p on %d %B, %Y"
_HASH_CHARACTERS = 8


class ConversationError(ValueError):
    """A file that is not a conversation; the message names the file and the field."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one speaker said at one point of a session."""

    id: str
    speaker: str
    text: str
    session: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Question:
    """A question about the conversation, with the ids of the turns that answer it."""

    text: str
    category: int
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Conversation:
    """One file: its turns in order, and the questions asked about them."""

    name: str
    content_hash: str
    turns: tuple[Turn, ...]
    questions: tuple[Question, ...]

    def memories(self) -> list[NewMemory]:
        """One memory for each turn."""
        return [
            NewMemory(
                content=f"{turn.speaker}: {turn.text}",
                id=turn.id,
                user_id=turn.speaker,
                session_id=turn.session,
                event_time=turn.time,
            )
            for turn in self.turns
        ]


def load_folder(folder: Path) -> list[Conversation]:
    """Every `*.json` of a folder, in the order of their names."""
    if not folder.is_dir():
        raise ConversationError(f"{folder} is not a folder")
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise ConversationError(f"{folder} has no *.json file")
    return [load(path) for path in paths]


def load(path: Path) -> Conversation:
    """Reads one conversation; raises ConversationError naming the file and the field."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConversationError(f"{path}: {error.strerror}") from error
    try:
        document = json.loads(data)
    except ValueError as error:
        raise ConversationError(f"{path}: not JSON: {error}") from error
    try:
        turns = _turns(document)
        questions = _questions(document.get("qa", []), {turn.id for turn in turns})
    except ConversationError as error:
        raise ConversationError(f"{path}: {error}") from error
    return Conversation(path.stem, hashlib.sha256(data).hexdigest()[:_HASH_CHARACTERS], turns, questions)


def _turns(document: Any) -> tuple[Turn, ...]:
    if not isinstance(document, dict):
        raise ConversationError("the file must hold a JSON object")
    numbers = sorted(int(match[1]) for key in document if (match := _SESSION.fullmatch(key)))
    if not numbers:
        raise ConversationError("session_1: missing; a conversation has at least one session")
    turns = [turn for number in numbers for turn in _session_turns(document, f"session_{number}")]
    seen: set[str] = set()
    for turn in turns:
        if turn.id in seen:
            raise ConversationError(f"{turn.session}: dia_id {turn.id!r} is used twice")
        seen.add(turn.id)
    return tuple(turns)


def _session_turns(document: dict[str, Any], session: str) -> list[Turn]:
    items = document[session]
    if not isinstance(items, list):
        raise ConversationError(f"{session}: must be a list of turns")
    if not items:
        return []
    time = _session_time(document, f"{session}_date_time")
    turns = []
    for position, item in enumerate(items):
        field = f"{session}[{position}]"
        if not isinstance(item, dict):
            raise ConversationError(f"{field}: must be an object")
        text_key = "text" if "text" in item else "clean_text"
        turns.append(
            Turn(
                id=_text(item, "dia_id", field),
                speaker=_text(item, "speaker", field),
                text=_text(item, text_key, field),
                session=session,
                time=time,
            )
        )
    return turns


def _session_time(document: dict[str, Any], field: str) -> datetime:
    value = document.get(field)
    try:
        return datetime.strptime(value or "", _DATE_FORMAT).replace(tzinfo=UTC)
    except (TypeError, ValueError):
        raise ConversationError(f"{field}: {value!r} is not a time like '1:56 pm on 8 May, 2023'") from None


def _questions(items: Any, turn_ids: set[str]) -> tuple[Question, ...]:
    if not isinstance(items, list):
        raise ConversationError("qa: must be a list of questions")
    questions = []
    for position, item in enumerate(items):
        field = f"qa[{position}]"
        if not isinstance(item, dict):
            raise ConversationError(f"{field}: must be an object")
        category = item.get("category")
        if not isinstance(category, int) or category not in CATEGORIES:
            raise ConversationError(f"{field}.category: must be 1 to 5, not {category!r}")
        evidence = item.get("evidence", [])
        if not isinstance(evidence, list) or not all(isinstance(entry, str) for entry in evidence):
            raise ConversationError(f"{field}.evidence: must be a list of strings")
        text = _text(item, "question", field)
        questions.append(Question(text, category, _evidence_ids(evidence, turn_ids)))
    return tuple(questions)


def _evidence_ids(entries: Sequence[str], turn_ids: set[str]) -> tuple[str, ...]:
    """The ids that name a turn, each once; an entry may hold several."""
    candidates = [part for entry in entries for part in re.split(r"[;,\s]+", entry)]
    return tuple(dict.fromkeys(part for part in candidates if part in turn_ids))


def _text(item: dict[str, Any], key: str, field: str) -> str:
    value = item.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ConversationError(f"{field}.{key}: must be a text that is not empty")
    return value
