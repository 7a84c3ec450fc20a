"""Memories as the writer stores them, made of conversations: single turns, notes, and turns with metadata."""

import random
import uuid
from collections.abc import Sequence

from agentmem.cli.conversations import Conversation
from agentmem.core.embedders import WordLlamaEmbedder
from agentmem.v1 import memory_pb2

NAMESPACE = "agents/conversations"
FIRST_WRITE_US = 1_790_000_000_000_000
TURNS_IN_A_NOTE = (6, 21)
TAGS = ("family", "food", "home", "travel", "work")


def turns(loaded: Sequence[Conversation], random_: random.Random) -> list[memory_pb2.Memory]:
    """A memory for each turn, those of all conversations together, in the order of the sessions."""
    now_us = FIRST_WRITE_US
    memories = []
    for turn in sorted((turn for each in loaded for turn in each.turns), key=lambda turn: turn.time):
        now_us += random_.randrange(500_000, 40_000_000)
        memory = memory_pb2.Memory(
            id=_uuid7(now_us, random_),
            namespace=NAMESPACE,
            content=f"{turn.speaker}: {turn.text}",
            type=memory_pb2.MEMORY_TYPE_EPISODIC,
            user_id=turn.speaker,
            session_id=turn.session,
            embedding_model=WordLlamaEmbedder.model,
            version=1,
        )
        memory.event_time.FromDatetime(turn.time)
        memory.create_time.FromMicroseconds(now_us)
        memory.update_time.FromMicroseconds(now_us)
        memories.append(memory)
    return memories


def _uuid7(time_us: int, random_: random.Random) -> str:
    low = 0x7 << 76 | random_.getrandbits(12) << 64 | 0b10 << 62 | random_.getrandbits(62)
    return str(uuid.UUID(int=(time_us // 1000) << 80 | low))


def notes(memories: Sequence[memory_pb2.Memory], random_: random.Random) -> list[memory_pb2.Memory]:
    """Memories with the text of several turns each."""
    joined: list[memory_pb2.Memory] = []
    start = 0
    while start < len(memories):
        end = start + random_.randint(*TURNS_IN_A_NOTE)
        note = memory_pb2.Memory()
        note.CopyFrom(memories[start])
        note.content = "\n".join(memory.content for memory in memories[start:end])
        joined.append(note)
        start = end
    return joined


def with_metadata(memories: Sequence[memory_pb2.Memory], random_: random.Random) -> list[memory_pb2.Memory]:
    """The memories with tags and eight metadata values."""
    described = []
    for number, plain in enumerate(memories):
        memory = memory_pb2.Memory()
        memory.CopyFrom(plain)
        memory.tags.extend(sorted(set(random_.choices(TAGS, k=3))))
        texts = {
            "source_channel": random_.choice(("slack", "email", "voice", "web")),
            "language": "en",
            "speaker_role": random_.choice(("user", "assistant")),
            "application_version": f"2.{random_.randrange(3)}.{random_.randrange(10)}",
            "trace_id": f"{random_.getrandbits(128):032x}",
        }
        for key, text in texts.items():
            memory.metadata[key].string_value = text
        memory.metadata["turn_number"].number_value = number
        memory.metadata["confidence"].number_value = random_.random()
        memory.metadata["reviewed"].bool_value = random_.random() < 0.3
        described.append(memory)
    return described
