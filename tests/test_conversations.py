"""Conversation files: what is read from them, and how a malformed one is refused."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agentmem.cli import conversations
from agentmem.cli.conversations import ConversationError

SAMPLE = Path(conversations.__file__).parent / "sample"


def document() -> dict[str, Any]:
    """A small conversation with everything in it."""
    return {
        "speaker_a": "Ana",
        "session_1_date_time": "12:05 am on 8 May, 2023",
        "session_1": [
            {"speaker": "Ana", "dia_id": "D1:1", "text": "I moved to Porto."},
            {"speaker": "Ben", "dia_id": "D1:2", "clean_text": "How is it?", "blip_caption": "a street"},
        ],
        "session_2_date_time": "1:56 pm on 19 January, 2024",
        "session_2": [{"speaker": "Ana", "dia_id": "D2:1", "text": "I found work."}],
        "events_session_1": {"Ana": []},
        "session_3": [],
        "qa": [
            {"question": "Where does Ana live?", "answer": "Porto", "evidence": ["D1:1"], "category": 4},
            {"question": "What changed?", "evidence": ["D2:1; D1:1", "D:11:26", "D9:9"], "category": 1},
            {"question": "Does Ben drive?", "evidence": [], "category": 5},
        ],
    }


def write(folder: Path, data: Any, name: str = "ana-ben.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def test_one_memory_for_each_turn(tmp_path: Path) -> None:
    conversation = conversations.load(write(tmp_path, document()))
    assert conversation.name == "ana-ben"
    memories = conversation.memories()
    assert [memory.id for memory in memories] == ["D1:1", "D1:2", "D2:1"]
    assert [memory.content for memory in memories] == [
        "Ana: I moved to Porto.",
        "Ben: How is it?",
        "Ana: I found work.",
    ]
    assert [memory.user_id for memory in memories] == ["Ana", "Ben", "Ana"]
    assert [memory.session_id for memory in memories] == ["session_1", "session_1", "session_2"]
    assert memories[0].event_time == datetime(2023, 5, 8, 0, 5, tzinfo=UTC)
    assert memories[2].event_time == datetime(2024, 1, 19, 13, 56, tzinfo=UTC)


def test_evidence_keeps_only_ids_of_turns(tmp_path: Path) -> None:
    questions = conversations.load(write(tmp_path, document())).questions
    assert [question.evidence for question in questions] == [("D1:1",), ("D2:1", "D1:1"), ()]
    assert [question.category for question in questions] == [4, 1, 5]


def test_hash_follows_the_content(tmp_path: Path) -> None:
    first = conversations.load(write(tmp_path, document()))
    again = conversations.load(write(tmp_path, document(), "copy.json"))
    changed = conversations.load(write(tmp_path, document() | {"qa": []}, "changed.json"))
    assert first.content_hash == again.content_hash != changed.content_hash
    assert changed.questions == ()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"session_1_date_time": "8 May 2023"}, "session_1_date_time: '8 May 2023' is not a time"),
        ({"session_2_date_time": None}, "session_2_date_time: None is not a time"),
        ({"session_1": {"speaker": "Ana"}}, "session_1: must be a list"),
        ({"session_2": ["hello"]}, "session_2[0]: must be an object"),
        ({"session_2": [{"speaker": "Ana", "dia_id": "D2:1"}]}, "session_2[0].clean_text: must be a text"),
        ({"session_2": [{"speaker": "", "dia_id": "D2:1", "text": "x"}]}, "session_2[0].speaker: must be"),
        ({"session_2": [{"speaker": "Ana", "dia_id": 7, "text": "x"}]}, "session_2[0].dia_id: must be"),
        ({"session_2": [{"speaker": "Ana", "dia_id": "D1:1", "text": "x"}]}, "'D1:1' is used twice"),
        ({"qa": {}}, "qa: must be a list"),
        ({"qa": [{"question": "q", "evidence": [], "category": 9}]}, "qa[0].category: must be 1 to 5"),
        ({"qa": [{"question": "q", "evidence": "D1:1", "category": 1}]}, "qa[0].evidence: must be a list"),
        ({"qa": [{"evidence": [], "category": 1}]}, "qa[0].question: must be a text"),
    ],
)
def test_a_malformed_field_is_named(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    path = write(tmp_path, document() | change)
    with pytest.raises(ConversationError) as caught:
        conversations.load(path)
    assert str(path) in str(caught.value)
    assert expected in str(caught.value)


def test_a_file_that_is_no_conversation_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"session_1": [')
    with pytest.raises(ConversationError, match=r"broken\.json: not JSON"):
        conversations.load(broken)
    with pytest.raises(ConversationError, match="must hold a JSON object"):
        conversations.load(write(tmp_path, [1, 2]))
    with pytest.raises(ConversationError, match="session_1: missing"):
        conversations.load(write(tmp_path, {"speaker_a": "Ana"}))
    with pytest.raises(ConversationError, match=r"missing\.json: No such file"):
        conversations.load(tmp_path / "missing.json")


def test_a_folder_without_conversations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversationError, match=r"has no \*\.json file"):
        conversations.load_folder(tmp_path)
    with pytest.raises(ConversationError, match="is not a folder"):
        conversations.load_folder(tmp_path / "nowhere")


def test_the_bundled_sample_is_sound() -> None:
    sample = conversations.load_folder(SAMPLE)
    assert {"ana-ben"} <= {conversation.name for conversation in sample}
    for conversation in sample:
        assert conversation.turns
        asked = [question for question in conversation.questions if question.category != 5]
        assert asked
        assert all(question.evidence for question in asked), conversation.name
